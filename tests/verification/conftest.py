"""Engines and runtimes that do what a test says, in the processes that tenfold starts for them."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

# Python imports this by itself at its start. An engine's module that is there already is not looked for.
ENGINE = """
import sys, types

class Device:
    name = "cpu"

class Engine:
    def versions(self): return {"torch": "0"}
    def device(self, name): return Device()
    def check(self, architecture, recipe, device): pass
    def logits(self, architecture, weights, images, device, **more):
        import numpy as np
BODY

module = types.ModuleType("tenfold.engines.torch")
module.engine = lambda name: Engine()
sys.modules["tenfold.engines.torch"] = module
"""


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """(name, code) → a package of that name that runs ``code`` when it is imported, found before the real one."""

    def make(name: str, code: str) -> Path:
        folder = tmp_path / "packages"
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
        return folder

    return make


@pytest.fixture
def fake_engine(fake_package: Callable[[str, str], Path]) -> Callable[[str], None]:
    """(code) → the torch engine's logits() runs ``code``, which has ``images`` and ``np``."""

    def make(body: str) -> None:
        folder = fake_package("torch", "")
        (folder / "sitecustomize.py").write_text(ENGINE.replace("BODY", textwrap.indent(body, " " * 8)))

    return make
