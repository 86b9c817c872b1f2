from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.benchmarking import records
from tenfold.benchmarking.records import Benchmark, Configuration, Trial
from tenfold.errors import CallError


def test_a_row_is_made_of_each_batch_size(measured: Callable[..., Trial]) -> None:
    rows = records.rows([measured(number=0, speed=1000), measured(number=1, speed=1200)])
    assert [(r.batch_size, r.n, r.status) for r in rows] == [(1, 2, "done"), (64, 2, "done")]
    spread = rows[0].figures["images_per_second"]
    assert (spread.median, spread.min, spread.max, spread.n) == (1100, 1000, 1200, 2)
    assert rows[1].speed == 3300 and rows[1].median("first_prediction_seconds") == pytest.approx(0.6)
    assert rows[0].figures["accuracy"].n == 1  # measured in the first round alone
    assert "calls" not in rows[0].figures


def test_what_could_not_be_measured_has_a_row_that_says_why(measured: Callable[..., Trial]) -> None:
    refused = measured("torch", status="refused", why="no card", figures={}, by_batch={})
    broken = measured(number=1, status="failed", why="it broke", figures={}, by_batch={})
    rows = records.rows([measured(), refused, broken])
    assert [(r.configuration.runtime, r.batch_size, r.status, r.why, r.n) for r in rows] == [
        ("onnxruntime", 1, "failed", "it broke", 1),
        ("onnxruntime", 64, "failed", "it broke", 1),
        ("torch", None, "refused", "no card", 0),
    ]


def test_json_and_back(measured: Callable[..., Trial], benchmark_of: Any, tmp_path: Path) -> None:
    made: Benchmark = benchmark_of(measured(), measured("torch", device="cuda"))
    file = tmp_path / "bench.json"
    file.write_text(made.to_json())
    for path in (file, tmp_path):
        assert records.read(path).to_json() == made.to_json()
    assert made.ok and made.machine.startswith("A card; ")
    assert made.versions["torch"] == made.versions["onnxruntime"] == "1.0" and made.versions["tenfold"]


def test_fields_of_a_newer_version_are_left_out(measured: Callable[..., Trial], benchmark_of: Any) -> None:
    made: Benchmark = benchmark_of(measured())
    data = json.loads(made.to_json())
    data |= {"version": 2, "weather": "fine"}
    data["rows"][0]["mood"] = data["trials"][0]["mood"] = data["subjects"][0]["mood"] = "good"
    data["rows"][0]["configuration"]["mood"] = "good"
    data["rows"][0]["figures"]["happiness"] = {"median": 1, "min": 1, "max": 1, "n": 1}
    assert Benchmark.from_dict(data).to_json() == made.to_json()


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "tenfold-tune", "kind": "inference"}', "no json", ""])
def test_other_json_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(CallError, match=r"other\.json is not"):
        records.read(file)


def test_damaged_and_missing_files_are_refused(measured: Any, benchmark_of: Any, tmp_path: Path) -> None:
    data = json.loads(benchmark_of(measured()).to_json())
    del data["rows"][0]["configuration"]["runtime"]
    with pytest.raises(CallError, match="it is damaged"):
        Benchmark.from_dict(data)
    with pytest.raises(CallError, match="can't be read"):
        records.read(tmp_path / "none.json")


def test_a_configuration_says_what_it_is() -> None:
    assert str(Configuration("a", "torch", "cuda", "bf16")) == "torch cuda bf16"
    assert str(Configuration("a", "onnxruntime", "cpu", "fp32", "bundle", 1)) == "onnxruntime cpu fp32 1 thread"
    assert str(Configuration("a", "onnxruntime", "cpu", "int8", "onnx-int8", 2)) == "onnx-int8 export cpu 2 threads"
