from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tenfold import training
from tenfold.cli import app
from tenfold.cli.options import duration
from tenfold.cli.train import _filled
from tenfold.clock import PHASES, Phase
from tenfold.data.dataset import Dataset
from tenfold.errors import RecipeError, StoppedError, TrainingError

PUBLISHED_KEYS = [
    "run",
    "bundle",
    "engine",
    "device",
    "processes",
    "epochs",
    "test",
    "seconds",
    "images_per_second",
    "parameters",
    "precision",
    "peak_memory_bytes",
    "device_memory_bytes",
    "notes",
]
SMALL = ["--recipe", "classic", "--device", "cpu", "--set", "model.widths=[8, 8]", "--set", "precision=fp32"]


def result(tmp_path: Path, ended: str = "finished") -> training.TrainResult:
    import numpy as np

    from tenfold.evaluation.metrics import measure

    probabilities = np.eye(2, dtype=np.float32)[[0, 1, 1, 0]] * 0.8 + 0.1
    return training.TrainResult(
        path=tmp_path / "a run",
        bundle=tmp_path / "a run" / "model",
        report=tmp_path / "a run" / "report.html",
        engine="torch",
        device="cpu",
        epochs=2.5,
        test=measure(probabilities, np.array([0, 1, 1, 1]), ("cat", "dog")),
        accuracy_with_tta=None,
        seconds=dict.fromkeys(PHASES, 1.0) | {"total": 6.0},
        images_per_second=1000.0,
        parameters=1234,
        precision="fp32",
        peak_memory_bytes=10**9,
        device_memory_bytes=None,
        ended=ended,
        weights_sha256="0" * 64,
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What the verb asks of ``training.train``, which answers at once."""
    heard: list[dict[str, Any]] = []

    def train(**call: Any) -> training.TrainResult:
        heard.append(call)
        return result(tmp_path)

    monkeypatch.setattr(training, "train", train)
    return heard


def test_every_option_reaches_the_training(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    code = app.run(
        [
            *("train", "cifar10", "--recipe", "quick", "--engine", "torch", "--device", "cpu"),
            *("--epochs", "2.5", "--batch-size", "64", "--seed", "0", "--time-limit", "1h30m", "--patience", "3"),
            *("--set", "optimizer.lr=0.1", "--set", "model.widths=[8, 16]", "--out", str(tmp_path / "o")),
        ]
    )
    assert code == 0
    call = calls[0]
    assert call.pop("listen") is not None
    assert time.time() - call.pop("since") < 3600
    assert call == {
        "data": "cifar10",
        "recipe": "quick",
        "engine": "torch",
        "device": "cpu",
        "overrides": {
            "optimizer.lr": 0.1,
            "model.widths": [8, 16],
            "epochs": 2.5,
            "batch_size": 64,
            "seed": 0,
            "time_limit": 5400.0,
            "patience": 3,
        },
        "out": tmp_path / "o",
    }


def test_nothing_given_trains_digits_by_the_automatic_recipe(calls: list[dict[str, Any]]) -> None:
    assert app.run(["train"]) == 0
    assert {k: calls[0][k] for k in ("data", "recipe", "engine", "device", "overrides", "out")} == {
        "data": "digits",
        "recipe": "auto",
        "engine": "torch",
        "device": "auto",
        "overrides": {},
        "out": None,
    }


def test_resume_gives_the_run_alone(calls: list[dict[str, Any]]) -> None:
    assert app.run(["train", "--resume", "runs/x", "--json"]) == 0
    assert calls[0]["resume"] == Path("runs/x") and set(calls[0]) == {"resume", "listen", "since"}


def test_an_option_and_set_may_agree(calls: list[dict[str, Any]]) -> None:
    assert app.run(["train", "--epochs", "3", "--set", "epochs=3"]) == 0
    assert calls[0]["overrides"] == {"epochs": 3}


def test_json_is_one_object_of_the_promised_keys(
    calls: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["train", "--json"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert list(printed) == PUBLISHED_KEYS
    assert printed["test"] == {"accuracy": 0.75, "n": 4}
    assert list(printed["seconds"]) == ["import", "data", "setup", "train", "evaluate", "save", "total"]
    assert "Test accuracy 75.00 % on 4 images" in err


def test_the_words_at_the_end_can_be_copied_into_a_shell(
    calls: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["train"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"  tenfold predict '{tmp_path}/a run' photo.jpg" in err.splitlines()
    assert f"  tenfold evaluate '{tmp_path}/a run'" in err.splitlines()
    assert f"{tmp_path}/a run/report.html" in err
    assert "in 6.0 s: import 1.0 s, data 1.0 s, setup 1.0 s, train 1.0 s, evaluate 1.0 s, save 1.0 s" in err


def test_a_part_and_its_unit_stay_on_one_line() -> None:
    assert _filled("in 62 s:", ["import 1.1 s", "save 1 min 1 s"], 22) == "in 62 s: import 1.1 s,\nsave 1 min 1 s"
    assert _filled("in 62 s:", ["import 1.1 s", "save 1 min 1 s"], 21) == "in 62 s:\nimport 1.1 s,\nsave 1 min 1 s"


@pytest.mark.parametrize(
    ("ended", "said"), [("patience", "without a better val"), ("time_limit", "time limit allowed")]
)
def test_an_early_end_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], ended: str, said: str
) -> None:
    monkeypatch.setattr(training, "train", lambda **call: result(tmp_path, ended))
    assert app.run(["train"]) == 0
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_accuracy_with_test_time_augmentation_stands_behind_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = dataclasses.replace(result(tmp_path), accuracy_with_tta=0.8)
    monkeypatch.setattr(training, "train", lambda **call: both)
    assert app.run(["train"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.index("Test accuracy 75.00 %") < said.index("80.00 % with test-time augmentation")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("10min", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("90", 90),
        ("1.5h", 5400),
        ("1d", 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "10x", "m10", "-5", "0", "0s", "inf", "nan", "1h-3m", "1..5s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(RecipeError):
        duration(text)


WRONG_CALLS = [
    (["--epochs", "0"], "--epochs 0: must be above 0."),
    (["--seed", "-1"], "--seed -1: must not be below 0."),
    (["--batch-size", "-3"], "--batch-size -3: must be above 0."),
    (["--time-limit", "soon"], "--time-limit 'soon' is not a duration."),
    (["--epochs", "3", "--set", "epochs=4"], "--epochs says 3 and --set epochs=4 says otherwise."),
    (["--time-limit", "1m", "--set", "time_limit=61"], "--time-limit says 60 and --set time_limit=61"),
    (["--set", "seed=1", "--set", "seed=2"], "--set gives seed twice: 1 and 2."),
    (["--set", "epochs"], "expected KEY=VALUE"),
    (["--set", "epcohs=3"], "Did you mean epochs?"),
    (["--recipe", "quik"], "Did you mean quick?"),
    (["--engine", "touch"], "Did you mean torch?"),
    (["--batchsize", "3"], "Did you mean --batch-size?"),
    (["digits", "--resume", "x", "--epochs", "3"], "DATA, --epochs can't be given with it."),
    (["--resume", "x", "--set", "seed=3"], "--set can't be given with it."),
    (["--resume", "nosuch"], "No run is called 'nosuch'."),
]


def test_wrong_calls_are_refused_before_a_framework_is_imported(tmp_path: Path) -> None:
    script = (
        "import json, sys, contextlib, io\n"
        "from tenfold.cli import app\n"
        "for call in json.loads(sys.argv[1]):\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stderr(said):\n"
        "        code = app.run(['train', *call])\n"
        "    print(json.dumps([code, said.getvalue(), 'torch' in sys.modules]))\n"
    )
    calls = [call for call, _ in WRONG_CALLS]
    ran = subprocess.run(
        [sys.executable, "-c", script, json.dumps(calls)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    for (call, expected), line in zip(WRONG_CALLS, ran.stdout.splitlines(), strict=True):
        code, said, imported = json.loads(line)
        assert (code, imported) == (2, False), call
        assert said.startswith("Error: ") and expected in said, (call, said)
        assert len(said.splitlines()) <= 2, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "code"), [(StoppedError("Stopped.", "Go on"), 130), (TrainingError("NaN"), 1)])
def test_how_a_training_failed_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def train(**call: Any) -> None:
        raise error

    monkeypatch.setattr(training, "train", train)
    assert app.run(["train", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == code


def test_ctrl_c_after_the_training_still_leaves_the_command(squares: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs tenfold[torch]")

    def listen(event: Any) -> None:
        if event == Phase("evaluate"):
            raise KeyboardInterrupt

    overrides = {"model.widths": [4, 4], "epochs": 1, "precision": "fp32"}
    call: dict[str, Any] = {"recipe": "classic", "device": "cpu", "overrides": overrides, "out": tmp_path / "run"}
    with pytest.raises(StoppedError) as caught:
        training.train(squares, **call, listen=listen)
    assert caught.value.hint == f"Go on with: tenfold train --resume {tmp_path}/run"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_leaves_a_command_that_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    tenfold = [sys.executable, "-m", "tenfold", "train"]
    run = tmp_path / "the run"
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # a small network; spinning threads starve each other
    process = subprocess.Popen(
        [*tenfold, "digits", *SMALL, "--epochs", "12", "--out", str(run)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=one_thread,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "epoch" in line and "done" in line:
            process.send_signal(signal.SIGINT)
            break
    said += process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert f"tenfold train --resume '{run}'" in said
    assert "Traceback" not in said
    second = subprocess.run(
        [*tenfold, "--resume", str(run), "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=one_thread,
        timeout=240,
    )
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["epochs"] == 12
    assert "resumed at step" in second.stderr
