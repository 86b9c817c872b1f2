"""The picture of one benchmark, or of several machines side by side: images/s by batch size, latency, first answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tenfold import words
from tenfold.benchmarking.best import milliseconds
from tenfold.benchmarking.records import FIRST, LATENCY, Benchmark, Row
from tenfold.comparison.plot import COLORS
from tenfold.evaluation import plots
from tenfold.evaluation.svg import shorten

MARKS = "o^sDvPX*"  # of batch sizes, from the smallest on
LABEL, PANELS, GAP, RIGHT = 1.95, (2.9, 1.9, 1.35), 0.35, 0.3  # inches
LINE, ABOVE, BELOW = 0.27, 0.85, 0.75


@dataclass(frozen=True)
class _Line:
    """A configuration on a machine: its rows, from the smallest batch size on."""

    label: str
    machine: int
    rows: tuple[Row, ...]


def draw(*results: Benchmark, names: Sequence[str] = ()) -> dict[str, bytes]:
    """The picture as ``svg`` and ``png``. ``names``: what each machine is called where there are several."""
    lines = _lines(results)
    return plots.both(lambda: _figure(results, lines, names), "bench")


def _lines(results: Sequence[Benchmark]) -> list[_Line]:
    """In the order of the configurations, and for each of them of the machines."""
    several = len({r.configuration.subject for result in results for r in result.rows if r.n}) > 1 and len(results) == 1
    found: dict[str, list[_Line]] = {}
    for machine, result in enumerate(results):
        for configuration in dict.fromkeys(r.configuration for r in result.rows if r.n):
            label = f"{configuration.subject} {configuration}" if several else str(configuration)
            rows = tuple(r for r in result.rows if r.configuration == configuration and r.n)
            found.setdefault(label, []).append(_Line(label, machine, rows))
    return [line for lines in found.values() for line in lines]


def _figure(results: Sequence[Benchmark], lines: Sequence[_Line], names: Sequence[str]) -> Figure:
    legend = 0.2 * (len(results) - 1)
    bars, above = LINE * len(lines) + 0.1, ABOVE + legend
    width = LABEL + sum(PANELS) + GAP * (len(PANELS) - 1) + RIGHT
    height = above + bars + BELOW
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes, left = [], LABEL
    for panel in PANELS:
        axes.append(figure.add_axes((left / width, BELOW / height, panel / width, bars / height)))
        left += panel + GAP
    kind = results[0].kind
    _speed(axes[0], lines, kind)
    _latency(axes[1], lines, kind)
    _first(axes[2], lines, kind)
    for axis in axes:
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.set_yticks(range(len(lines)), [""] * len(lines))
        axis.grid(axis="y", visible=False)
    labels = [line.label if i == 0 or lines[i - 1].label != line.label else "" for i, line in enumerate(lines)]
    axes[0].set_yticks(range(len(lines)), [shorten(label, 34) for label in labels], fontsize=8)
    subjects = dict.fromkeys(s.name for result in results for s in result.subjects)
    what = "Training" if kind == "training" else "Inference"
    top = 1 - 0.1 / height
    figure.text(
        0.12 / width, top, f"{what}: {shorten(', '.join(subjects), 70)}", va="top", fontweight="bold", fontsize=11
    )
    for at, result in enumerate(results):
        y = 1 - (0.33 + 0.2 * at) / height
        name = f"{names[at]}: " if at < len(names) else ""
        color = COLORS[at % len(COLORS)] if len(results) > 1 else plots.SOFT
        figure.text(0.12 / width, y, shorten(name + result.machine, 120), va="top", color=color, fontsize=8)
    return figure


def _color(line: _Line) -> str:
    return COLORS[line.machine % len(COLORS)]


def _speed(axis: Axes, lines: Sequence[_Line], kind: str) -> None:
    """A mark for each batch size, and from lowest to highest where it was measured several times."""
    sizes = sorted({row.batch_size or 0 for line in lines for row in line.rows})
    drawn: set[int] = set()
    values = []
    for at, line in enumerate(lines):
        for row in line.rows:
            spread, size = row.figures.get("images_per_second"), row.batch_size or 0
            if spread is None:
                continue
            values.append(spread.median)
            axis.plot([spread.min, spread.max], [at, at], color=_color(line), linewidth=1.5, alpha=0.5, zorder=2)
            axis.plot(
                [spread.median],
                [at],
                MARKS[sizes.index(size) % len(MARKS)],
                color=_color(line),
                markersize=6,
                markeredgecolor="white",
                markeredgewidth=0.5,
                label=None if size in drawn else str(size),
                zorder=3,
            )
            drawn.add(size)
    if values:
        _logarithmic(axis, min(values), max(values), lambda v: f"{v:,.0f}" if v < 10_000 else f"{v / 1000:,.0f}k")
    axis.set_title("images/s", x=0)
    axis.set_xlabel("from pixels" if kind == "inference" else "", fontsize=8)
    if len(sizes) > 1:
        handles, names = axis.get_legend_handles_labels()
        order = sorted(range(len(names)), key=lambda i: int(names[i]))
        figure = axis.get_figure()
        assert figure is not None
        legend = figure.legend(
            [handles[i] for i in order], [names[i] for i in order], title="batch of", ncols=len(sizes), fontsize=8,
            title_fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.0), handletextpad=0.1, columnspacing=0.8,
        )  # fmt: skip
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "set_color"):
                handle.set_color(plots.SOFT)


def _latency(axis: Axes, lines: Sequence[_Line], kind: str) -> None:
    """Of the smallest batch: a dot at the median, a line to the 99th percentile."""
    middle, _, high = LATENCY[kind]
    smallest = min(row.batch_size or 0 for line in lines for row in line.rows)
    values = []
    for at, line in enumerate(lines):
        row = next((r for r in line.rows if r.batch_size == smallest), None)
        low, top = (row.median(middle), row.median(high)) if row else (None, None)
        if low is None or top is None:
            continue
        values += [low, top]
        axis.plot([low, top], [at, at], color=_color(line), linewidth=2, alpha=0.6)
        axis.plot([low], [at], "o", color=_color(line), markersize=5)
        axis.plot([top], [at], "|", color=_color(line), markersize=8, markeredgewidth=2)
    if values:
        _logarithmic(
            axis, min(values), max(values), lambda v: milliseconds(v).rstrip("0").rstrip(".") if v < 1 else f"{v:g}"
        )
    what = "of one image" if kind == "inference" and smallest == 1 else f"of {smallest} images"
    axis.set_title("latency" if kind == "inference" else "step", x=0)
    axis.set_xlabel(f"ms {what}: p50 ● to p99 |", fontsize=8)


def _first(axis: Axes, lines: Sequence[_Line], kind: str) -> None:
    longest = 0.0
    for at, line in enumerate(lines):
        seconds = line.rows[-1].median(FIRST[kind])
        if seconds is None:
            continue
        longest = max(longest, seconds)
        axis.barh(at, seconds, 0.55, color=_color(line))
        axis.annotate(words.seconds(seconds), (seconds, at), xytext=(3, 0), textcoords="offset points", va="center",
                      fontsize=7.5)  # fmt: skip
    axis.set_xlim(0, max(longest, 1e-3) * 1.45)
    axis.set_title("first answer" if kind == "inference" else "first step", x=0)
    axis.set_xlabel("s from the process's start", fontsize=8)


def _logarithmic(axis: Axes, low: float, high: float, show: object) -> None:
    """A logarithmic axis with 1, 2 and 5 of each power of ten, as many as have room."""
    low, high = low / 1.4, high * 1.4
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [s * 10.0**e for e in range(-4, 9) for s in steps if low <= s * 10.0**e <= high]
        if len(ticks) <= 5:
            break
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    assert callable(show)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
