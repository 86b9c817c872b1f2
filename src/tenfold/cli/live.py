"""Live progress of a training run on standard error: a board redrawn in place, or plain lines in a log.

In a terminal the board is drawn by a thread, so that the clock goes on while a framework is imported and
training never waits for a drawing. The cursor stays visible throughout and every frame leaves it below the
board: whatever ends the process, a kill included, leaves a terminal that can be typed into.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.style import Style

from tenfold import words
from tenfold.cli import render
from tenfold.cli.board import Board, describe
from tenfold.cli.curve import Line
from tenfold.cli.pace import clock
from tenfold.data.progress import Progress
from tenfold.engines.base import Checkpointed, EpochEnd, Notice, Started, Step
from tenfold.hardware import process_started

REDRAW_SECONDS = 0.125  # between two frames, at the least
REDRAW_SHARE = 0.01  # of one core's time that drawing may take
FIRST_SECONDS = 0.2  # before the first frame: a call that is refused at once shows its error alone
TICK_SECONDS = 1.0  # between two frames where nothing happens but time
LOG_SECONDS = 10.0  # between two lines of a log within an epoch

Listener = Callable[[Any], None]


@contextmanager
def display(title: str, limit: float | None = None, stream: TextIO | None = None) -> Iterator[Listener]:
    """Show a run's events while the block runs: give the listener to ``train(listen=...)``.

    ``limit`` is the seconds that training may take, where there is such a limit.
    """
    stream = stream or sys.stderr
    board = Board(title, _origin(), limit)
    shown: Terminal | Log = Terminal(board, stream) if live_terminal(stream) else Log(board, stream)
    with shown:
        yield shown.take


def live_terminal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a board can be redrawn in ``stream``; NO_COLOR, CI and TERM=dumb ask for plain lines."""
    if not stream.isatty() or environ.get("TERM", "") in ("dumb", "unknown"):
        return False
    if environ.get("NO_COLOR") or environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    return os.name != "nt" or bool(environ.get("WT_SESSION") or environ.get("TERM"))


def _origin() -> float:
    """When the process was started, on the monotonic clock."""
    return time.monotonic() - max(time.time() - process_started(), 0.0)


# ---- a log -------------------------------------------------------------------------------------------------


class Log:
    """Plain lines, each with the seconds since the process was started."""

    def __init__(self, board: Board, stream: TextIO, *, now: Callable[[], float] = time.monotonic) -> None:
        self.board, self.stream, self.now = board, stream, now
        self.last = -math.inf
        self.stage_done = ""  # the stage whose end has been told
        self.held: list[str] | None = []  # lines kept until the call has been accepted: a refusal stands alone

    def __enter__(self) -> Log:
        self.write(self.board.title)
        return self

    def __exit__(self, *_: object) -> None:
        self.board.end(self.now())
        if self.held is None:
            print(file=self.stream, flush=True)

    def take(self, event: Any) -> None:
        now = self.now()
        accepted = bool(self.board.phases)
        self.board.take(event, now)
        if accepted:
            self._release()
        if isinstance(event, Notice):
            self.write(f"note: {event.message}")
        elif isinstance(event, Started):
            self.write(", ".join([f"{event.steps:,} steps, {event.steps_per_epoch:,} an epoch", *describe(event)]))
            self.last = now
        elif isinstance(event, EpochEnd):
            self.write(self._epoch_line(event))
            self.last = now
        elif isinstance(event, Step):
            if now - self.last >= LOG_SECONDS:
                self.last = now
                self.write(self._step_line(event, now))
        elif isinstance(event, Progress):
            self._progress(event, now)
        elif not isinstance(event, Checkpointed):
            self.write(f"{event.name} …")
            self.last = now

    def write(self, text: str) -> None:
        text = render.printable(text)
        text = text if _utf8(self.stream) else _ascii(text)
        line = f"{clock(self.now() - self.board.started):>8}  {text}"
        if self.held is None:
            print(line, file=self.stream, flush=True)
        else:
            self.held.append(line)

    def _release(self) -> None:
        for line in self.held or ():
            print(line, file=self.stream, flush=True)
        self.held = None

    def _epoch_line(self, e: EpochEnd) -> str:
        begin = self.board.begin
        digits = len(str(math.ceil(begin.steps / begin.steps_per_epoch))) if begin else 1
        parts = [f"epoch {e.epoch:>{digits}} done", f"loss {e.loss:.4f}", f"accuracy {100 * e.accuracy:6.2f} %"]
        if e.val_loss is not None:
            parts.append(f"val loss {e.val_loss:.4f}")
        if e.val_accuracy is not None:
            parts.append(f"val accuracy {100 * e.val_accuracy:6.2f} %")
        parts += [words.rate(e.images_per_second), words.size(e.memory_bytes), f"{clock(e.seconds)} of training"]
        return "  ".join(parts)

    def _step_line(self, s: Step, now: float) -> str:
        parts = [
            f"step {s.step:,}" + (f"/{self.board.begin.steps:,}" if self.board.begin else ""),
            f"epoch {s.epoch:.2f}",
            f"loss {s.loss:.4f}",
            f"accuracy {100 * s.accuracy:.2f} %",
            f"rate {s.lr:.3g}",
            words.rate(s.images_per_second),
            words.size(s.memory_bytes),
        ]
        left = self.board.seconds_left(now)
        return "  ".join(parts if left is None else [*parts, f"{clock(left)} left"])

    def _progress(self, p: Progress, now: float) -> None:
        ended = p.total > 0 and p.done >= p.total
        if not ended and now - self.last < LOG_SECONDS:
            return
        if ended and self.stage_done == p.stage:
            return
        self.stage_done = p.stage if ended else ""
        self.last = now
        total = f" of {render.amount(p.total, p.unit)}" if p.total else ""
        self.write(f"{p.stage}: {render.amount(p.done, p.unit)}{total} {render.unit_word(p.unit)}".rstrip())


def _utf8(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") in ("utf8", "utf_8")


def _ascii(text: str) -> str:
    """``text`` for a stream that can't show all characters; as many as there were."""
    return text.translate(str.maketrans("·×–…", "-x-~")).encode("ascii", "replace").decode()


# ---- a terminal --------------------------------------------------------------------------------------------


class Terminal:
    """The board, redrawn in place. What else is written to standard error appears above it."""

    def __init__(self, board: Board, stream: TextIO) -> None:
        self.board = board
        self.painter = Painter(stream)
        self.lock = threading.RLock()  # a signal handler may write a line while its thread holds it
        self.changed = threading.Event()
        self.ended = threading.Event()
        self.above = _Above(self, stream)
        self.shown = False  # whether a frame has been drawn
        self.sound = True  # False once a frame could not be drawn: training goes on, drawing does not
        self.thread = threading.Thread(target=self._redraw, name="tenfold-display", daemon=True)

    def __enter__(self) -> Terminal:
        if sys.stderr is self.painter.stream:
            sys.stderr = self.above
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.ended.set()
        self.changed.set()
        self.thread.join()
        if sys.stderr is self.above:
            sys.stderr = self.painter.stream
        self.above.finish()
        self.board.end(time.monotonic())
        if self.sound and (self.shown or kind is None) and self._paint():
            print(file=self.painter.stream, flush=True)

    def take(self, event: Any) -> None:
        with self.lock:
            self.board.take(event, time.monotonic())
        if isinstance(event, Notice):
            self.say(f"note: {render.printable(event.message)}", "yellow")
        self.changed.set()

    def say(self, text: str, style: str = "") -> None:
        """Lines that stay, above the board."""
        with self.lock:
            self.painter.above([(line, style) for line in text.split("\n")])
        self.changed.set()

    def _redraw(self) -> None:
        self.ended.wait(FIRST_SECONDS)
        while not self.ended.is_set():
            before = time.thread_time()
            self.sound, self.shown = False, True
            if not self._paint():
                return
            self.sound = True
            cost = time.thread_time() - before
            if self.ended.wait(max(REDRAW_SECONDS, cost / REDRAW_SHARE)):
                return
            self.changed.wait(TICK_SECONDS)
            self.changed.clear()

    def _paint(self) -> bool:
        """False when the terminal has gone: the run goes on without a display."""
        try:
            with self.lock:
                width, height = self.painter.size()
                frame = self.board.frame(width - 1, height - 1, time.monotonic(), unicode=self.painter.unicode)
                self.painter.paint(frame)
        except (OSError, ValueError):
            return False
        return True


class Painter:
    """Lines drawn over those of the frame before, without flicker; the cursor rests below the last line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.unicode = _utf8(stream)
        self.colors = _color_system()
        self.widths: list[int] = []  # cells of each line that now stands on the screen
        self.columns = 0
        self.waiting: list[str] = []  # lines to be put above the next frame
        self.codes: dict[str, tuple[str, str]] = {}

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal now."""
        try:
            columns, rows = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError, io.UnsupportedOperation):
            columns, rows = shutil.get_terminal_size()
        return max(columns, 20) if columns else 80, max(rows, 4) if rows else 24

    def above(self, lines: list[tuple[str, str]]) -> None:
        self.waiting += [self.styled([line]) for line in lines]

    def paint(self, frame: list[Line]) -> None:
        columns, rows = self.size()
        parts = [
            "\x1b[?2026h",
            self._back(columns, rows),
        ]  # terminals that know this mode show the frame at once
        for line in self.waiting:
            parts += [line, "\x1b[K\r\n"]
        for spans in frame:
            parts += [self.styled(spans), "\x1b[K\r\n"]
        parts += ["\x1b[J", "\x1b[?2026l"]
        self.waiting = []
        self.widths = [sum(cell_len(text) for text, _ in line) for line in frame]
        self.columns = columns
        self.stream.write("".join(parts))
        self.stream.flush()

    def _back(self, columns: int, rows: int) -> str:
        """To the first line of the frame on the screen.

        A terminal made narrower has broken long lines; they are counted as they now stand, and cleared.
        """
        if columns < self.columns:
            up = sum(max(1, math.ceil(w / columns)) for w in self.widths)
            clear = "\x1b[J"
        else:
            up, clear = len(self.widths), ""
        up = min(up, rows - 1)
        return "\r" + (f"\x1b[{up}A" if up else "") + clear

    def styled(self, line: Line) -> str:
        parts = []
        for text, style in line:
            before, after = self._codes(style)
            parts.append(f"{before}{text if self.unicode else _ascii(text)}{after}")
        return "".join(parts)

    def _codes(self, style: str) -> tuple[str, str]:
        if style not in self.codes:
            drawn = Style.parse(style).render("\0", color_system=self.colors) if style else "\0"
            before, _, after = drawn.partition("\0")
            self.codes[style] = before, after
        return self.codes[style]


def _color_system() -> ColorSystem | None:
    systems = {
        "standard": ColorSystem.STANDARD,
        "256": ColorSystem.EIGHT_BIT,
        "truecolor": ColorSystem.TRUECOLOR,
    }
    return systems.get(render.console().color_system or "")


class _Above(io.TextIOBase):
    """Stands in for standard error while the board is shown: whole lines go above it."""

    def __init__(self, terminal: Terminal, stream: TextIO) -> None:
        self.terminal, self.stream, self.rest = terminal, stream, ""

    def write(self, text: str) -> int:
        if not self.terminal.thread.is_alive():
            return self.stream.write(text)
        *lines, self.rest = (self.rest + text).split("\n")
        if lines:
            self.terminal.say("\n".join(lines))
        return len(text)

    def finish(self) -> None:
        if self.rest:
            self.terminal.say(self.rest)
            self.rest = ""

    def flush(self) -> None:
        with contextlib.suppress(ValueError):
            self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding
