from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenfold.cli import app
from tenfold.cli import tune as verb
from tenfold.tuning import work
from tenfold.tuning.records import Confirmed, Running, Trial, Tuning, Update

PARAMS = {"optimizer.lr": 0.12345, "model.widths": "[8, 16]"}
TRIALS = [
    Trial(0, "complete", 0.8, PARAMS, {1: 0.8}, 10.0, 1.0, "finished", None, True, None),
    Trial(1, "complete", 0.9, PARAMS, {1: 0.9}, 11.0, 1.0, "finished", None, False, None),
    Trial(2, "failed", None, PARAMS, {}, None, None, None, "memory ran out", False, None),
]
CONFIRMED = [
    Confirmed(1, False, 0.9, {1: 0.88, 2: 0.9}, {1: 10.0, 2: 12.0}, 1.0),
    Confirmed(0, True, 0.8, {1: 0.8, 2: 0.82}, {1: 10.0, 2: 12.0}, 1.0),
]


def result(path: Path) -> Tuning:
    return Tuning(
        path, path / "best.yaml", path / "tune.html", "s", "j", "digits", {"name": "quick"}, {}, TRIALS, CONFIRMED, 1,
        False, 0.08, True, {"accuracy": 0.87, "n": 100}, 1, {}, {"total": 75.0}, None, 1, "torch", "CPU", ["told"], {},
        {}, "tenfold tune", "2026",
    )  # fmt: skip


def update(**changes: Any) -> Update:
    fields: dict[str, Any] = {
        "phase": "search", "trials": TRIALS, "wanted": 30, "running": [Running("trial 3", 0.5, 0.7)], "elapsed": 60.0,
        "left": 120.0, "estimate": 100.0,
    }  # fmt: skip
    return Update(**{**fields, **changes})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the verb asks of ``tune``, which answers at once."""
    script: dict[str, Any] = {"heard": [], "result": result(tmp_path)}

    def answer(*args: Any, listen: Callable[[Any], None], since: float, **options: Any) -> Tuning:
        script["heard"].append((args, options))
        listen(update(note="a note"))
        for trial in TRIALS:
            listen(update(ended=trial))
        listen(update(confirmed=CONFIRMED[0]))
        found: Tuning = script["result"]
        return found

    monkeypatch.setattr(work, "tune", answer)
    return script


def test_every_option_reaches_the_work(calls: dict[str, Any], tmp_path: Path) -> None:
    code = app.run(
        [
            *("tune", "cifar10", "--recipe", "sprint", "--epochs", "2", "--set", "optimizer.lr=0.1", "--trials", "5"),
            *("--slower", "--workers", "3"),
            *("--time-limit", "30m", "--seeds", "2", "--engine", "jax", "--device", "cuda"),
            *("--storage", "postgresql://h/d", "--study", "s", "--out", str(tmp_path / "o")),
        ]
    )
    assert code == 0
    assert calls["heard"] == [
        (
            ("cifar10",),
            {
                "recipe": "sprint",
                "engine": "jax",
                "device": "cuda",
                "overrides": {"optimizer.lr": 0.1, "epochs": 2.0},
                "trials": 5,
                "time_limit": 1800.0,
                "workers": 3,
                "storage": "postgresql://h/d",
                "study": "s",
                "seeds": 2,
                "slower": True,
                "out": tmp_path / "o",
            },
        )
    ]


def test_a_log_has_a_line_a_trial_and_the_result_a_verdict(
    calls: dict[str, Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert app.run(["tune"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[:5] == [
        "a note",
        "[3/30, 2 min 00 s left] the recipe: 80.00 % in 10.0 s, 1 epochs",
        "[3/30, 2 min 00 s left] trial 1: 90.00 % in 11.0 s, 1 epochs",
        "[3/30, 2 min 00 s left] trial 2: failed: memory ran out",
        "Confirming trial 1, seed 2: 90.00 % in 12.0 s",
    ]
    flat = [" ".join(line.split()) for line in out.splitlines()]
    assert flat[0] == "digits, recipe quick: 3 trials (2 complete, 1 failed) in 1 min 15 s"
    assert "trial 1 2 89.00 % 88.00 % 90.00 % 11.0 s" in flat
    assert "Trial 1 is better than the recipe by 8.00 points, more than the spread of the seeds." in flat
    assert "Test accuracy of the winner 87.00 % on 100 images." in flat
    assert "Note: told" in flat
    assert f"tenfold train digits --recipe {tmp_path / 'best.yaml'}" in err


def test_json_is_one_object(calls: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["tune", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["number"] == 1 and found["confirmed"][0]["mean"] == pytest.approx(0.89)
    assert found["trials"][2]["why"] == "memory ran out"


def test_no_recipe_at_the_end_is_exit_code_1(calls: dict[str, Any], tmp_path: Path) -> None:
    calls["result"] = replace(result(tmp_path), best=None, number=None, confirmed=[], test=None, gain=None)
    assert app.run(["tune"]) == 1


def test_verdicts_say_no_more_than_was_measured(tmp_path: Path) -> None:
    one = [replace(CONFIRMED[0], accuracies={1: 0.9}), replace(CONFIRMED[1], accuracies={1: 0.8})]
    found = replace(result(tmp_path), confirmed=one, clear=False)
    assert "by one seed, which tells no spread" in verb.verdict(found)[0]
    assert "within the spread" in verb.verdict(replace(result(tmp_path), clear=False))[0]
    assert "best.yaml is the recipe" in verb.verdict(replace(result(tmp_path), recipe_won=True, number=0))[0]
    hurried = replace(result(tmp_path), gain=None, confirmed=[CONFIRMED[0], Confirmed(0, True, 0.8)])
    assert "no time to confirm the recipe" in verb.verdict(hurried)[0]
    assert "could not be trained" in verb.verdict(replace(hurried, confirmed=CONFIRMED[:1]))[0]
    assert "read 3 times" in verb.verdict(replace(result(tmp_path), test_reads=3))[1]


def test_the_live_board_has_the_best_trials_and_the_budget() -> None:
    from rich.console import Console

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(verb.board("digits", update()))
    text = console.export_text()
    for words in ("2 complete, 1 failed of 30", "1 min 00 s gone", "2 min 00 s left", "done in about 1 min 40 s",
                  "trial 3 50 % (70.00 %)", "0.1235", "[8, 16]"):  # fmt: skip
        assert words in text, text
    assert text.index("trial 1") < text.index("the recipe")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--recipe", "auto"], "auto is another"),
        (["--time-limit", "soon"], "not a duration"),
        (["--set", "tune={optimizer.lrr: {low: 1, high: 2}}"], "Did you mean optimizer.lr"),
        (["--storage", "sqlite:///x"], "no storage"),
        (["--trail", "3"], "Did you mean --trials"),
    ],
)
def test_wrong_calls(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna", reason="needs tenfold[tune]")
    assert app.run(["tune", "digits", *arguments]) == 2
    assert expected in capsys.readouterr().err
