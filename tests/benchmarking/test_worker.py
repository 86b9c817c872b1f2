"""What a configuration's process does, called in this one; ONNX Runtime on the CPU, and a card that isn't there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as library
import pytest

from tenfold import processes
from tenfold.benchmarking import child, pictures, targets, worker
from tenfold.benchmarking.records import Configuration
from tenfold.benchmarking.worker import Job, Outcome
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.errors import BundleError, CallError, DataError, DeviceError, UnsupportedError
from tenfold.runtimes import onnxruntime


@pytest.fixture
def job(bundle_folder: Path, tmp_path: Path) -> Job:
    """ONNX Runtime on the bundle, with its golden images as pictures."""
    shown = pictures.gather(tmp_path, targets.find([bundle_folder]), None, 0, lambda event: None)
    return Job(
        path=str(bundle_folder),
        kind="bundle",
        runtime="onnxruntime",
        device="cpu",
        precision="fp32",
        threads=None,
        golden=str(bundle_folder),
        folder=str(shown.folders["tiny-run"]),
        outcome=str(tmp_path / "outcome.json"),
        batch_sizes=[1, 7],
        seconds=0.01,
        first=True,
        started=0.0,
    )


@pytest.fixture
def card_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that was built for CUDA and finds no card: it goes on on the CPU without a word."""
    real = library.InferenceSession

    def session(data: bytes, options: Any = None, providers: Any = None, **more: Any) -> Any:
        plain = library.SessionOptions()
        return real(data, plain, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(library, "InferenceSession", session)
    monkeypatch.setattr(library, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_a_configuration_is_measured(job: Job) -> None:
    outcome = Outcome()
    worker._work(job, outcome)
    assert (outcome.ran_on, outcome.provider) == ("cpu", "CPUExecutionProvider")
    assert outcome.device_label and outcome.devices["cpu"] == ["fp32"] and outcome.versions["onnxruntime"]
    assert outcome.figures["golden_difference"] < 1e-5 and outcome.figures["open_seconds"] > 0
    assert "accuracy" not in outcome.figures  # there are no labels
    assert list(outcome.by_batch) == ["1", "7"]
    for found in outcome.by_batch.values():
        assert 0 < found["latency_p50_ms"] <= found["latency_p90_ms"] <= found["latency_p99_ms"]
        assert found["images_per_second"] > 0 < found["decoded_images_per_second"] and found["memory_bytes"] > 1e6


def test_a_later_round_measures_no_accuracy_again(job: Job) -> None:
    outcome = Outcome()
    worker._work(dataclasses.replace(job, first=False, batch_sizes=[1]), outcome)
    assert set(outcome.figures) == {"open_seconds", "first_prediction_seconds"} and not outcome.devices


def test_accuracy_is_of_the_pictures_with_labels(job: Job, bundle_folder: Path) -> None:
    folder = Path(job.folder)
    images = np.load(folder / worker.IMAGES)
    right = onnxruntime.open(bundle_folder / "model.onnx").probabilities(images).argmax(1)
    right[0] = (right[0] + 1) % 3
    np.save(folder / worker.LABELS, right)
    outcome = Outcome()
    worker._work(dataclasses.replace(job, batch_sizes=[1]), outcome)
    assert outcome.figures["accuracy"] == 1 - 1 / len(images)


def test_wrong_answers_are_a_failure(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime.OnnxRuntime.probabilities
    monkeypatch.setattr(onnxruntime.OnnxRuntime, "probabilities", lambda self, images: real(self, images)[:, ::-1])
    with pytest.raises(BundleError, match="Its answers are wrong: on 5 golden images"):
        worker._work(job, Outcome())


def test_how_far_answers_may_be_off() -> None:
    assert worker.tolerance("bundle", "fp32").max_difference == 1e-4
    exact, half, brain = (worker.tolerance("bundle", p).max_difference for p in ("fp32", "fp16", "bf16"))
    assert exact < half < brain < worker.tolerance("onnx-int8", "int8").max_difference


def test_calls_are_timed_until_there_are_enough() -> None:
    calls: list[int] = []
    assert len(worker.timed(calls.append, 1e-9)) >= 1 and calls[-1] <= worker.LEAST
    assert len(worker.timed(calls.append, 0.001)) >= worker.LEAST


# ---- a device that doesn't compute -----------------------------------------------------------------------------------


def test_a_fall_back_to_the_cpu_is_an_error(job: Job, card_falls_back: None) -> None:
    assert onnxruntime.devices() == ["cuda", "cpu"]
    outcome = Outcome()
    with pytest.raises(CallError, match="was to be computed by CUDA, and ONNX Runtime took CPU"):
        worker._work(dataclasses.replace(job, device="cuda"), outcome)
    assert outcome.ran_on is None and not outcome.by_batch


def test_work_on_another_provider_is_an_error(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, images = (bundle_folder / "model.onnx").read_bytes(), np.zeros((2, 8, 8, 3), np.uint8)
    found = onnxruntime.placed(data, images, where="model.onnx")
    assert list(found) == ["CPUExecutionProvider"] and any("Conv" in name for name in found["CPUExecutionProvider"])
    real = onnxruntime._session
    monkeypatch.setattr(onnxruntime, "_session", lambda *args: real(*args[:4], "cpu", args[5]))
    with pytest.raises(DeviceError, match=r"Conv.* ran on CPUExecutionProvider, not on CUDAExecutionProvider"):
        onnxruntime.placed(data, images, device="cuda", where="model.onnx")


def test_a_card_that_onnx_runtime_was_not_built_for_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert onnxruntime.devices() == ["cpu"]
    with pytest.raises(UnsupportedError, match="ONNX Runtime has no CUDA here") as caught:
        worker._work(dataclasses.replace(job, device="cuda"), Outcome())
    assert "onnxruntime-gpu" in str(caught.value)


# ---- as a process ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "found", "status"),
    [
        ({"state": "done", "figures": {}, "by_batch": {"1": {}}}, False, "done"),
        ({"state": "refused", "why": "no card"}, False, "refused"),
        ({"state": "absent", "why": "no card"}, True, "refused"),  # nobody asked for it
        ({"state": "absent", "why": "no card"}, False, "failed"),
        ({"state": "failed", "why": "wrong"}, True, "failed"),
        (None, False, "failed"),
    ],
)
def test_what_a_process_said_is_understood(
    said: Any, found: bool, status: str, bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: Any, *, stdout: Path, stderr: Path, **more: Any) -> processes.Cost:
        job = json.loads(Path(command[-1]).read_text())
        stderr.write_text("\nSegmentation fault\n")
        if said is not None:
            Path(job["outcome"]).write_text(json.dumps(said))
        return processes.Cost(1.0, 0 if said else -11, False, None, None, None, None, None)

    monkeypatch.setattr(processes, "run", run)
    target = targets.find([bundle_folder]).targets[0]
    one = Configuration("tiny-run", "onnxruntime", "cuda", "fp32", "bundle")
    measured = child.run(
        target, one, 0, pictures=tmp_path, home=tmp_path, batch_sizes=[1], seconds=0.1, first=True, found=found
    )
    assert measured.trial.status == status and measured.trial.seconds == 1.0
    if status == "done":
        assert measured.trial.figures["size_bytes"] == (bundle_folder / "model.onnx").stat().st_size
    if said is None:
        assert measured.trial.why == "Segmentation fault (ended by signal SIGSEGV)"


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_are_spread_over_the_test_split(
    squares: Dataset, bundle_content: Callable[..., Any], tmp_path: Path
) -> None:
    from tenfold.bundle import store

    bundle = store.write(tmp_path / "b", bundle_content(classes=4, size=16)).path
    found = targets.find([bundle])
    data = dataclasses.replace(squares, classes=tuple(f"class {i}" for i in range(4)))
    shown = pictures.gather(tmp_path, found, data, 10, lambda event: None)
    folder = shown.folders["tiny-run"]
    chosen = np.linspace(0, 63, 10).round().astype(int)
    np.testing.assert_array_equal(np.load(folder / worker.IMAGES), squares["test"].images[chosen])
    np.testing.assert_array_equal(np.load(folder / worker.LABELS), squares["test"].labels[chosen])
    assert shown.images == {"tiny-run": 10} and "10 of 64 test images" in shown.notes[0]
    other = Dataset("o", "o", ("x",), {"test": Split(np.zeros((1, 16, 16, 3), np.uint8), np.zeros(1, np.int64), ["a"])},
                    Geometry(16, 16), False, "1" * 64)  # fmt: skip
    (tmp_path / "again").mkdir()
    with pytest.raises(DataError, match="does not know"):
        pictures.gather(tmp_path / "again", found, other, 10, lambda event: None)


def test_without_data_a_note_says_so(bundle_folder: Path, tmp_path: Path) -> None:
    shown = pictures.gather(tmp_path, targets.find([bundle_folder]), None, 10, lambda event: None)
    assert shown.images == {"tiny-run": 0} and "accuracy was not measured" in shown.notes[0]
    assert len(np.load(shown.folders["tiny-run"] / worker.IMAGES)) == 5  # the golden images
