from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tenfold.tuning import charts, page
from tenfold.tuning.records import Confirmed, Trial, Tuning


def trial(number: int, value: float | None, state: str = "complete", **changes: Any) -> Trial:
    fields: dict[str, Any] = {
        "params": {"optimizer.lr": 0.1 * (number + 1), "model.widths": "[8, 16]"},
        "curve": {} if value is None else {1: value / 2, 2: value}, "seconds": 10.0, "epochs": 2.0,
        "ended": "finished", "why": None, "recipe": number == 0, "where": "h:1",
    }  # fmt: skip
    return Trial(number, state, value, **{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def found(tmp_path: Path) -> Tuning:
    (tmp_path / "best.yaml").write_text("name: <b>tuned</b>\n")
    return Tuning(
        path=tmp_path,
        best=tmp_path / "best.yaml",
        page=tmp_path / "tune.html",
        study="a <study>",
        storage="j",
        data="di<gits",
        recipe={"name": "quick"},
        space={
            "optimizer.lr": {"low": 0.01, "high": 1.0, "log": True},
            "model.widths": {"choices": [[8, 16], [16, 32]]},
        },
        trials=[trial(0, 0.8), trial(1, 0.9), trial(2, 0.2, "pruned"), trial(3, None, "failed", why="<no> memory")],
        confirmed=[
            Confirmed(1, False, 0.9, {1: 0.88, 2: 0.89}, {1: 1.0, 2: 1.0}, 2.0),
            Confirmed(0, True, 0.8, {1: 0.81, 2: 0.8}, {1: 1.0, 2: 1.0}, 2.0),
        ],
        number=1,
        recipe_won=False,
        gain=0.08,
        clear=True,
        test={"accuracy": 0.87, "n": 100},
        test_reads=1,
        importance={"optimizer.lr": 0.9, "model.widths": 0.1},
        seconds={"search": 10.0, "total": 20.0},
        time_limit=60.0,
        workers=1,
        engine="torch",
        device="a CPU",
        notes=["a <note>"],
        hardware={"cores": 2, "cpu": "CPU", "memory_bytes": 10**9, "system": "Linux"},
        versions={"tenfold": "0.1.0", "optuna": "5"},
        command="tenfold tune",
        created="2026-01-01T10:00:00+00:00",
    )


class Balanced(HTMLParser):
    """Fails on a tag that is closed before what it holds is."""

    VOID = ("meta", "br", "img", "rect", "circle", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID or tag in ("circle", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(found: Tuning) -> None:
    text = page.write(found).read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(text.replace('rx="2"/>', 'rx="2"></rect>'))
    assert [tag for tag in parser.open if tag not in ("rect", "circle")] == []
    assert not re.search(r"https?://|<script|src=", text)
    assert "default-src 'none'" in text
    for words in ("88.50 %", "8.00 points", "more than the seeds’ spread", "87.00 %", "PED-ANOVA", "trial 1 (winner)"):
        assert words in text


def test_names_from_strangers_are_text(found: Tuning) -> None:
    text = page.html(found)
    for words in ("<study>", "di<gits", "<note>", "<no> memory", "<b>tuned"):
        assert words not in text
    for words in ("a &lt;study&gt;", "&lt;no&gt; memory", "&lt;b&gt;tuned"):
        assert words in text


def test_a_search_without_any_result_has_a_page(found: Tuning) -> None:
    from dataclasses import replace

    empty = replace(found, trials=[trial(0, None, "failed", why="x")], confirmed=[], number=None, best=None, test=None,
                    gain=None, importance={})  # fmt: skip
    text = page.html(empty)
    assert "too few to say" in text and "<svg" not in text


def test_far_worse_trials_do_not_press_the_others_together() -> None:
    marks = charts.scale([0.1, 0.1, 0.9, 0.91, 0.92, 0.92, 0.93, 0.93, 0.94, 0.94])
    assert marks[0] > 0.8 and marks[-1] <= 1


def test_a_slice_puts_a_logarithmic_middle_in_the_middle() -> None:
    at, labels = charts._along("x", {"low": 0.01, "high": 1.0, "log": True}, [])
    assert at(trial(0, 0.5, params={"x": 0.1})) == pytest.approx(0.5)
    assert [words for _, words in labels] == ["0.01", "0.1", "1 (log)"]
    at, labels = charts._along("x", {"choices": [[8, 16], [16, 32]]}, [])
    assert at(trial(0, 0.5, params={"x": "[16, 32]"})) == 1.0
