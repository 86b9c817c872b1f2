from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tenfold.comparison import records
from tenfold.comparison.records import Comparison, Contestant, Trial

plot = pytest.importorskip("tenfold.comparison.plot", reason="needs matplotlib")


def comparison(trials: Sequence[Trial]) -> Comparison:
    contestants = list(dict.fromkeys(t.contestant for t in trials))
    rows, reference = records.rows([*contestants, Contestant("gone", "cpu")], trials, {})
    machine = {"cores": 2, "cpu": "A processor"}
    return Comparison(
        Path("c"), "/photos/flowers", {"name": "quick"}, rows, reference, trials, [], machine, {}, "", "2026"
    )


def words(svg: bytes) -> list[str]:
    return ["".join(e.itertext()).strip() for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_names_the_data_the_machine_and_the_contestants(trial: Callable[..., Trial]) -> None:
    trials = [trial(seed=i, accuracy=0.9 + i / 100) for i in range(2)]
    trials += [trial("jax", "cuda", 0, 2.0, device_label="A card"), trial("jax", "cuda", 1, status="failed", why="x")]
    found = plot.draw(comparison(trials))
    shown = words(found["svg"])
    assert "flowers, recipe quick" in shown and "2 cores of A processor; A card" in shown
    assert shown.count("torch cpu") == shown.count("jax cuda") == 2  # beside its bar, and in the legend
    assert "gone cpu" not in shown
    assert "10.0 s" in shown and "2.0 s" in shown
    assert found["png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("seconds", "tick"),
    [((5.0, 6.0), "2 s"), ((300.0, 400.0), "2 min"), ((9000.0, 9001.0), "2 h"), ((1.0, 90.0), "1 min")],
)
def test_the_seconds_have_round_ticks(trial: Callable[..., Trial], seconds: Sequence[float], tick: str) -> None:
    shown = words(plot.draw(comparison([trial(seed=i, seconds=s) for i, s in enumerate(seconds)]))["svg"])
    assert tick in shown


def test_data_without_test_images_has_bars_alone(trial: Callable[..., Trial]) -> None:
    shown = words(plot.draw(comparison([trial(accuracy=None, test_images=None)]))["svg"])
    assert "Where the seconds went" in shown and "Test accuracy, a dot a run" not in shown


def test_the_parts_add_up_to_the_whole(trial: Callable[..., Trial]) -> None:
    one = trial(seconds=10.0)
    assert sum(plot.parts(one).values()) == pytest.approx(10.0)
    assert plot.parts(one)["end"] == pytest.approx(1.0)


def test_the_middle_run(trial: Callable[..., Trial]) -> None:
    trials = [trial(seed=i, seconds=s) for i, s in enumerate((30.0, 10.0, 20.0, 40.0))]
    assert plot.middle(trials[:3]).seconds == 20.0 and plot.middle(trials).seconds == 20.0
