from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold.bundle import store
from tenfold.data.dataset import Dataset
from tenfold.errors import CallError

MAKE = Path(__file__).parent / "made.py"


@pytest.fixture
def pictures(squares: Dataset) -> Dataset:
    """The squares under the class names of ``four``."""
    return dataclasses.replace(squares, classes=tuple(f"class {i}" for i in range(4)))


@pytest.fixture
def four(bundle_content: Any, tmp_path: Path) -> Path:
    """A bundle of four classes at 16×16, with a threshold, in a run's place."""
    return store.write(tmp_path / "run" / "model", bundle_content(classes=4, size=16, threshold=0.3)).path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are calls, so that what a test has changed is changed for them too."""
    from tenfold import children
    from tenfold.export import worker

    monkeypatch.setattr(
        children, "outcome", lambda module, line, log, result: worker.done(worker.Job(**json.loads(line)))
    )


@pytest.fixture(scope="session")
def every(
    tmp_path_factory: pytest.TempPathFactory, bundle_content: Any, make_squares: Callable[[], dict[str, np.ndarray]]
) -> dict[str, Any]:
    """Every format whose packages are here: ``{"bundle", "folder", "results": {format: result}}``."""
    from tenfold.export.formats import FORMATS

    base = tmp_path_factory.mktemp("exports")
    bundle = store.write(base / "run" / "model", bundle_content(classes=4, size=16, threshold=0.3)).path
    np.savez(base / "pictures.npz", **make_squares())
    names = [name for name, entry in FORMATS.items() if here(name, entry)]
    of_tensorflow = [name for name in names if ("tensorflow", "tensorflow") in FORMATS[name].needs]
    if importlib.util.find_spec("nvidia") is not None:
        # PyTorch's build for CUDA and TensorFlow in one process, which tests are and tenfold never is, end in a crash.
        names, of_tensorflow = [name for name in names if name not in of_tensorflow], []
    # TensorFlow's formats in one process and the others in another, so that each framework is imported once.
    groups = [group for group in (of_tensorflow, [name for name in names if name not in of_tensorflow]) if group]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda group: _made(group, bundle, base), groups))
    results = {result["format"]: result for group in made for result in group}
    return {"bundle": bundle, "folder": base / "out", "results": {name: results[name] for name in names}}


def here(name: str, entry: Any) -> bool:
    """Whether the format can be had on this machine."""
    try:
        entry.require(name)
    except CallError:
        return False
    return True


def _made(names: list[str], bundle: Path, base: Path) -> list[dict[str, Any]]:
    """What ``made.py`` tells of these formats."""
    command = [sys.executable, str(MAKE), str(bundle), str(base / "pictures.npz"), str(base / "out"), ",".join(names)]
    source = str(Path(tenfold.__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=_environment(source))
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _environment(source: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))}


@pytest.fixture(scope="session")
def make_squares() -> Callable[[], dict[str, np.ndarray]]:
    """Training and validation pictures and labels of four classes, as arrays."""

    def make() -> dict[str, np.ndarray]:
        rng, out = np.random.default_rng(0), {}
        for name, count in (("train", 128), ("val", 64)):
            out[name] = rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
            out[f"{name}_labels"] = np.arange(count, dtype=np.int64) % 4
        return out

    return make
