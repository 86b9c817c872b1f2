from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tenfold import words
from tenfold.cli import render
from tenfold.data.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_is_valid_whatever_is_put_in(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "nan": float("nan"),
        "inf": [float("inf"), np.float32("nan")],
        "array": np.arange(3, dtype=np.int64),
        "path": Path("a/b"),
        1: (True, None, "é"),
    }
    render.print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == {
        "nan": None,
        "inf": [None, None],
        "array": [0, 1, 2],
        "path": "a/b",
        "1": [True, None, "é"],
    }


def test_json_of_what_is_not_text(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    render.print_json({"path": "caf\u00e9 \udcff"})
    assert json.loads(raw.getvalue().decode("ascii")) == {"path": "caf\u00e9 \udcff"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0341, "34 ms"),
        (4.21, "4.2 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (75, "1 min 15 s"),
        (3599.7, "1 h 00 min"),
        (5400, "1 h 30 min"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345, "12.3 kB"), (999_600, "1 MB"), (25_276_514_304, "25.3 GB")],
)
def test_size(value: int, text: str) -> None:
    assert words.size(value) == text


def test_percent_and_count() -> None:
    assert words.percent(0.98765) == "98.77 %"
    assert words.percent(float("nan")) == words.percent(None) == "–"
    assert words.count(1, "class", "classes") == "1 class"
    assert words.count(2000, "image") == "2,000 images"


def test_printable_escapes_what_steers_a_terminal() -> None:
    assert render.printable("a\x1b[31m\tb\nc\x7f é 写") == "a\\x1b[31m\\tb\nc\\x7f é 写"


def test_a_log_gets_a_line_at_a_stage_s_end_few_between_and_none_of_a_quick_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(i * 0.1 for i in range(10_000))
    monkeypatch.setattr(render.time, "monotonic", lambda: next(clock))
    with render.progress() as report:
        for done in range(121):
            report(Progress("decode", done, 120, "images"))
        report(Progress("quick", 2, 2, "images"))
        for done in range(21):
            report(Progress("read", done * 100_000, 2_000_000, "bytes"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "decode: 120/120 images in 12.0 s"
    assert lines[-1] == "read: 2 MB/2 MB in 2.0 s"
    assert len(lines) == 4
    assert lines[0].startswith("decode: 50/120 images")


def test_a_terminal_gets_bars_that_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("TERM", "xterm")
    with render.progress() as report:
        report(Progress("decode", 1, 4, "images"))
        report(Progress("decode", 4, 4, "images"))
    assert "4 / 4 images" in screen.getvalue()
    assert "\x1b[2K" in screen.getvalue()


def test_nothing_is_drawn_without_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    with render.progress():
        pass
    assert capsys.readouterr() == ("", "")


def test_tables_in_a_file_have_no_blanks_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table.grid()
    table.add_row("[brackets] stay", "")
    render.show(table, "end")
    assert capsys.readouterr().out == "[brackets] stay\nend\n"
