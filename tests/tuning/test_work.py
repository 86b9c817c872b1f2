from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tenfold import recipe, tuning
from tenfold import run as runs
from tenfold.engines import base as engines
from tenfold.errors import CallError, MissingExtraError, RecipeError, RunExistsError, StoppedError, UnknownNameError
from tenfold.training import fit_to_data
from tenfold.tuning import page, work
from tenfold.tuning.records import Update

optuna = pytest.importorskip("optuna", reason="needs tenfold[tune]")
pytest.importorskip("torch", reason="needs tenfold[torch]")

# two passes of eleven steps each over the digits: less than a second a trial
SMALL: dict[str, Any] = {
    "model.widths": [8, 8],
    "model.depth": 1,
    "epochs": 2,
    "min_steps": 0,
    "low_res": None,
    "data.val_fraction": 0.2,
}
TUNE = {
    "optimizer.muon_lr": {"low": 0.01, "high": 1.0, "log": True},
    "batch_size": {"choices": [100, 50]},
}


def small(**changes: Any) -> recipe.Recipe:
    return recipe.override(recipe.load("quick"), {**SMALL, "batch_size": 100, "tune": TUNE, **changes})


@pytest.mark.slow
def test_a_search_is_confirmed_tested_once_and_goes_on(tmp_path: Path) -> None:
    """Also: a worker that is killed is replaced, and its trial tried again."""
    folder, heard, killed = tmp_path / "t", [], []

    def listen(event: Any) -> None:
        if not isinstance(event, Update):
            return
        heard.append(event)
        running = [t for t in event.trials if t.state == "running" and t.where and t.number == 1]
        if running and not killed:
            killed.append(running[0].number)
            os.kill(int(str(running[0].where).rpartition(":")[2]), signal.SIGKILL)

    options: dict[str, Any] = {"recipe": small(), "device": "cpu", "seeds": 1, "out": folder}
    found = work.tune("digits", trials=4, listen=listen, **options)

    assert killed and any("was replaced" in note for note in found.notes)
    states = found.counts()
    assert states["stopped"] == 1  # the try that was killed
    assert sum(states.get(s, 0) for s in ("complete", "pruned", "failed")) == 4
    assert found.trials[0].recipe and found.trials[0].state == "complete"
    assert {e.phase for e in heard} >= {"search", "confirm", "test"}
    assert [c.recipe for c in found.confirmed].count(True) == 1
    assert all(set(c.accuracies) == {1} for c in found.confirmed)
    assert found.test is not None and found.test["n"] == 359 and found.test_reads == 1
    assert not found.clear  # one seed tells no spread

    best = recipe.read(folder / "best.yaml")
    assert best.tune is None and best.name == "quick-tuned" and best.data.val_fraction == 0.2
    kept = json.loads((folder / work.FILE).read_text())
    assert kept["status"] == "finished" and len(kept["trials"]) == len(found.trials)
    assert (folder / page.PAGE).stat().st_size > 5000
    study = optuna.load_study(
        study_name=None,
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
        ),
    )  # as optuna-dashboard does
    assert len(study.trials) == len(found.trials)

    again = work.tune("digits", trials=5, **{**options, "seeds": 0})
    assert len(storage_counted(again)) == 5 and again.test is None and again.confirmed == []
    assert any("not confirmed" in note for note in again.notes)
    with pytest.raises(CallError, match="another recipe"):
        work.tune("digits", trials=6, **{**options, "recipe": small(label_smoothing=0.1)})


def storage_counted(found: Any) -> list[Any]:
    return [t for t in found.trials if t.state in ("complete", "pruned", "failed")]


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_worker(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(small().to_yaml())
    # a job in a script's background inherits SIGINT ignored
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; from tenfold.__main__ import main; main()"
    command = [sys.executable, "-c", code, "tune", "digits", "--recipe", str(tmp_path / "r.yaml"), "--out"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "t"), "--trials", "500", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "the recipe:" in line:
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"]["kind"] == StoppedError.__name__
    assert f"--out {tmp_path / 't'}" in err and "Go on with: tenfold tune digits" in err
    assert json.loads((tmp_path / "t" / work.FILE).read_text())["status"] == "interrupted"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _workers_of(tmp_path):
        time.sleep(0.1)
    assert _workers_of(tmp_path) == []


def _workers_of(folder: Path) -> list[str]:
    """Processes that have a file of the folder open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(folder) in os.readlink(f) for f in (entry / "fd").iterdir()):  # noqa: PTH115
                found.append(entry.name)
        except OSError:
            continue
    return [pid for pid in found if pid != str(os.getpid())]


def test_the_time_limit_holds(tmp_path: Path) -> None:
    begun = time.time()
    found = work.tune(
        "digits", recipe=small(epochs=4000), device="cpu", time_limit=8, seeds=1, out=tmp_path / "t"
    )  # a training of this would take minutes
    assert time.time() - begun < 16
    assert found.best is None and found.trials[0].state == "stopped"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"recipe": "auto"}, CallError, "auto is another"),
        ({"recipe": "quik"}, UnknownNameError, "quick"),
        ({"trials": 0}, CallError, "--trials 0"),
        ({"workers": 0}, CallError, "--workers 0"),
        ({"workers": 1000, "device": "cpu"}, CallError, "cores"),
        ({"time_limit": 0.0}, CallError, "time limit"),
        ({"engine": "torhc"}, UnknownNameError, "torch"),
        ({"storage": "redis://h"}, CallError, "no storage"),
        ({"overrides": {"data.val_fraction": 0}}, CallError, "validation images"),
        ({"overrides": {"tune": {"optimizer.lr": {"low": 9.0, "high": 10.0}}}}, RecipeError, "in the recipe itself"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_trained(
    options: dict[str, Any], error: type[CallError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        work.tune("digits", **options)
    assert caught.value.exit_code == 2
    assert not runs.paths.runs_folder().exists()


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunExistsError, match="holds no search"):
        work.tune("digits", out=tmp_path)


def test_without_optuna_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning.storage.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"tenfold\[tune\]"):
        work.tune("digits")


def test_min_steps_become_passes_and_training_forgets_the_space() -> None:
    base = recipe.override(recipe.load("quick"), {"batch_size": 100, "min_steps": 90, "epochs": 2})
    same, passes = work._same_passes(base, 1000)
    assert (same.epochs, same.min_steps, passes) == (9.0, 0, 9)
    same, passes = work._same_passes(recipe.override(base, {"min_steps": 0, "epochs": 2.5}), 1000)
    assert (same.epochs, passes) == (2.5, 3)
    from tenfold.data import load_dataset

    fitted, _ = fit_to_data(small(), load_dataset("digits", small().data))
    assert fitted.tune is None
    assert "torch" in engines.ENGINES
