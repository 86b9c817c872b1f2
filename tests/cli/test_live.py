from __future__ import annotations

import dataclasses
import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tenfold.cli import live
from tenfold.cli.board import PHASES, Board
from tenfold.cli.curve import Curve, Series, accuracy_bounds, bounds, plot
from tenfold.cli.pace import Pace, clock
from tenfold.clock import Phase
from tenfold.data.progress import Progress
from tenfold.engines.base import Checkpointed, Device, EpochEnd, Notice, Started, Step

CPU = Device("cpu", "a processor, 2 threads")


def started(steps: int = 200, per_epoch: int = 100, first: int = 0) -> Started:
    return Started(steps, per_epoch, first, 227_594, CPU, "fp32", "device")


def step(at: int, loss: float = 1.5, accuracy: float = 0.4) -> Step:
    return Step(at, at / 100, loss, accuracy, 0.05, 1650.0, 812_000_000)


def epoch(number: int, val: float | None = 0.5) -> EpochEnd:
    val_loss = None if val is None else 1.2
    return EpochEnd(number, 100 * number, 1.1, 0.6, val_loss, val, 0.01, 1650.0, 30.0 * number, 812_000_000)


def text(lines: list[Any]) -> list[str]:
    return ["".join(t for t, _ in line).rstrip() for line in lines]


class Screen:
    """What a terminal shows of the bytes written to it: the few sequences that the painter uses, any other refused."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines, self.row, self.column, self.cursor = [""], 0, 0, True
        self.above: list[str] = []

    def write(self, data: str) -> None:
        for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]", data):
            if len(part) > 1:
                self._control(part)
            elif part == "\r":
                self.column = 0
            elif part == "\n":
                self._down()
            else:
                if self.column >= self.columns:
                    self.column = 0
                    self._down()
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
                self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")
        if len(self.lines) > self.rows:
            self.above.append(self.lines.pop(0))
            self.row -= 1

    def _control(self, code: str) -> None:
        if code.endswith("A"):
            self.row = max(self.row - int(code[2:-1]), 0)
        elif code == "\x1b[K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif code == "\x1b[J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif code == "\x1b[?25l":
            self.cursor = False
        elif code == "\x1b[?25h":
            self.cursor = True
        else:
            assert code.endswith("m") or code in ("\x1b[?2026h", "\x1b[?2026l"), repr(code)

    def all(self) -> list[str]:
        return [line.rstrip() for line in [*self.above, *self.lines]]


# ---- durations, the time left, curves ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (1.94, "1.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1:00"), (83, "1:23"), (7384, "2:03:04")],
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_time_left_follows_the_recent_pace_and_counts_down() -> None:
    pace = Pace()
    for i in range(11):
        pace.at(i, 10 * i)
    assert pace.seconds_left(200, 10) == pytest.approx(10)
    assert pace.seconds_left(200, 12) == pytest.approx(8)
    for i in range(11, 200):
        pace.at(i, 100 + (i - 10))
    assert pace.seconds_left(389, 199) == pytest.approx(100)


def test_no_time_left_is_guessed_before_there_is_a_pace() -> None:
    pace = Pace()
    assert pace.seconds_left(10, 0) is None
    pace.at(0, 0)
    pace.at(0.5, 1)
    assert pace.seconds_left(10, 0.5) is None


def test_a_series_stays_short_and_keeps_its_course() -> None:
    series = Series(limit=64)
    for x in range(100_000):
        series.add(x, x / 1000)
    series.add(100_000, float("nan"))
    points = series.drawn()
    assert 32 <= len(points) <= 65
    assert all(y == pytest.approx(x / 1000) for x, y in points)
    assert points[-1][0] > 99_000


def test_a_rising_line_is_drawn_from_the_lower_left_to_the_upper_right() -> None:
    lines = text(plot([Curve([(0, 0.0), (1, 1.0)], "cyan")], 8, 4, 0.0, 1.0))
    assert [len(line) for line in lines] == [8, 6, 4, 2]
    assert [len(line) - len(line.lstrip()) for line in lines] == [6, 4, 2, 0]


def test_a_point_alone_is_drawn_wider_than_a_dot() -> None:
    for x in (0.0, 0.5, 1.0):
        assert len(text(plot([Curve([(x, 0.5)], "green")], 20, 3, 0.0, 1.0))[1].strip()) >= 2


def test_one_wild_first_loss_does_not_flatten_the_curve() -> None:
    low, high = bounds([400.0, *[2 - i / 100 for i in range(100)]])
    assert low == pytest.approx(1.01) and high < 4


def test_bounds_of_nothing_and_of_equal_values_have_a_width() -> None:
    for low, high in (
        bounds([]),
        bounds([2.0, 2.0]),
        accuracy_bounds([]),
        accuracy_bounds([1.0]),
        accuracy_bounds([0]),
    ):
        assert low < high


# ---- the board -----------------------------------------------------------------------------------------------


def board_in_training(steps: int = 150) -> Board:
    board = Board("cifar10 · quick", 0.0)
    for i, name in enumerate(PHASES[:4]):
        board.take(Phase(name), float(i))
    board.take(started(), 4.0)
    for at in range(10, steps + 1, 10):
        board.take(step(at, 2.3 - at / 200, at / 300), 4.0 + at / 10)
        if at == 100:
            board.take(epoch(1), 14.0)
    return board


def test_the_board_shows_all_that_training_reports() -> None:
    lines = text(board_in_training().frame(79, 23, 19.0))
    whole = "\n".join(lines)
    assert lines[0].startswith("cifar10 · quick") and lines[0].endswith("19 s")
    assert "227,594 parameters · a processor, 2 threads · fp32" in whole
    assert "import 1.0 s" in whole and "▸ train 16 s" in whole and "evaluate" in whole
    assert "75 %  step 150 of 200  5.0 s left" in whole
    header = next(line for line in lines if "epoch" in line)
    assert header.split() == ["epoch", "loss", "accuracy", "val", "loss", "val", "acc", "rate", "images/s", "memory"]
    rows = [line.split() for line in lines if "812 MB" in line]
    assert rows[0][:8] == ["1", "1.1000", "60.00", "%", "1.2000", "50.00", "%", "0.01"]
    assert rows[1][:4] == ["1.50", "1.5500", "50.00", "%"]
    assert any("⠈" in line or "⠑" in line or "⣀" in line for line in lines[-5:])


@pytest.mark.parametrize("width", [20, 39, 50, 79, 110, 250])
@pytest.mark.parametrize("height", [3, 9, 15, 23, 60])
@pytest.mark.parametrize("unicode", [True, False])
def test_a_frame_never_leaves_its_window(width: int, height: int, unicode: bool) -> None:
    board = board_in_training()
    board.title = "データ " * 40
    lines = board.frame(width, height, 21.0, unicode=unicode)
    from rich.cells import cell_len

    assert len(lines) <= height
    assert max(cell_len(line) for line in text(lines)) <= width


def test_more_epochs_than_rows_keep_the_newest_and_mark_the_best() -> None:
    board = board_in_training()
    for number in range(2, 60):
        board.take(epoch(number, val=0.9 if number == 58 else 0.3), 20.0)
    lines = text(board.frame(79, 23, 30.0))
    rows = [line for line in lines if "812 MB" in line]
    assert rows[-1].split()[0] == "59" and rows[-2].endswith("◂") and not rows[-1].endswith("◂")
    assert len(lines) <= 23


def test_decoding_shows_a_bar_with_what_is_done() -> None:
    board = Board("flowers", 0.0)
    board.take(Phase("data"), 0.0)
    for i in range(11):
        board.take(Progress("decode", 100 * i, 2000, "images"), float(i))
    bar = text(board.frame(79, 23, 10.0))[-1]
    assert bar.startswith("decode ━") and bar.endswith("50 %  1,000 of 2,000 images  10 s left")


def test_the_import_counts_from_the_start_of_the_process() -> None:
    board = Board("digits", 10.0)
    board.take(Phase("import"), 10.5)
    board.take(Phase("data"), 12.0)
    assert "import 2.0 s" in "\n".join(text(board.frame(79, 23, 13.0)))


def test_a_time_limit_bounds_bar_and_time_left() -> None:
    board = board_in_training(50)
    board.limit = 10.0
    shown = "\n".join(text(board.frame(79, 23, 9.0)))
    assert "50 %  step 50 of 200  5.0 s left" in shown


def test_the_time_left_reckons_with_smaller_pictures_at_first() -> None:
    board = Board("cifar10", 0.0)
    board.take(Phase("train"), 0.0)
    board.take(dataclasses.replace(started(), light_steps=120, light_cost=0.4), 0.0)
    for at in range(10, 61, 10):
        board.take(step(at), at / 10)
    # 60 of 200 steps in 6 s: 24 of 128 steps' worth, so 26 s and not 14 are left
    assert board.seconds_left(6.0) == pytest.approx(26.0)


def test_an_ended_board_shows_no_bar_and_no_pending_phase() -> None:
    board = board_in_training()
    board.end(30.0)
    shown = "\n".join(text(board.frame(79, 23, 99.0)))
    assert "━" not in shown and "evaluate" not in shown and "30 s" in shown


def test_control_characters_in_a_title_do_not_reach_the_terminal() -> None:
    board = Board("x\x1b[2Jy", 0.0)
    assert "\x1b" not in text(board.frame(79, 23, 1.0))[0]


# ---- a log ---------------------------------------------------------------------------------------------------


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def logged(events: list[tuple[float, Any]], encoding: str = "utf-8") -> list[str]:
    stream, time_ = io.TextIOWrapper(io.BytesIO(), encoding), Time()
    with live.Log(Board("cifar10 · quick", 0.0), stream, now=time_) as log:
        for at, event in events:
            time_.now = at
            log.take(event)
    stream.seek(0)
    return stream.read().splitlines()


def test_a_log_has_a_line_an_epoch_and_one_every_ten_seconds_between() -> None:
    events: list[tuple[float, Any]] = [(0, Phase("import")), (1, Phase("data")), (2, Phase("train")), (2, started())]
    events += [(2 + at / 4, step(at)) for at in range(1, 100)]
    events += [(27, epoch(1)), (27, Checkpointed(100, "epoch")), (28, Notice("Out of memory: a smaller batch."))]
    lines = logged(events)
    assert [line.split("  ")[-1].strip() for line in lines[:4]] == ["cifar10 · quick", "import …", "data …", "train …"]
    assert sum(" step " in line for line in lines) == 2
    assert sum("epoch 1 done" in line and "val accuracy  50.00 %" in line for line in lines) == 1
    assert sum("note: Out of memory" in line for line in lines) == 1
    assert not any("\x1b" in line for line in lines)


def test_a_log_tells_a_stage_while_it_lasts_and_once_at_its_end() -> None:
    events: list[tuple[float, Any]] = [(0, Phase("import")), (0, Phase("data"))]
    events += [(i, Progress("decode", i, 24, "images")) for i in range(25)] + [
        (25, Progress("decode", 24, 24, "images"))
    ]
    lines = [line for line in logged(events) if "decode" in line]
    assert [line.split("decode: ")[1] for line in lines] == ["10 of 24 images", "20 of 24 images", "24 of 24 images"]


def test_a_refused_call_leaves_no_line_in_the_log() -> None:
    assert logged([(0, Phase("import"))]) == []


def test_a_log_that_is_not_unicode_gets_plain_signs() -> None:
    lines = logged([(0, Phase("import")), (1, Phase("data"))], "ascii")
    assert lines[0].endswith("cifar10 - quick") and lines[1].endswith("import ~")


# ---- a terminal ------------------------------------------------------------------------------------------------


class Tty(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "CI": "true"}, False),
        ({"TERM": "xterm", "CI": "false"}, True),
    ],
)
def test_where_the_board_is_drawn(environ: dict[str, str], expected: bool) -> None:
    assert live.live_terminal(Tty(), environ) is (expected and os.name != "nt") or os.name == "nt"
    assert live.live_terminal(io.StringIO(), environ) is False


def painter(monkeypatch: pytest.MonkeyPatch, columns: int = 80, rows: int = 24) -> tuple[live.Painter, Tty]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    stream = Tty()
    return live.Painter(stream), stream


def test_frames_replace_each_other_and_lines_above_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    paint, stream = painter(monkeypatch)
    paint.paint([[("one", "bold")], [("a longer line", "")], [("three", "")]])
    paint.above([("said", "yellow")])
    paint.paint([[("two", "")], [("short", "")]])
    screen = Screen(80, 24)
    screen.write(stream.getvalue())
    assert screen.all() == ["said", "two", "short", ""]
    assert screen.cursor and "?25" not in stream.getvalue()


def test_a_narrowed_terminal_is_cleared_of_the_broken_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    paint, stream = painter(monkeypatch)
    paint.paint([[("x" * 70, "")], [("y" * 70, "")]])
    stream.truncate(0)
    monkeypatch.setenv("COLUMNS", "40")
    paint.paint([[("z", "")]])
    screen = Screen(40, 24)
    screen.write("kept\r\n" + "x" * 40 + "\r\n" + "x" * 30 + "\r\n" + "y" * 40 + "\r\n" + "y" * 30 + "\r\n")
    screen.write(stream.getvalue().lstrip("\0"))
    assert screen.all() == ["kept", "z", ""]


def test_a_frame_as_high_as_the_window_does_not_scroll(monkeypatch: pytest.MonkeyPatch) -> None:
    paint, stream = painter(monkeypatch, rows=10)
    for i in range(5):
        paint.paint([[(f"{i} {row}", "")] for row in range(9)])
    screen = Screen(80, 10)
    screen.write(stream.getvalue())
    assert screen.above == [] and screen.all()[:9] == [f"4 {row}" for row in range(9)]


def test_what_others_write_to_standard_error_stands_above_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    with live.Terminal(Board("digits", time.monotonic()), stream) as shown:
        shown.take(Phase("import"))
        time.sleep(0.3)
        print("a warning", file=sys.stderr)
        shown.take(Notice("The batch was halved."))
        print("no line's end", end="", file=sys.stderr)
    assert sys.stderr is stream
    screen = Screen(80, 24)
    screen.write(stream.getvalue())
    lines = screen.all()
    assert lines[:3] == ["a warning", "note: The batch was halved.", "no line's end"]
    assert sum(line.startswith("digits") for line in lines) == 1
    assert not any(t.name == "tenfold-display" for t in threading.enumerate())


def test_a_refused_call_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Tty()
    with pytest.raises(ValueError, match="refused"), live.Terminal(Board("digits", 0.0), stream) as shown:
        shown.take(Phase("import"))
        raise ValueError("refused")
    assert stream.getvalue() == ""


def test_a_terminal_that_goes_away_does_not_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Tty):
        def write(self, s: str) -> int:
            raise BrokenPipeError

    with live.Terminal(Board("digits", 0.0), Gone()) as shown:
        shown.take(Phase("import"))
        time.sleep(0.4)
        shown.take(Phase("data"))
    assert shown.board.phase is None and set(shown.board.phases) == {"import", "data"}


def test_drawing_takes_less_than_a_hundredth_of_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    paint, _ = painter(monkeypatch)
    board = board_in_training()
    for at in range(150, 20_000):
        board.take(step(at), 30.0 + at / 4)
    begun = time.thread_time()
    for i in range(50):
        paint.paint(board.frame(79, 23, 6000.0 + i))
    frame_seconds = (time.thread_time() - begun) / 50
    # The interval grows with the cost, so the share is kept whatever a frame takes; a frame must still be cheap.
    assert frame_seconds < 0.02
    assert frame_seconds / max(live.REDRAW_SECONDS, frame_seconds / live.REDRAW_SHARE) <= 0.0101


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_killed_process_leaves_the_cursor_visible(tmp_path: Path) -> None:
    import pty

    script = tmp_path / "shown.py"
    script.write_text(
        "import os, signal, time\n"
        "from tenfold.cli.live import display\n"
        "from tenfold.clock import Phase\n"
        "with display('digits') as listen:\n"
        "    listen(Phase('import'))\n"
        "    time.sleep(0.6)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ours, theirs = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")}
    subprocess.run([sys.executable, script], stderr=theirs, env={**environ, "TERM": "xterm"}, check=False)
    os.close(theirs)
    written = os.read(ours, 1 << 16).decode()
    os.close(ours)
    screen = Screen(80, 24)
    screen.write(written)
    assert "digits" in screen.all()[0] and screen.cursor and "?25" not in written
