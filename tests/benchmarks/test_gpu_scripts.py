"""The scripts of benchmarks/gpu that need no card."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="needs tenfold[torch]")

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"

TABLE = """
|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |
|  warmup  |      1  |     0.1000  |   0.1000  |               |        1.0000  |
|          |   eval  |     0.1000  |   0.1000  |       0.1100  |        2.0000  |
|       0  |      1  |     0.7000  |   0.6900  |               |        0.5000  |
|          |   eval  |     0.9600  |   0.9350  |       0.9403  |        3.2100  |
|       1  |      1  |     0.7100  |   0.6900  |               |        0.5000  |
"""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_counted_run_is_read_and_the_warm_up_is_not() -> None:
    airbench = script("airbench")
    assert airbench.first_result(TABLE.splitlines()) == {"accuracy": 0.9403, "train": 3.21}
    assert airbench.first_result(TABLE.splitlines()[:4]) is None


def test_a_script_is_ended_after_its_first_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "peer.py").write_text(f"import time\nprint({TABLE!r}, flush=True)\ntime.sleep(600)\n")
    script("airbench").main(tmp_path / "peer.py", tmp_path / "work")
    told = json.loads(capsys.readouterr().out)
    assert told["test"] == {"accuracy": 0.9403}
    assert told["seconds"]["train"] == 3.21
    assert 0 < told["seconds"]["total"] < 60


def test_the_table_takes_what_every_run_tells() -> None:
    table = script("table")
    peer = [{"test": {"accuracy": a}, "seconds": {"train": 3.0, "total": t}} for a, t in ((0.94, 20.0), (0.93, 30.0))]
    assert table.figures(peer) == {
        "test accuracy": {"median": 0.935, "min": 0.93, "max": 0.94},
        "whole seconds": {"median": 25.0, "min": 20.0, "max": 30.0},
        "  train seconds": {"median": 3.0, "min": 3.0, "max": 3.0},
    }
    ours = [{**peer[0], "images_per_second": 10.0, "peak_memory_bytes": 2e6}]
    assert table.figures(ours)["peak memory, MB"]["median"] == 2.0
    assert table.lines("sprint", ours)[0] == "sprint, n = 1"


def test_what_check_names_exists() -> None:
    text = (FOLDER / "check.sh").read_text(encoding="utf-8")
    for name in ("benchmarks/gpu/airbench.py", "benchmarks/gpu/table.py", "benchmarks/profile_step.py"):
        assert name in text and (FOLDER.parents[1] / name).is_file()
