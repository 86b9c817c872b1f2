"""What the start of a training loads, and what it does at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tenfold import training
from tenfold.data.dataset import Dataset
from tenfold.engines import base
from tenfold.errors import DataError

pytest.importorskip("torch", reason="needs tenfold[torch]")

SMALL: dict[str, Any] = {"model.widths": [8, 16], "low_res": None, "epochs": 0.1, "batch_size": 32}

# Python imports this by itself at its start; every process that looks for torch leaves a line.
WATCH = """
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            with open(os.environ["WATCHED"], "a") as file:
                file.write(f"torch in {os.getpid()}\\n")
        return None

sys.meta_path.insert(0, Watch())
"""
# Stands before any torchvision that is installed, and says that it was imported.
TORCHVISION = """
import os
with open(os.environ["WATCHED"], "a") as file:
    file.write("torchvision\\n")
"""


def test_a_training_imports_torch_in_one_process_and_torchvision_in_none(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    _write_pictures(pictures)
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "torchvision.py").write_text(TORCHVISION)
    watched = tmp_path / "watched"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(training.__file__).parents[1])]),
        "WATCHED": str(watched),
    }
    command = [
        *(sys.executable, "-m", "tenfold", "train", str(pictures), "--recipe", "quick", "--device", "cpu"),
        *("--epochs", "1", "--set", "model.widths=[8, 16]", "--out", str(tmp_path / "run")),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = set(watched.read_text().splitlines())
    assert len(lines) == 1 and lines.pop().startswith("torch in ")


def _write_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")


class Ready:
    """Put in the engine's place for ``warm_up``: says in which thread it was called."""

    def __init__(self, error: Exception | None = None) -> None:
        self.threads: list[str] = []
        self.error = error

    def __call__(self, engine: base.Engine, device: base.Device) -> None:
        self.threads.append(threading.current_thread().name)
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, RuntimeError("no driver")])
def test_the_device_is_made_ready_in_a_thread_while_data_is_read(
    squares: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    ready = Ready(error)
    monkeypatch.setattr(type(base.load("torch")), "warm_up", lambda self, device: ready(self, device))
    result = training.train(squares, recipe="quick", overrides=SMALL, device="cpu", out=tmp_path / "run")
    assert ready.threads == ["tenfold-warm-up"]
    assert result.bundle.is_dir()


def test_data_that_cannot_be_read_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        training.train(tmp_path / "empty", recipe="quick", device="cpu", out=tmp_path / "run")
    assert not [t for t in threading.enumerate() if t.name == "tenfold-warm-up"]
