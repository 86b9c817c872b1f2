"""How things look: the consoles, JSON, errors and progress.

Rich is imported when something is first drawn with it and not before: ``predict`` answers without it. Markup
is off on both consoles, because paths and class names may hold brackets; style with ``style=`` or ``Text``.
"""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tenfold import words
from tenfold.errors import TenfoldError

if TYPE_CHECKING:
    from rich.console import Console

    from tenfold.data.progress import Progress

LOG_SECONDS = 5.0  # a stage under way writes a line into a log at most this often
QUICK_SECONDS = 1.0  # a stage done sooner writes none
LOG_WIDTH = 110  # columns where no terminal tells

_json_printed = False


# ---- streams -----------------------------------------------------------------------------------------------


def prepare_streams() -> None:
    """Let no character end the program: a file's name may not be text, and a terminal may lack a sign.

    Standard error escapes such characters by itself; standard output gives a file's name back where it can.
    """
    global _json_printed
    _json_printed = False
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        reconfigure(errors="surrogateescape" if utf8 and os.name == "posix" else "backslashreplace")


def console() -> Console:
    """Standard error: progress, notices, everything that is not the answer itself."""
    return _console(sys.stderr)


def output() -> Console:
    """Standard output, for the answer in words where ``--json`` was not given."""
    return _console(sys.stdout)


@functools.lru_cache(maxsize=4)
def _console(stream: Any) -> Console:
    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in os.environ else LOG_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show(*parts: Any) -> None:
    """Print Rich's tables and texts on standard output; into a file or pipe without the blanks that pad lines."""
    target = output()
    if target.is_terminal:
        target.print(*parts, sep="\n")
        return
    with target.capture() as drawn:
        target.print(*parts, sep="\n")
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def print_json(value: Mapping[str, Any]) -> None:
    """The one JSON object of ``--json``, on standard output; NaN and infinities become null."""
    global _json_printed
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(plain(value), indent=2, allow_nan=False)
    _json_printed = True
    print(text, flush=True)


def plain(value: Any) -> Any:
    """``value`` in JSON's own types: NumPy's scalars and arrays, paths and tuples are turned into them."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def fail(error: Exception, as_json: bool = False) -> int:
    """Show an error on standard error, with ``--json`` also as an object on standard output.

    Gives the exit code. An error that is not tenfold's own is a bug: its traceback has been shown before, and
    only its JSON is printed here.
    """
    message, hint, code = str(error), None, 1
    if isinstance(error, TenfoldError):
        message, hint, code = error.message, error.hint, error.exit_code
        red = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        label = "\x1b[1;31mError:\x1b[0m" if red else "Error:"
        print(f"{label} {printable(message)}", file=sys.stderr)
        if hint:
            print(printable(hint), file=sys.stderr)
    if as_json and not _json_printed:
        kind = type(error).__name__
        print_json({"error": {"kind": kind, "message": message, "hint": hint, "exit_code": code}})
    return code


def printable(text: str) -> str:
    """``text`` with control characters escaped, except line breaks: a name must not steer the terminal."""
    return "".join(c if c == "\n" or (c.isprintable() or ord(c) > 0x9F) else repr(c)[1:-1] for c in text)


# ---- progress ----------------------------------------------------------------------------------------------


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """A callable that takes ``Progress`` events: bars in a terminal, now and then a line in a log."""
    shown = _Bars() if sys.stderr.isatty() else _Lines()
    try:
        yield shown.take
    finally:
        shown.close()


class _Lines:
    """Plain lines: a stage's way at most every LOG_SECONDS, and its end unless it was quick."""

    def __init__(self) -> None:
        self.stage = ""
        self.started = self.last = 0.0
        self.ended = False

    def take(self, event: Progress) -> None:
        now = time.monotonic()
        if event.stage != self.stage:
            self.stage, self.started, self.last, self.ended = event.stage, now, now, False
        end = event.total > 0 and event.done >= event.total
        if self.ended or not (end or now - self.last >= LOG_SECONDS):
            return
        self.last, self.ended = now, end
        if end and now - self.started < QUICK_SECONDS:
            return
        total = f"/{amount(event.total, event.unit)}" if event.total else ""
        took = f" in {words.seconds(now - self.started)}" if end else ""
        line = f"{event.stage}: {amount(event.done, event.unit)}{total} {unit_word(event.unit)}{took}"
        print(line.replace("  ", " ").rstrip(), file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class _Bars:
    """A bar for each stage, gone when all is done."""

    def __init__(self) -> None:
        self.bars: Any = None
        self.tasks: dict[str, Any] = {}
        self.drawn = 0.0

    def take(self, event: Progress) -> None:
        if self.bars is None:
            self._begin()
        if event.stage not in self.tasks:
            self.tasks[event.stage] = self.bars.add_task(event.stage, total=event.total or None, text="")
        total = f" / {amount(event.total, event.unit)}" if event.total else ""
        self.bars.update(
            self.tasks[event.stage],
            completed=event.done,
            total=event.total or None,
            text=f"{amount(event.done, event.unit)}{total} {unit_word(event.unit)}",
        )

    def _begin(self) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.bars = Bars(
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[text]}", markup=False),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console(),
            transient=True,
            refresh_per_second=8,
        )
        self.bars.start()

    def close(self) -> None:
        if self.bars is not None:
            self.bars.stop()


def amount(value: float, unit: str) -> str:
    return words.size(value) if unit in ("byte", "bytes", "B") else f"{value:,.0f}"


def unit_word(unit: str) -> str:
    return "" if unit in ("byte", "bytes", "B") else unit
