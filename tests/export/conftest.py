from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold.bundle import store
from tenfold.data.dataset import Dataset
from tenfold.errors import CallError

# TensorFlow's formats in one process and the others in another, so that each framework is imported once.
MAKE = """
import json, sys
import numpy as np
from tenfold import children
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.export import formats, job, worker

bundle, pictures, out, names = sys.argv[1:]
children.outcome = lambda module, line, log, result: worker.done(worker.Job(**json.loads(line)))
found = np.load(pictures)
splits = {
    s: Split(found[s], found[s + "_labels"], [f"{s}/{i}" for i in range(len(found[s]))]) for s in ("train", "val")
}
data = Dataset("squares", "squares", tuple(f"class {i}" for i in range(4)), splits, Geometry(16, 16))
made = job.export_model(bundle, names.split(","), out=out, data=data)
print("\\n" + json.dumps(made.to_dict()))
"""


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
    results: dict[str, Any] = {}
    for group in (of_tensorflow, [name for name in names if name not in of_tensorflow]):
        if group:
            results |= _made(group, bundle, base)
    return {"bundle": bundle, "folder": base / "out", "results": {name: results[name] for name in names}}


def here(name: str, entry: Any) -> bool:
    """Whether the format can be had on this machine."""
    try:
        entry.require(name)
    except CallError:
        return False
    return True


def _made(names: list[str], bundle: Path, base: Path) -> dict[str, Any]:
    """Their results by name, made in a process."""
    command = [sys.executable, "-c", MAKE, str(bundle), str(base / "pictures.npz"), str(base / "out"), ",".join(names)]
    source = str(Path(tenfold.__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=_environment(source))
    assert done.returncode == 0, done.stderr
    return {r["format"]: r for r in json.loads(done.stdout.splitlines()[-1])["results"]}


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
