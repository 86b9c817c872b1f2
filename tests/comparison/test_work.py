from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tenfold
from tenfold import recipe as recipes
from tenfold.comparison import child, work
from tenfold.comparison.child import Child
from tenfold.comparison.records import Comparison, Contestant, Ended, LeftOut, Started, Trial
from tenfold.engines import base
from tenfold.errors import CallError, RunError, RunExistsError, StoppedError, UnknownNameError


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, trial: Callable[..., Trial]) -> dict[str, Any]:
    """Children that end at once. ``ran`` lists them; ``fate`` is fields by (contestant, seed); ``before`` is called
    with each."""
    script: dict[str, Any] = {"ran": [], "fate": {}, "before": lambda one: None}

    def run(one: Child, meter: Any) -> Trial:
        script["before"](one)
        script["ran"].append((str(one.contestant), one.seed))
        changes = script["fate"].get((str(one.contestant), one.seed), {})
        return trial(one.contestant.engine, one.contestant.device, one.seed, folder=one.name, **changes)

    monkeypatch.setattr(child, "run", run)
    # three engines that look installed, and one that isn't
    packages = {"torch": "json", "jax": "json", "gone": "no_such_package"}
    entries = {name: base.Entry(name, (package,), name) for name, package in packages.items()}
    monkeypatch.setattr(base, "ENGINES", entries)
    monkeypatch.setattr(work, "_draw", lambda result: None)
    return script


def compare(out: Path, **options: Any) -> Comparison:
    return tenfold.compare("digits", **{"engines": ["torch", "jax"], "devices": ["cpu"], "out": out, **options})


def test_the_contestants_run_in_turn(children: dict[str, Any], tmp_path: Path) -> None:
    told: list[Any] = []
    result = compare(tmp_path / "c", devices=["cpu", "cuda"], seeds=2, listen=told.append)
    turn = ["torch cpu", "torch cuda", "jax cpu", "jax cuda"]
    assert children["ran"] == [(name, seed) for seed in (0, 1) for name in turn]
    assert [(e.number, e.total) for e in told if isinstance(e, Started)] == [(n, 8) for n in range(1, 9)]
    assert len([e for e in told if isinstance(e, Ended)]) == 8
    assert [str(row) for row in result.rows] == turn and all(row.n == 2 for row in result.rows)
    assert result.ok and result.reference == "torch cpu"


def test_compare_json_has_all_that_was_measured(children: dict[str, Any], tmp_path: Path) -> None:
    result = compare(tmp_path / "c", seeds=2, overrides={"epochs": 2}, price_per_hour={"cpu": 0.05})
    stored = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert stored["status"] == "finished" and stored["format"] == 1
    printed = json.loads(json.dumps(result.to_dict()))
    assert printed.pop("path") == str(tmp_path / "c")
    assert {k: stored[k] for k in printed} == printed
    assert stored["hardware"]["cores"] and stored["versions"]["tenfold"]
    assert stored["command"] == (
        "tenfold compare digits --engines torch,jax --devices cpu --recipe quick --seeds 2 --set epochs=2 "
        "--price-per-hour cpu=0.05"
    )
    recipe = recipes.read(tmp_path / "c" / "recipe.yaml")  # what every child is given
    assert recipe.epochs == 2 and recipe.min_steps == 0


def test_an_engine_that_is_not_installed_is_left_out_before_anything_runs(
    children: dict[str, Any], tmp_path: Path
) -> None:
    told: list[Any] = []
    result = compare(tmp_path / "c", engines=["gone", "torch"], seeds=1, listen=told.append)
    assert isinstance(told[0], LeftOut) and told[0].contestant == Contestant("gone", "cpu")
    assert "pip install 'tenfold[gone]'" in told[0].why and "no_such_package" in told[0].why
    assert children["ran"] == [("torch cpu", 0)]
    assert result.rows[0].status == "left out" and result.rows[0].why == told[0].why
    assert result.ok


def test_nothing_measured_is_not_ok(children: dict[str, Any], tmp_path: Path) -> None:
    result = compare(tmp_path / "c", engines=["gone"])
    assert not result.ok and children["ran"] == []


def test_without_engines_all_that_are_installed_compete(children: dict[str, Any], tmp_path: Path) -> None:
    result = compare(tmp_path / "c", engines=None, seeds=1)
    assert [row.engine for row in result.rows] == ["torch", "jax"]


@pytest.mark.parametrize(("status", "ok"), [("refused", True), ("failed", False)])
def test_the_others_go_on(children: dict[str, Any], tmp_path: Path, status: str, ok: bool) -> None:
    children["fate"]["torch cpu", 0] = {"status": status, "why": "no optimizer called muon", "exit_code": 2}
    result = compare(tmp_path / "c", seeds=2)
    assert children["ran"] == [("torch cpu", 0), ("jax cpu", 0), ("jax cpu", 1)]
    assert result.rows[0].why == "no optimizer called muon" and result.rows[1].n == 2
    assert result.ok is ok


def test_a_comparison_that_was_stopped_goes_on(children: dict[str, Any], tmp_path: Path) -> None:
    def stop(one: Child) -> None:
        if (str(one.contestant), one.seed) == ("torch cpu", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    children["before"] = stop
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="2 runs measured") as stopped:
        compare(tmp_path / "c", seeds=2)
    assert signal.getsignal(signal.SIGTERM) == before
    assert stopped.value.hint and stopped.value.hint.endswith(f"--seeds 2 --out {tmp_path / 'c'}")
    assert json.loads((tmp_path / "c" / "compare.json").read_text())["status"] == "interrupted"

    children["before"] = lambda one: None
    children["ran"].clear()
    told: list[Any] = []
    result = compare(tmp_path / "c", seeds=2, listen=told.append)
    assert children["ran"] == [("torch cpu", 1), ("jax cpu", 1)]
    assert [e.kept for e in told if isinstance(e, Ended)] == [True, True, False, False]
    assert all(row.n == 2 for row in result.rows)


def test_a_second_call_may_ask_for_more_and_tries_again_what_failed(children: dict[str, Any], tmp_path: Path) -> None:
    children["fate"]["torch cpu", 0] = {"status": "failed", "why": "memory", "exit_code": 1}
    compare(tmp_path / "c", seeds=1)
    children["fate"].clear()
    children["ran"].clear()
    result = compare(tmp_path / "c", engines=["torch"], devices=["cpu", "cuda"], seeds=1)
    assert children["ran"] == [("torch cpu", 0), ("torch cuda", 0)]
    assert [str(row) for row in result.rows] == ["torch cpu", "torch cuda", "jax cpu"]  # nothing measured is dropped
    assert result.ok


@pytest.mark.parametrize("change", [{"overrides": {"epochs": 9}}, {"recipe": "balanced"}])
def test_another_recipe_is_refused_in_the_same_folder(
    children: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    compare(tmp_path / "c", seeds=1)
    with pytest.raises(RunExistsError, match="another recipe"):
        compare(tmp_path / "c", seeds=1, **change)


def test_figures_of_another_machine_or_of_other_data_are_not_mixed_in(children: dict[str, Any], tmp_path: Path) -> None:
    compare(tmp_path / "c", seeds=1)
    file = tmp_path / "c" / "compare.json"
    stored = json.loads(file.read_text())
    for change, named in (
        ({"data_fingerprint": "0"}, "state of the data"),
        (
            {"hardware": {**stored["hardware"], "cores": 99}},
            "machine",
        ),
    ):
        file.write_text(json.dumps({**stored, **change}))
        with pytest.raises(RunExistsError, match=named):
            compare(tmp_path / "c", seeds=1)
    file.write_text("{")
    with pytest.raises(RunError, match=r"compare\.json can't be read"):
        compare(tmp_path / "c", seeds=1)


def test_a_folder_with_other_things_is_left_alone(children: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    for out in (tmp_path / "photos", tmp_path / "photos" / "a.jpg"):
        with pytest.raises(RunExistsError):
            compare(out)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_one_process_at_a_time(children: dict[str, Any], tmp_path: Path) -> None:
    def meanwhile(one: Child) -> None:
        with pytest.raises(RunError, match="in use"):
            compare(tmp_path / "c")

    children["before"] = meanwhile
    compare(tmp_path / "c", engines=["torch"], seeds=1)


def test_without_out_the_folders_are_numbered(children: dict[str, Any]) -> None:
    found = [tenfold.compare("digits", engines=["torch"], seeds=1).path.name for _ in range(2)]
    assert found == ["compare-digits-quick-1", "compare-digits-quick-2"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"engines": ["trch"]}, UnknownNameError, "Did you mean torch"),
        ({"engines": ["torch", "torch"]}, CallError, "named twice"),
        ({"devices": []}, CallError, "No device is named"),
        ({"recipe": "auto"}, CallError, "needs one recipe"),
        ({"recipe": "quik"}, UnknownNameError, "Did you mean quick"),
        ({"overrides": {"seed": 3}}, CallError, "--seeds"),
        ({"overrides": {"epcohs": 3}}, UnknownNameError, "Did you mean epochs"),
        ({"seeds": 0}, CallError, "above 0"),
        ({"price_per_hour": -1.0}, CallError, "no price"),
        ({"price_per_hour": {"cud": 1.0}, "devices": ["cpu", "cuda"]}, UnknownNameError, "Did you mean cuda"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(
    children: dict[str, Any], tmp_path: Path, options: dict[str, Any], error: type[CallError], said: str
) -> None:
    with pytest.raises(error, match=said):
        compare(tmp_path / "c", **options)
    assert children["ran"] == [] and not (tmp_path / "c").exists()


def test_data_that_is_not_there_is_told_once(children: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean digits"):
        tenfold.compare("digts", engines=["torch"], out=tmp_path / "c")
    assert children["ran"] == [] and not (tmp_path / "c").exists()
