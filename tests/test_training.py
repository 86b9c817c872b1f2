from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold import recipe as recipes
from tenfold import training
from tenfold.bundle import store
from tenfold.clock import PHASES, Phase
from tenfold.data.dataset import Dataset
from tenfold.engines import base
from tenfold.engines.base import Notice, Started
from tenfold.errors import (
    CallError,
    MissingExtraError,
    RecipeError,
    StoppedError,
    TrainingError,
    UnknownNameError,
    UnsupportedError,
)

pytest.importorskip("torch", reason="needs tenfold[torch]")

SMALL: dict[str, Any] = {
    "model": {"name": "sprint", "widths": [8, 16]},
    "optimizer": {"name": "adam", "lr": 0.01},
    "augment": {"flip": "none", "translate": 0},
    "low_res": None,
    "epochs": 3,
    "batch_size": 32,
    "data.val_fraction": 0.1,
}


def test_the_whole_way_on_digits(tmp_path: Path) -> None:
    heard: list[Any] = []
    result = training.train("digits", recipe="quick", device="cpu", out=tmp_path / "run", listen=heard.append)
    assert result.test is not None
    assert result.test.accuracy >= 0.97
    assert [e.name for e in heard if isinstance(e, Phase)] == list(PHASES)
    parts = sum(result.seconds[name] for name in PHASES)
    assert result.seconds["total"] == pytest.approx(parts, abs=0.01)
    for name in ("run.json", "recipe.yaml", "metrics.jsonl", "evaluation.json", "report.html", "model/manifest.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["result"] == result.to_dict()
    assert list(result.to_dict()) == [
        "run", "bundle", "engine", "device", "processes", "epochs", "test", "seconds", "images_per_second",
        "parameters", "precision", "peak_memory_bytes", "device_memory_bytes", "notes",
    ]  # fmt: skip
    assert result.device_memory_bytes is None and result.peak_memory_bytes > 10**8
    assert list(result.notes) == [e.message for e in heard if isinstance(e, Notice)]
    model = tenfold.load(tmp_path / "run")
    digits = tenfold.load_dataset("digits")["test"]
    right = (model.probabilities(digits.images).argmax(1) == digits.labels).mean()
    assert right == pytest.approx(result.test.accuracy)
    assert any(isinstance(e, Notice) and "flip" in e.message for e in heard)


def test_what_the_engine_has_to_tell_is_in_the_result_and_the_report(
    squares: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = type(base.load("torch"))
    fit = engine.fit

    def telling(self: base.Engine, job: base.Job) -> base.FitResult:
        job.report(Notice("The batch is computed in parts."))
        return fit(self, job)

    monkeypatch.setattr(engine, "fit", telling)
    result = training.train(squares, recipe="quick", overrides=SMALL, out=tmp_path / "a")
    assert "The batch is computed in parts." in result.to_dict()["notes"]
    assert "The batch is computed in parts." in (tmp_path / "a" / "report.html").read_text()


def test_the_stored_recipe_gives_the_run_again(squares: Dataset, tmp_path: Path) -> None:
    first = training.train(squares, recipe="quick", overrides=SMALL, out=tmp_path / "a")
    again = training.train(squares, recipe=tmp_path / "a" / "recipe.yaml", out=tmp_path / "b")
    assert first.weights_sha256 == again.weights_sha256
    other = training.train(squares, recipe=tmp_path / "a" / "recipe.yaml", overrides={"seed": 1}, out=tmp_path / "c")
    assert other.weights_sha256 != first.weights_sha256


def test_evaluation_is_of_the_weights_in_the_bundle(squares: Dataset, tmp_path: Path) -> None:
    result = training.train(squares, recipe="quick", overrides=SMALL, out=tmp_path / "a")
    bundle = store.open(tmp_path / "a")
    assert bundle.manifest.metrics["test"]["accuracy"] == result.test.accuracy  # type: ignore[union-attr]
    assert bundle.manifest.weights_sha256 == store.weights_sha256(bundle.weights())
    assert bundle.manifest.temperature > 0
    assert result.test is not None
    assert bundle.manifest.threshold == result.test.threshold and 0 < (result.test.threshold or 0) < 1
    assert tenfold.evaluate(tmp_path / "a", data=squares).known == pytest.approx(result.test.known, abs=0.02)


def test_test_time_augmentation_is_told_beside_the_plain_figure(squares: Dataset, tmp_path: Path) -> None:
    plain = training.train(squares, recipe="quick", overrides=SMALL, out=tmp_path / "plain")
    both = training.train(
        squares, recipe="quick", overrides={**SMALL, "evaluate.tta": "flip+shift"}, out=tmp_path / "both"
    )
    assert plain.test is not None and both.test is not None
    assert both.test.accuracy == plain.test.accuracy and plain.accuracy_with_tta is None
    told = both.to_dict()["test"]
    stored = tenfold.evaluate(tmp_path / "both", data=squares, tta="flip+shift")
    assert told == {"accuracy": plain.test.accuracy, "n": plain.test.n, "accuracy_with_tta": stored.accuracy}
    assert "With test-time augmentation (flip+shift)" in (tmp_path / "both" / "report.html").read_text()


def test_a_dataset_without_val_or_test_is_trained_and_says_nothing_untrue(squares: Dataset, tmp_path: Path) -> None:
    none = dataclasses.replace(
        squares["val"], images=squares["val"].images[:0], labels=squares["val"].labels[:0], origins=[]
    )
    bare = dataclasses.replace(squares, splits={"train": squares["train"], "val": none, "test": none})
    result = training.train(bare, recipe="quick", overrides=SMALL, out=tmp_path / "a")
    assert result.to_dict()["test"] is None
    manifest = store.open(tmp_path / "a").manifest
    assert (manifest.temperature, manifest.threshold) == (1.0, None)
    with pytest.raises(RecipeError, match="patience needs validation"):
        training.train(bare, recipe="quick", overrides={**SMALL, "patience": 2}, out=tmp_path / "b")


def test_the_recipe_is_fitted_to_small_data_and_says_so(squares: Dataset) -> None:
    recipe, notices = training.fit_to_data(tenfold.Recipe(batch_size=500), squares)
    assert recipe.batch_size == 32
    assert recipe.data.size == 16
    digits = tenfold.load_dataset("digits", tenfold.Recipe(data={"val_fraction": "auto"}).data)
    assert training.fit_to_data(tenfold.Recipe(), digits)[0].data.val_fraction == 0.1
    assert any("batch_size" in n for n in notices)
    assert recipe.optimizer.lr == tenfold.Recipe().optimizer.lr  # Adam's step does not depend on the batch
    quick, notices = training.fit_to_data(recipes.load("quick"), squares)
    assert quick.optimizer.bias_lr == pytest.approx(25 * 32 / 500)
    assert any("rates are lowered" in n for n in notices)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ({"data": "cifar"}, UnknownNameError, "cifar10"),
        ({"recipe": "quik"}, UnknownNameError, "quick"),
        ({"engine": "tensorflw"}, UnknownNameError, "torch"),
        ({"device": "cuda:9"}, UnknownNameError, "cuda:9"),
        ({"overrides": {"epoch": 3}}, UnknownNameError, "epochs"),
        ({"overrides": {"epochs": "many"}}, RecipeError, "epochs"),
        ({"overrides": {"model.name": "vgg"}}, UnknownNameError, "sprint"),
        ({"recipe": "classic", "overrides": {"low_res.size": 16}}, UnsupportedError, "low_res"),
        ({"overrides": {"precision": "fp16"}, "device": "cpu"}, UnsupportedError, "fp16"),
    ],
)
def test_wrong_calls_are_told_before_anything_is_made(
    call: dict[str, Any], error: type[CallError], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says) as caught:
        training.train(**{"data": "digits", "out": tmp_path / "run", **call})
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_missing_extra_is_told_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(MissingExtraError, match=r"tenfold\[tensorboard\]"):
        training.train("digits", overrides={"log.tensorboard": True}, out=tmp_path / "run")


def test_tensorboard_files_are_written(squares: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tenfold[tensorboard]")
    training.train(squares, recipe="quick", overrides={**SMALL, "log.tensorboard": True}, out=tmp_path / "a")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    assert len(events.Scalars("epoch/val_accuracy")) == 3


def test_nan_leaves_the_run_as_it_was_last_good(squares: Dataset, tmp_path: Path) -> None:
    broken = {**SMALL, "optimizer": {"name": "sgd", "lr": 1e30}}
    with pytest.raises(TrainingError, match="no longer a number"):
        training.train(squares, recipe="quick", overrides=broken, out=tmp_path / "a")
    assert not (tmp_path / "a" / "model").exists()
    assert json.loads((tmp_path / "a" / "run.json").read_text())["status"] == "failed"


# ---- killed and resumed, through the real command line ---------------------------------------------------------------

ARGUMENTS = ["digits", "--recipe", "quick", "--device", "cpu", "--set", "checkpoint.seconds=0", "--epochs", "12"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tenfold", "train", *arguments]


def weights_of(run: Path) -> str:
    return json.loads((run / "model" / "manifest.json").read_text())["weights_sha256"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run(command(*ARGUMENTS, "--out", str(run)), check=True, capture_output=True)
    return weights_of(run)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(unbroken: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    dice = random.Random(5)
    kills = 0
    arguments = [*ARGUMENTS, "--out", str(run)]
    while True:
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            process.wait(timeout=dice.uniform(2, 5) if kills < 2 else 120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            if (run / "run.json").exists():
                if json.loads((run / "run.json").read_text())["status"] == "finished":
                    break  # killed in its last moments, when all was done
                arguments = ["--resume", str(run)]
            continue
        assert process.returncode == 0, process.stderr.read() if process.stderr else ""
        break
    assert kills >= 1
    assert weights_of(run) == unbroken
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.slow
def test_ctrl_c_and_sigterm_leave_a_checkpoint_and_the_command_to_resume(unbroken: str, tmp_path: Path) -> None:
    """A run that is stopped by the one, and where it goes on by the other."""
    run = tmp_path / "run"
    last = run / "checkpoint" / "last.safetensors"
    arguments = [*ARGUMENTS, "--out", str(run)]
    for number in (signal.SIGINT, signal.SIGTERM):
        before = last.stat().st_mtime_ns if last.exists() else None
        process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(600):
            if last.exists() and last.stat().st_mtime_ns != before:
                break
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert f"--resume {run}" in said
        assert "Traceback" not in said
        arguments = ["--resume", str(run)]
    subprocess.run(command(*arguments), check=True, capture_output=True)
    assert weights_of(run) == unbroken


def test_resumed_data_must_be_the_same(squares: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    rng = np.random.default_rng(0)
    from tenfold.data import load_dataset

    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(30):
            _write_ppm(folder / name / f"{i}.ppm", rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    assert len(load_dataset(folder)["train"])

    def stop_at_once(event: Any) -> None:
        if isinstance(event, Started):
            raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        training.train(folder, recipe="quick", overrides=SMALL, out=tmp_path / "run", listen=stop_at_once)
    _write_ppm(folder / "a" / "0.ppm", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(CallError, match="not the data"):
        training.train(resume=tmp_path / "run")


def _write_ppm(path: Path, image: np.ndarray) -> None:
    path.write_bytes(b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes())
