"""The benchmark of training: the sweep of batch sizes, what becomes of a process's words, rounds and the folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tenfold import recipe as recipes
from tenfold.benchmarking import folder, records, training_child, training_worker
from tenfold.benchmarking.records import Configuration, Trial
from tenfold.benchmarking.training import bench_training
from tenfold.benchmarking.training_child import speed_ups, understood
from tenfold.benchmarking.training_worker import Job, Outcome, out_of_memory, rising
from tenfold.cli import app
from tenfold.engines import base as engines_base
from tenfold.errors import CallError, RunExistsError, StoppedError
from tenfold.processes import Cost

COST = Cost(2.0, 0, False, None, None, 1.5, 0.0, 0.0)
CPU = Configuration("quick", "torch", "cpu", "fp32")


def job(tmp_path: Path, **changes: Any) -> Job:
    recipe = tmp_path / "recipe.yaml"
    overrides = {"model.widths": [8, 16], "optimizer.name": "sgd", "batch_size": 64}
    recipe.write_text(recipes.override(recipes.load("quick"), overrides).to_yaml(), encoding="utf-8")
    fields: dict[str, Any] = {
        "data": "digits", "recipe": str(recipe), "engine": "torch", "device": "cpu", "precision": "fp32",
        "batch_sizes": [16, 32], "seconds": 0.05, "limit": 60.0, "started": time.time(),
        "outcome": str(tmp_path / "outcome.json"), **changes,
    }  # fmt: skip
    return Job(**fields)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait for each other many times a step; where anything else computes, one is faster."""
    torch = pytest.importorskip("torch", reason="needs tenfold[torch]")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_process_times_the_steps_of_each_batch_size(tmp_path: Path, one_thread: None) -> None:
    outcome, written = Outcome(), []
    asked = job(tmp_path, batch_sizes=[16, 32, 4096])
    training_worker._Sweep(asked, outcome, lambda: written.append(outcome.trying)).run()
    assert list(outcome.by_batch) == ["16", "32"]
    assert outcome.notes == ["Larger batches than 32 were not tried: there are 1,293 images."]
    assert written == [16, None, 32, None]  # what was measured stands before the next size is tried
    figures = outcome.by_batch["32"]
    assert figures["step_p50_ms"] <= figures["step_p90_ms"] <= figures["step_p99_ms"]
    assert figures["epoch_seconds"] == pytest.approx(1293 / figures["images_per_second"])
    assert outcome.figures["first_step_seconds"] > 0 and set(figures) <= set(records.FIGURES)
    assert outcome.subject["parameters"] > 0 and outcome.ran_on == "cpu"


def test_a_batch_that_does_not_fit_ends_the_sweep_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(self: Any, size: int) -> dict[str, float]:
        if size > 64:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return {"images_per_second": float(size), "memory_bytes": 1.0}

    monkeypatch.setattr(training_worker._Sweep, "_measure", measure)
    outcome = Outcome()
    training_worker._Sweep(job(tmp_path, batch_sizes=[]), outcome, lambda: None).run()
    assert list(outcome.by_batch) == ["32", "64"] and outcome.notes == ["A batch of 128 does not fit the memory."]

    def broken(self: Any, size: int) -> dict[str, float]:
        raise ZeroDivisionError

    monkeypatch.setattr(training_worker._Sweep, "_measure", broken)
    with pytest.raises(ZeroDivisionError):
        training_worker._Sweep(job(tmp_path), Outcome(), lambda: None).run()


def test_a_sweep_ends_when_a_larger_batch_is_no_faster() -> None:
    assert rising([1.0]) and rising([100.0, 90.0]) and rising([1.0, 2.0, 2.01])
    assert rising([1.0, 0.9, 1.2])  # one size that is slow by chance ends nothing
    assert not rising([1.0, 2.0, 2.01, 2.02])
    assert out_of_memory(MemoryError()) and out_of_memory("The card has too little memory for steps of 64 images.")
    assert not out_of_memory(ValueError("shapes differ"))


def said(**changes: Any) -> dict[str, Any]:
    by_batch = {"32": {"images_per_second": 500.0, "memory_bytes": 1e6}}
    fields = {
        "state": "done", "why": None, "ran_on": "cpu", "device_label": "A processor", "figures": {}, "devices": {},
        "by_batch": by_batch, "subject": {}, "versions": {}, "notes": [], "trying": None,
    }  # fmt: skip
    return {**fields, **changes}


def test_a_process_that_memory_runs_out_for_keeps_what_it_measured() -> None:
    ended = said(state="running", trying=64)
    trial, _ = understood(ended, "its process was ended by the signal SIGKILL", CPU, 0, None, "now", COST)
    assert trial.status == "done" and "32" in trial.by_batch
    assert trial.notes == [
        "torch cpu fp32: A batch of 64 ended the process: its process was ended by the signal SIGKILL."
    ]
    trial, _ = understood(said(state="running", by_batch={}), "killed", CPU, 0, None, "now", COST)
    assert (trial.status, trial.why) == ("failed", "killed")
    trial, _ = understood(None, "it said nothing", CPU, 0, None, "now", COST)
    assert (trial.status, trial.why) == ("failed", "it said nothing")


def test_a_million_images_cost_the_price_of_their_hours() -> None:
    trial, _ = understood(said(), None, CPU, 0, {"cpu": 1.8}, "now", COST)
    assert trial.by_batch["32"]["cost"] == pytest.approx(1.8 * 1e6 / 500 / 3600)
    trial, _ = understood(said(), None, CPU, 0, {"cuda": 1.8}, "now", COST)
    assert "cost" not in trial.by_batch["32"]


def test_the_speed_up_is_that_of_each_device_s_best() -> None:
    def trial(device: str, precision: str, rates: Mapping[str, float], number: int = 0) -> Trial:
        by_batch = {size: {"images_per_second": rate} for size, rate in rates.items()}
        configuration = Configuration("quick", "torch", device, precision)
        return Trial(configuration, number, "done", ran_on=device, device_label=device, by_batch=by_batch)

    found = speed_ups(
        [
            trial("cpu", "fp32", {"32": 100.0, "64": 50.0}), trial("cpu", "fp32", {"32": 300.0, "64": 50.0}, 1),
            trial("cuda:0", "fp32", {"32": 900.0}), trial("cuda:0", "bf16", {"32": 100.0, "64": 5000.0}),
        ]
    )  # fmt: skip
    assert [(s.engine, s.device, s.times) for s in found] == [("torch", "cuda:0", 25.0)]
    assert str(found[0]) == "torch trains 25 times as fast on cuda:0 (cuda:0) as on the CPU."


class Processes:
    """In place of the processes: tells two devices, and a rate for each."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.stop_after: int | None = None

    def __call__(self, job: Job, home: Path) -> tuple[dict[str, Any] | None, str | None, Cost]:
        if job.list_devices:
            return said(devices={"cuda:0": ["A card", "fp32", "bf16"], "cpu": ["A processor", "fp32"]}), None, COST
        if self.stop_after == len(self.asked):
            raise KeyboardInterrupt
        self.asked.append((job.engine, job.device, job.precision))
        subject = {"name": "quick", "architecture": "cnn", "digest": "d"}
        if job.precision == "bf16":
            return said(state="failed", why="no kernel"), None, COST
        return said(ran_on=job.device, subject=subject), None, COST


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Processes:
    answers = Processes()
    monkeypatch.setattr(training_child, "_ask", answers)
    monkeypatch.setattr(folder, "_draw", lambda result: None)
    return answers


def test_every_device_and_precision_is_measured_in_turn_and_what_failed_once(
    answering: Processes, tmp_path: Path
) -> None:
    found = bench_training("digits", engines=["torch"], rounds=2, out=tmp_path / "bench")
    turn = [("torch", "cuda:0", "fp32"), ("torch", "cuda:0", "bf16"), ("torch", "cpu", "fp32")]
    assert answering.asked == [*turn, turn[0], turn[2]]
    assert [(str(row.configuration), row.n, row.status) for row in found.rows] == [
        ("torch cuda:0 fp32", 2, "done"), ("torch cuda:0 bf16", 0, "failed"), ("torch cpu fp32", 2, "done")
    ]  # fmt: skip
    assert found.kind == "training" and found.subjects[0].name == "quick" and not found.ok
    assert "torch trains 1 times as fast on cuda:0 (A processor) as on the CPU." in found.notes
    stored = records.read(tmp_path / "bench")
    assert stored.kind == "training" and len(stored.trials) == 5


def test_a_benchmark_that_was_stopped_goes_on_with_the_same_settings_only(answering: Processes, tmp_path: Path) -> None:
    call: dict[str, Any] = {"engines": ["torch"], "rounds": 1, "out": tmp_path / "bench", "devices": ["cuda:0", "cpu"]}
    answering.stop_after = 1
    with pytest.raises(StoppedError, match=r"1 measurement kept\..*--devices cuda:0,cpu --rounds 1 --out"):
        bench_training("digits", **call)
    assert json.loads((tmp_path / "bench" / "bench.json").read_text())["status"] == "interrupted"
    answering.stop_after = None
    assert bench_training("digits", **call).status == "finished"
    assert answering.asked.count(("torch", "cuda:0", "fp32")) == 1
    with pytest.raises(RunExistsError, match="another settings"):
        bench_training("digits", seconds=3.0, **call)


def test_cards_alike_are_measured_once_and_the_processor_is_left_to_engines_made_for_it(
    answering: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = {"cuda:0": ["A card", "fp32"], "cuda:1": ["A card", "fp32"], "cpu": ["A processor", "fp32"]}
    answers = answering.__call__
    monkeypatch.setattr(
        training_child,
        "_ask",
        lambda job, home: (said(devices=several), None, COST) if job.list_devices else answers(job, home),
    )
    monkeypatch.setattr(
        engines_base, "ENGINES", {name: engines_base.Entry(name, (), name) for name in ("torch", "opencl")}
    )
    bench_training("digits", rounds=1, out=tmp_path / "all")
    assert answering.asked == [("torch", "cuda:0", "fp32"), ("torch", "cpu", "fp32"), ("opencl", "cuda:0", "fp32")]
    answering.asked.clear()
    bench_training("digits", engines=["opencl"], rounds=1, out=tmp_path / "named")
    assert ("opencl", "cpu", "fp32") in answering.asked


def test_the_verb_shows_the_fastest_batch_and_takes_no_model_s_options(
    answering: Processes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["bench", "--train", "digits", "--engines", "torch", "--rounds", "1", "--price-per-hour", "cpu=1.8"]
    assert app.run([*call, "--precisions", "fp32", "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr()
    assert "best" in shown.out and "torch cuda:0 fp32" in shown.out and "torch trains 1 times as fast" in shown.out
    assert "[2/2] torch cpu fp32: 500 images/s at most" in shown.err
    for wrong, told in (
        (["bench", "--train", "digits", "--runtimes", "openvino"], "--runtimes is for models"),
        (["bench", "run", "--train", "digits"], "run is a model"),
        (["bench", "run", "--engines", "torch"], "--engines is for training"),
        (["bench"], "Nothing to measure is named"),
    ):
        assert app.run(wrong) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ({"recipe": "auto"}, "needs one recipe"),
        ({"overrides": {"batch_size": 3}}, "batch_size is what a benchmark varies"),
        ({"engines": ["torhc"]}, "Did you mean torch"),
        ({"precisions": ["fp8"]}, "No precision is called 'fp8'"),
        ({"batch_sizes": [0]}, "Batch sizes must be"),
        ({"rounds": 0}, "0 rounds"),
        ({"seconds": 0.0}, "above 0"),
        ({"price_per_hour": -1.0}, "no price"),
    ],
)
def test_a_wrong_call_is_refused_before_the_data_is_read(call: dict[str, Any], wrong: str) -> None:
    with pytest.raises(CallError, match=wrong):
        bench_training("nowhere", **call)
