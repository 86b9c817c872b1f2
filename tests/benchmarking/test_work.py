from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tenfold
from tenfold.benchmarking import child, folder, records, targets
from tenfold.benchmarking.child import Measured
from tenfold.benchmarking.records import Benchmark, Configuration, Trial
from tenfold.benchmarking.targets import Target
from tenfold.benchmarking.work import Ended, Started
from tenfold.engines.base import Entry
from tenfold.errors import CallError, RunError, RunExistsError, StoppedError


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, measured: Callable[..., Trial]) -> dict[str, Any]:
    """Processes that end at once. ``ran`` lists them, ``fate`` has changed fields by name, ``devices`` what a runtime
    says it has, ``before`` is called with each."""
    told: dict[str, Any] = {"ran": [], "fate": {}, "devices": {}, "before": lambda name: None, "found": []}

    def run(target: Target, one: Configuration, number: int, **options: Any) -> Measured:
        told["before"](str(one))
        told["ran"].append((str(one), number))
        told["found"] += [str(one)] if options["found"] else []
        changes = told["fate"].get(str(one), {})
        trial = dataclasses.replace(measured(one.runtime, number), **{"configuration": one, **changes})
        return Measured(trial, told["devices"].get(one.runtime, {}) if number == 0 else {})

    monkeypatch.setattr(child, "run", run)
    monkeypatch.setattr(child, "devices_of", lambda runtime, home: told["devices"].get(runtime, {}))
    monkeypatch.setattr(folder, "_draw", lambda result: None)
    monkeypatch.setattr(targets, "RUNTIMES", {"onnxruntime": ("json", None)})
    engines = {"torch": Entry("torch", ("json",), "torch"), "opencl": Entry("tinygrad", ("json",), "opencl")}
    monkeypatch.setattr(targets, "ENGINES", engines)
    return told


def bench(folder: Path, out: Path, **options: Any) -> Benchmark:
    return tenfold.bench(folder, **{"out": out, "test_images": 0, "rounds": 2, **options})


def test_the_configurations_run_in_turn(script: dict[str, Any], bundle_folder: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    result = bench(bundle_folder, tmp_path / "b", listen=told.append)
    turn = ["onnxruntime cpu fp32", "torch cpu fp32"]
    assert script["ran"] == [(name, number) for number in (0, 1) for name in turn]
    assert [(e.number, e.total) for e in told if isinstance(e, Started)] == [(n, 4) for n in range(1, 5)]
    assert result.ok and all(row.n == 2 for row in result.rows) and len(result.rows) == 4
    stored = records.read(tmp_path / "b")
    assert stored.status == "finished" and stored.to_json() == result.to_json()
    assert stored.command == f"tenfold bench {bundle_folder} --rounds 2 --test-images 0"


def test_devices_that_a_runtime_tells_of_are_measured_too(
    script: dict[str, Any], bundle_folder: Path, tmp_path: Path
) -> None:
    script["devices"] = {"torch": {"cuda:0": ["fp32", "bf16"], "cpu": ["fp32"]}, "opencl": {"opencl:0": ["fp32"]}}
    script["fate"] = {"torch cuda:0 bf16": {"status": "refused", "why": "no", "by_batch": {}}}
    result = bench(bundle_folder, tmp_path / "b")
    first = [name for name, number in script["ran"] if number == 0]
    assert first[0] == "onnxruntime cpu fp32" and set(first[1:]) == {
        "torch cpu fp32", "torch cuda:0 fp32", "torch cuda:0 bf16", "opencl opencl:0 fp32"
    }  # fmt: skip
    assert ("torch cuda:0 bf16", 1) not in script["ran"]  # what could not be measured is not tried again
    assert set(script["found"]) == {"torch cuda:0 fp32", "torch cuda:0 bf16", "opencl opencl:0 fp32"}
    assert result.ok and any("opencl on the processor" in note for note in result.notes)


def test_a_failure_is_told_and_the_others_go_on(script: dict[str, Any], bundle_folder: Path, tmp_path: Path) -> None:
    script["fate"] = {"onnxruntime cpu fp32": {"status": "failed", "why": "it broke", "by_batch": {}}}
    result = bench(bundle_folder, tmp_path / "b")
    assert not result.ok and [r.n for r in result.rows] == [0, 2, 2]


def test_no_round_is_begun_past_the_time_limit(script: dict[str, Any], bundle_folder: Path, tmp_path: Path) -> None:
    result = bench(bundle_folder, tmp_path / "b", time_limit=1e-9, rounds=3)
    assert {number for _, number in script["ran"]} == {0} and all(row.n == 1 for row in result.rows)
    assert any("1 of 3 rounds" in note for note in result.notes)


def test_it_goes_on_where_it_was_stopped(script: dict[str, Any], bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"

    def stop(name: str) -> None:
        if len(script["ran"]) == 3:
            raise KeyboardInterrupt

    script["before"] = stop
    with pytest.raises(StoppedError, match="3 measurements kept") as caught:
        bench(bundle_folder, out)
    assert str(caught.value).endswith(f"--test-images 0 --out {out}")
    assert records.read(out).status == "interrupted"
    script["before"], script["ran"] = lambda name: None, []
    told: list[Any] = []
    result = bench(bundle_folder, out, listen=told.append)
    assert script["ran"] == [("torch cpu fp32", 1)]
    assert [e.kept for e in told if isinstance(e, Ended)] == [True, True, True, False]
    assert all(row.n == 2 for row in result.rows)


def test_a_folder_of_other_things_is_refused(script: dict[str, Any], bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    bench(bundle_folder, out, rounds=1)
    with pytest.raises(RunExistsError, match="another settings"):
        bench(bundle_folder, out, batch_sizes=[1, 2])
    data = json.loads((out / "bench.json").read_text())
    data["hardware"]["cpu"] = "another"
    (out / "bench.json").write_text(json.dumps(data))
    with pytest.raises(RunExistsError, match="another machine"):
        bench(bundle_folder, out)
    (out / "bench.json").write_text("{}")
    with pytest.raises(RunError, match="not a benchmark"):
        bench(bundle_folder, out)
    with pytest.raises(RunExistsError, match="holds no benchmark"):
        bench(bundle_folder, bundle_folder)


@pytest.mark.parametrize(
    "options",
    [{"rounds": 0}, {"batch_sizes": []}, {"batch_sizes": [0]}, {"seconds": 0}, {"time_limit": -1}, {"test_images": -1},
     {"threads": [0]}, {"devices": []}],
)  # fmt: skip
def test_what_cannot_be_asked(options: dict[str, Any], script: Any, bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CallError):
        bench(bundle_folder, tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()
