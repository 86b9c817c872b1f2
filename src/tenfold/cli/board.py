"""What a training run shows: its state gathered from events, and that state as lines of a given size.

Knows nothing of terminals or of engines: events in, lines out. ``live.py`` puts the lines on a screen or
into a log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len, set_cell_size

from tenfold.cli.curve import Curve, Line, Series, accuracy_bounds, bounds, plot
from tenfold.cli.pace import Pace, clock
from tenfold.cli.render import amount, printable, unit_word
from tenfold.data.progress import Progress
from tenfold.engines.base import Checkpointed, EpochEnd, Notice, Started, Step
from tenfold.words import size

PHASES = ("import", "data", "setup", "train", "evaluate", "save")

MAX_WIDTH = 110
CURVE_ROWS = 5

MINOR, TRAIN, VAL, GOOD, NOW, WARN = "dim", "cyan", "green", "green", "bold", "yellow"


@dataclass
class Board:
    """The state of one run. ``take`` takes an event and the time it came, ``frame`` draws.

    Times are monotonic seconds; ``started`` is when the process was started. ``limit`` is the seconds that training
    may take, where the recipe sets any.
    """

    title: str
    started: float
    limit: float | None = None
    phases: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    begin: Started | None = None
    step: Step | None = None
    epochs: list[EpochEnd] = field(default_factory=list)
    best: EpochEnd | None = None
    progress: Progress | None = None
    trains_since: float = 0.0
    losses: Series = field(default_factory=Series)
    accuracies: Series = field(default_factory=Series)
    val_losses: Series = field(default_factory=Series)
    val_accuracies: Series = field(default_factory=Series)
    ended: float | None = None
    _steps: Pace = field(default_factory=Pace)
    _units: Pace = field(default_factory=Pace)

    # ---- events ------------------------------------------------------------------------------------------

    def take(self, event: Any, now: float) -> None:
        """Take any event of ``tenfold.training.train``; one that shows nothing here is let by."""
        if isinstance(event, Progress):
            self._take_progress(event, now)
        elif isinstance(event, Started):
            self.begin, self.trains_since = event, now
            self._steps.at(now, self._work(event.first_step))
        elif isinstance(event, Step):
            self._take_step(event, now)
        elif isinstance(event, EpochEnd):
            self._take_epoch(event)
        elif not isinstance(event, (Notice, Checkpointed)):
            self._take_phase(event.name, now)

    def end(self, now: float) -> None:
        self._close_phase(now)
        self.ended = now

    def _take_phase(self, name: str, now: float) -> None:
        self._close_phase(now)
        self.phases[name] = (self.started if name == "import" else now, None)  # Python's own start is part of it
        self.progress = None

    def _close_phase(self, now: float) -> None:
        for name, (start, end) in self.phases.items():
            if end is None:
                self.phases[name] = (start, now)

    def _take_progress(self, event: Progress, now: float) -> None:
        if self.progress is None or self.progress.stage != event.stage:
            self._units = Pace()
        self.progress = event
        self._units.at(now, event.done)

    def _take_step(self, event: Step, now: float) -> None:
        self.step = event
        self._steps.at(now, self._work(event.step))
        self.losses.add(event.step, event.loss)
        self.accuracies.add(event.step, event.accuracy)

    def _take_epoch(self, event: EpochEnd) -> None:
        self.epochs.append(event)
        if event.val_loss is not None:
            self.val_losses.add(event.step, event.val_loss)
        if event.val_accuracy is not None:
            self.val_accuracies.add(event.step, event.val_accuracy)
            if self.best is None or event.val_accuracy > (self.best.val_accuracy or 0.0):
                self.best = event

    # ---- what is known now -------------------------------------------------------------------------------

    @property
    def phase(self) -> str | None:
        """The phase under way."""
        return next((name for name, (_, end) in self.phases.items() if end is None), None)

    @property
    def done_steps(self) -> int:
        return max(
            self.step.step if self.step else 0,
            self.epochs[-1].step if self.epochs else 0,
            self.begin.first_step if self.begin else 0,
        )

    def _work(self, steps: int) -> float:
        """What the first ``steps`` cost, in steps on pictures of full size."""
        light = min(self.begin.light_steps, steps) if self.begin else 0
        return steps - light + light * (self.begin.light_cost if self.begin else 1.0)

    def seconds_left(self, now: float) -> float | None:
        """Of training; None before there is a pace."""
        left = self._steps.seconds_left(self._work(self.begin.steps), now) if self.begin else None
        if self.limit is None or self.begin is None:
            return left
        allowed = max(self.limit - (now - self.trains_since), 0.0)
        return allowed if left is None else min(left, allowed)

    # ---- lines -------------------------------------------------------------------------------------------

    def frame(self, width: int, height: int, now: float, *, unicode: bool = True) -> list[Line]:
        """At most ``height`` lines of at most ``width`` cells; without ``unicode`` ASCII alone, no curves."""
        width = min(width, MAX_WIDTH)
        signs = _SIGNS if unicode else _ASCII_SIGNS
        top = self._heading(width, now)
        top += self._phase_lines(width, now, signs)
        if bar := self._bar(width, now, signs):
            top.append(bar)
        if self.begin is None:
            return [_clip(line, width) for line in top[:height]]
        curves = self._curves(width) if unicode and height - len(top) >= CURVE_ROWS + 6 and width >= 40 else []
        room = height - len(top) - 2 - (len(curves) + 1 if curves else 0)
        table = self._table(width, room, signs) if room > 0 else []
        lines = [*top, *([[], *table] if table else []), *([[], *curves] if curves else [])]
        return [_clip(line, width) for line in lines[:height]]

    def _heading(self, width: int, now: float) -> list[Line]:
        clock_text = clock((self.ended or now) - self.started)
        title = printable(self.title)
        room = max(width - cell_len(clock_text) - 2, 0)
        if cell_len(title) > room:
            title = set_cell_size(title, max(room - 1, 0)) + "…"
        lines: list[Line] = [
            [(title, NOW), (" " * (width - cell_len(title) - cell_len(clock_text)), ""), (clock_text, MINOR)]
        ]
        if self.begin:
            told = " · ".join(describe(self.begin))
            lines.append([(told if cell_len(told) <= width else set_cell_size(told, width - 1) + "…", MINOR)])
        lines.append([])
        return lines

    def _phase_lines(self, width: int, now: float, signs: dict[str, str]) -> list[Line]:
        """Each phase with its seconds; broken into several lines where one is too short."""
        parts: list[Line] = []
        for name in PHASES:
            if name in self.phases:
                start, end = self.phases[name]
                running = end is None
                took = clock((now if end is None else end) - start)
                sign = f"{signs['now']} " if running else ""
                parts.append([(f"{sign}{name}", NOW if running else ""), (f" {took}", NOW if running else GOOD)])
            elif self.ended is None:
                parts.append([(name, MINOR)])
        room = (width - sum(map(_cells, parts))) // max(len(parts) - 1, 1)
        gap = " " * min(max(room, 2), 3)
        lines: list[Line] = [[]]
        for part in parts:
            if lines[-1] and _cells(lines[-1]) + len(gap) + _cells(part) > width:
                lines.append([])
            lines[-1] += [(gap, ""), *part] if lines[-1] else part
        return lines

    def _bar(self, width: int, now: float, signs: dict[str, str]) -> Line | None:
        """The way of the phase under way: steps of training, pictures decoded, bytes downloaded."""
        if self.phase == "train" and self.begin:
            left = self.seconds_left(now)
            done, total = self.done_steps, self.begin.steps
            label, text, share = "", f"step {done:,} of {total:,}", done / total
            if self.limit is not None:
                share = max(share, (now - self.trains_since) / self.limit)
        elif self.progress is not None and self.phase is not None and self.progress.total:
            p = self.progress
            done, total, left = p.done, p.total, self._units.seconds_left(p.total, now)
            label, share = f"{p.stage} ", done / total
            text = f"{amount(done, p.unit)} of {amount(total, p.unit)} {unit_word(p.unit)}".rstrip()
        else:
            return None
        share = min(share, 1.0)
        tail = f"  {100 * share:3.0f} %  {text}"
        if left is not None and done < total:
            tail += f"  {clock(left)} left"
        cells = max(width - cell_len(label) - cell_len(tail), 4)
        full = int(share * cells)
        return [
            (label, ""),
            (signs["full"] * full, TRAIN),
            (signs["empty"] * (cells - full), MINOR),
            (tail, ""),
        ]

    def _table(self, width: int, room: int, signs: dict[str, str]) -> list[Line]:
        """The newest epochs, the one under way last; columns without room are left out from the right."""
        rows = [self._epoch_row(e, signs["none"]) for e in self.epochs[-max(room, 1) :]]
        if self.step is not None and (not self.epochs or self.step.step > self.epochs[-1].step) and not self.ended:
            rows.append((_step_cells(self.step, signs["none"]), NOW))
        rows = rows[-max(room - 1, 1) :]
        names = [name for name, _ in _COLUMNS]
        widths = [w for _, w in _COLUMNS]
        shown = len(_COLUMNS)
        while shown > 3 and sum(widths[:shown]) > width:
            shown -= 1
        lines: list[Line] = []
        if room > 1:
            lines.append([("".join(n.rjust(w) for n, w in zip(names[:shown], widths, strict=False)), MINOR)])
        for cells, style in rows:
            lines.append([("".join(c.rjust(w) for c, w in zip(cells[:shown], widths, strict=False)), style)])
            if style == GOOD:
                marked = f" {signs['best']} best"
                lines[-1].append((marked if sum(widths[:shown]) + len(marked) <= width else marked[:2], GOOD))
        return lines

    def _epoch_row(self, e: EpochEnd, none: str) -> tuple[list[str], str]:
        best = self.best is not None and e.epoch == self.best.epoch and len(self.epochs) > 1
        return _epoch_cells(e, none), GOOD if best else ""

    def _curves(self, width: int) -> list[Line]:
        """Loss and accuracy over the run's steps, side by side; accuracy alone where one has room."""
        assert self.begin is not None
        steps = max(self.begin.steps, self.done_steps, 1)
        loss = _scaled(self.losses, steps), _scaled(self.val_losses, steps)
        accuracy = _scaled(self.accuracies, steps), _scaled(self.val_accuracies, steps)
        wide = width >= 66
        columns = (width - 4) // 2 if wide else width
        right = _panel(
            "accuracy",
            accuracy,
            columns,
            accuracy_bounds([y for c in accuracy for _, y in c]),
            _percent_label,
        )
        if not wide:
            return right
        left = _panel("loss", loss, columns, bounds([y for c in loss for _, y in c]), _loss_label)
        return [[*_pad(a, columns), ("    ", ""), *b] for a, b in zip(left, right, strict=True)]


_SIGNS = {"now": "▸", "full": "━", "empty": "─", "best": "◂", "none": "–"}
_ASCII_SIGNS = {"now": ">", "full": "#", "empty": ".", "best": "<", "none": "-"}

_COLUMNS = (
    ("epoch", 7),
    ("loss", 9),
    ("accuracy", 10),
    ("val loss", 10),
    ("val acc", 10),
    ("rate", 11),
    ("images/s", 10),
    ("memory", 9),
    ("time", 9),
)


def _epoch_cells(e: EpochEnd, none: str) -> list[str]:
    return [
        str(e.epoch),
        f"{e.loss:.4f}",
        _percent(e.accuracy),
        none if e.val_loss is None else f"{e.val_loss:.4f}",
        none if e.val_accuracy is None else _percent(e.val_accuracy),
        f"{e.lr:.3g}",
        f"{e.images_per_second:,.0f}",
        size(e.memory_bytes),
        clock(e.seconds),
    ]


def _step_cells(s: Step, none: str) -> list[str]:
    return [
        f"{s.epoch:.2f}",
        f"{s.loss:.4f}",
        _percent(s.accuracy),
        none,
        none,
        f"{s.lr:.3g}",
        f"{s.images_per_second:,.0f}",
        size(s.memory_bytes),
        "",
    ]


def describe(begin: Started) -> list[str]:
    """What trains and where, in a few words each."""
    words = [f"{begin.parameters:,} parameters", begin.device.label or begin.device.name, begin.precision]
    if begin.placement == "stream":
        words.append("data streamed")
    if begin.first_step:
        words.append(f"resumed at step {begin.first_step:,}")
    return words


def _panel(
    name: str,
    curves: tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]],
    columns: int,
    limits: tuple[float, float],
    label: Any,
) -> list[Line]:
    """A curve of training and validation with its name above and its bounds at the left."""
    low, high = limits
    labels = [label(high), label(low)]
    margin = max(map(len, labels)) + 1
    rows = plot([Curve(curves[0], TRAIN), Curve(curves[1], VAL)], columns - margin, CURVE_ROWS, low, high)
    legend: Line = [(" " * margin + name, ""), ("  train", TRAIN)]
    if curves[1]:
        legend.append(("  val", VAL))
    lines = [legend]
    for i, row in enumerate(rows):
        text = labels[0] if i == 0 else labels[1] if i == len(rows) - 1 else ""
        lines.append([(text.rjust(margin - 1) + " ", MINOR), *row])
    return lines


def _scaled(series: Series, steps: int) -> list[tuple[float, float]]:
    return [(x / steps, y) for x, y in series.drawn()]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _percent_label(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def _loss_label(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _cells(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)


def _pad(line: Line, columns: int) -> Line:
    return [*line, (" " * max(columns - _cells(line), 0), "")]


def _clip(line: Line, width: int) -> Line:
    """The line cut to ``width`` cells."""
    clipped: Line = []
    for text, style in line:
        cells = cell_len(text)
        if cells > width:
            text, cells = set_cell_size(text, width), width
        if text:
            clipped.append((text, style))
        width -= cells
    return clipped
