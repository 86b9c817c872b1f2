from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tenfold.comparison import records
from tenfold.comparison.records import Contestant, Spread, Trial

CPU, CUDA = Contestant("torch", "cpu"), Contestant("torch", "cuda")


def test_a_spread_is_median_lowest_highest_and_n() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert Spread.of([]) is None
    assert Spread.of([1.0, None]) is None  # a median of some of the runs would pass for one of all


def test_speed_up_and_cost_are_by_the_median_of_the_whole_process(trial: Callable[..., Trial]) -> None:
    trials = [trial(seconds=s, seed=i) for i, s in enumerate((60.0, 72.0, 300.0))]
    trials += [trial(device="cuda", seconds=s, seed=i) for i, s in enumerate((9.0, 10.0))]
    rows, reference = records.rows([CUDA, CPU], trials, {}, {"cpu": 1.0, "cuda": 3600.0})
    cuda, cpu = rows
    assert reference == "torch cpu"  # though it stands second
    assert cpu.speed_up == 1 and cuda.speed_up == pytest.approx(72 / 9.5)
    assert cpu.cost == pytest.approx(0.02) and cuda.cost == pytest.approx(9.5)
    assert (cpu.n, cuda.n) == (3, 2)
    assert cpu.train_seconds == Spread(70.0, 58.0, 298.0, 3)


def test_without_a_cpu_the_first_that_was_measured_is_the_reference(trial: Callable[..., Trial]) -> None:
    other = Contestant("jax", "cuda")
    rows, reference = records.rows([CUDA, other], [trial("jax", "cuda")], {CUDA: "not here"})
    assert reference == "jax cuda"
    assert (rows[0].status, rows[0].why, rows[0].n, rows[0].speed_up) == ("left out", "not here", 0, None)
    assert records.rows([CPU], [], {CPU: "not here"})[1] is None


def test_a_row_says_why_it_has_fewer_runs(trial: Callable[..., Trial]) -> None:
    trials = [trial(), trial(seed=1, status="failed", why="out of memory", exit_code=1)]
    (row,), _ = records.rows([CPU], trials, {})
    assert (row.n, row.status, row.why) == (1, "failed", "out of memory")


def test_a_device_called_auto_is_named_by_where_it_ran(trial: Callable[..., Trial]) -> None:
    (row,), reference = records.rows([Contestant("torch", "auto")], [trial(device="auto")], {})
    assert str(row) == reference == "torch cpu"


@pytest.mark.parametrize(
    ("device", "ran_on", "price", "found"),
    [
        ("cpu", "cpu", 2.5, 2.5),
        ("cuda:1", "cuda:1", {"cuda": 3.0}, 3.0),
        ("cuda:1", "cuda:1", {"cuda": 3.0, "cuda:1": 1.0}, 1.0),
        ("auto", "cuda:0", {"cuda": 3.0, "cpu": 1.0}, 3.0),
        ("cpu", "cpu", {"cuda": 3.0}, None),
        ("cpu", "cpu", None, None),
    ],
)
def test_prices(device: str, ran_on: str, price: float | dict[str, float] | None, found: float | None) -> None:
    assert records.price_of(device, ran_on, price) == found


def test_what_makes_the_figures_less_alike_is_said(trial: Callable[..., Trial]) -> None:
    cores = os.cpu_count() or 1
    quiet = [trial(others_cores=0.01 * cores, steal_share=0.0, versions={"torch": "1"}), trial("jax", seed=0)]
    assert records.notes(quiet) == []
    loud = [
        trial(others_cores=0.5 * cores, versions={"torch": "1"}, notes=["batch halved", "no flip"]),
        trial(seed=1, steal_share=0.3, versions={"torch": "2"}),
        trial("jax", precision="bf16", notes=["no flip"]),
        trial("opencl", status="failed", why="x", notes=["never told"], others_cores=float(cores)),
    ]
    load, stolen, precision, versions, halved, shared = records.notes(loud)
    assert load.startswith("In 1 of 3 runs other programs used the machine too")
    assert "30 % of the time" in stolen
    assert precision == "Precision differs: fp32 in torch cpu; bf16 in jax cpu."
    assert versions.startswith("The runs of torch cpu are of different versions")
    assert (halved, shared) == ("torch cpu: batch halved", "no flip")


def test_a_trial_comes_back_from_json(trial: Callable[..., Trial]) -> None:
    one = trial(notes=["a"], versions={"torch": "2"})
    stored = json.loads(json.dumps({**one.to_dict(), "of a newer tenfold": 1}))
    assert Trial.from_dict(stored).to_dict() == json.loads(json.dumps(one.to_dict()))
    with pytest.raises(TypeError):
        Trial.from_dict({"engine": "torch"})
