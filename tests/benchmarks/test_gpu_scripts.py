"""The scripts of benchmarks/gpu that need no card."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="needs tenfold[torch]")

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gpu_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    for name in ("benchmarks/race.py", "benchmarks/gpu/table.py"):
        assert name in text and (FOLDER.parents[1] / name).is_file()
