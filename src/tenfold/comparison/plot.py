"""A comparison's picture: test accuracy against whole seconds, a dot a run; below it, where the seconds went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator, NullLocator, PercentFormatter

from tenfold import words
from tenfold.clock import PHASES
from tenfold.comparison.records import Comparison, Row, Trial
from tenfold.evaluation import plots
from tenfold.evaluation.svg import shorten, ticks

# Okabe and Ito's, told apart by all; the marks differ too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#b0811a", "#5c6670", "#000000")
MARKS = "osD^vPX*"
PARTS = {
    "import": "#a0a8b0",
    "data": "#56b4e9",
    "setup": "#cc79a7",
    "train": "#0072b2",
    "evaluate": "#009e73",
    "save": "#e69f00",
    "end": "#d5d9de",
}
LOGARITHMIC = 8  # from this ratio of the longest run to the shortest on
TICKS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400, 172800, 604800)
LEFT, RIGHT, WIDTH = 1.7, 0.75, 5.2  # inches


def draw(result: Comparison) -> dict[str, bytes]:
    """The picture as ``svg`` and ``png``."""
    rows = [row for row in result.rows if row.n]
    runs = {str(row): [t for t in result.trials if _of(t, row)] for row in rows}
    return plots.both(lambda: _figure(result, rows, runs), "compare")


def _of(trial: Trial, row: Row) -> bool:
    return trial.status == "done" and (trial.engine, trial.device) == (row.engine, row.device)


def _figure(result: Comparison, rows: Sequence[Row], runs: Mapping[str, Sequence[Trial]]) -> Figure:
    dots = any(t.accuracy is not None for trials in runs.values() for t in trials)
    bars = 0.3 * len(rows) + 0.2
    below, between = 0.7, 0.95
    above = (2.8 + between) if dots else 0.0
    height = below + bars + above + 0.75
    width = LEFT + WIDTH + RIGHT
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)

    def axes(bottom: float, tall: float) -> Axes:
        return figure.add_axes((LEFT / width, bottom / height, WIDTH / width, tall / height))

    _bars(axes(below, bars), rows, runs)
    if dots:
        _dots(axes(below + bars + between, 2.8), rows, runs)
    title = f"{shorten(_name(result.data), 40)}, recipe {result.recipe.get('name', '')}"
    figure.text(0.15 / width, 1 - 0.1 / height, title, va="top", fontweight="bold", fontsize=11)
    figure.text(0.15 / width, 1 - 0.33 / height, _where(result, rows), va="top", color=plots.SOFT, fontsize=8)
    return figure


def _name(source: str) -> str:
    return source.replace("\\", "/").rstrip("/").rpartition("/")[2] or source


def _where(result: Comparison, rows: Sequence[Row]) -> str:
    here = f"{words.count(int(result.hardware['cores']), 'core')} of {result.hardware['cpu']}"
    cards = {row.device_label: None for row in rows if row.device_label and row.ran_on != "cpu"}
    return shorten("; ".join([here, *cards]), 100)


def _dots(axis: Axes, rows: Sequence[Row], runs: Mapping[str, Sequence[Trial]]) -> None:
    for at, row in enumerate(rows):
        shown = [(t.seconds, t.accuracy) for t in runs[str(row)] if t.accuracy is not None]
        axis.plot(
            [x for x, _ in shown],
            [y for _, y in shown],
            MARKS[at % len(MARKS)],
            color=COLORS[at % len(COLORS)],
            markersize=6.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label=str(row),
            clip_on=False,
            zorder=3,
        )
    every = [t.accuracy for trials in runs.values() for t in trials if t.accuracy is not None]
    room = max(0.005, 0.2 * (max(every) - min(every)))
    axis.set_ylim(max(0.0, min(every) - room), min(1.0, max(every) + room))
    digits = 1 if max(every) - min(every) + 2 * room < 0.08 else 0
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=digits, symbol=" %"))
    _seconds_axis(axis, [t.seconds for trials in runs.values() for t in trials])
    axis.set_title("Test accuracy, a dot a run", x=0)
    axis.set_xlabel("whole process, from its start to its end")
    if len(rows) > 1:
        axis.legend(fontsize=8, loc="best")


def _seconds_axis(axis: Axes, seconds: Sequence[float]) -> None:
    """From 0 on where the runs are of one size, else logarithmic."""
    low, high = min(seconds), max(seconds)
    if high / low < LOGARITHMIC:
        axis.set_xlim(0, high * 1.12)
        _in_one_unit(axis, high)
        return
    axis.set_xscale("log")
    axis.set_xlim(low / 1.5, high * 1.5)
    axis.xaxis.set_major_locator(FixedLocator([t for t in TICKS if low / 1.5 <= t <= high * 1.5]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_tick))


def _tick(seconds: float, _: Any = None) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def _in_one_unit(axis: Axes, longest: float) -> None:
    """Round numbers of seconds, minutes or hours along a linear axis from 0."""
    unit, name = (1, "s") if longest < 120 else (60, "min") if longest < 7200 else (3600, "h")
    step = ticks(0, longest / unit)[1] * unit
    axis.xaxis.set_major_locator(MultipleLocator(step))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g} {name}"))


def _bars(axis: Axes, rows: Sequence[Row], runs: Mapping[str, Sequence[Trial]]) -> None:
    """The parts of each contestant's middle run, on one linear scale: lengths can be compared."""
    longest = 0.0
    for at, row in enumerate(rows):
        trial = middle(runs[str(row)])
        start = 0.0
        for name, seconds in parts(trial).items():
            axis.barh(at, seconds, 0.62, left=start, color=PARTS[name], label=name if at == 0 else None)
            start += seconds
        longest = max(longest, start)
        axis.annotate(
            words.seconds(trial.seconds),
            (start, at),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(range(len(rows)), [str(row) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(0, longest)
    _in_one_unit(axis, longest)
    axis.grid(axis="y", visible=False)
    several = any(row.n > 1 for row in rows)
    axis.set_title(f"Where the seconds went{', each middle run' if several else ''}", x=0)
    handles, names = axis.get_legend_handles_labels()
    figure = axis.get_figure()
    assert figure is not None
    figure.legend(
        handles, names, ncols=len(PARTS), fontsize=8, loc="lower left", handlelength=1, columnspacing=1.2,
        bbox_to_anchor=(0.05 / (LEFT + WIDTH + RIGHT), 0.0),
    )  # fmt: skip


def middle(trials: Sequence[Trial]) -> Trial:
    """The run of the median whole seconds; of two in the middle the shorter."""
    return sorted(trials, key=lambda t: t.seconds)[(len(trials) - 1) // 2]


def parts(trial: Trial) -> dict[str, float]:
    """Seconds by phase, and ``end``: what the process took besides, mostly to take itself apart."""
    found = {name: float(trial.parts.get(name, 0.0)) for name in PHASES}
    return {**found, "end": max(0.0, trial.seconds - sum(found.values()))}
