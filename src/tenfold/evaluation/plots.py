"""The report's plots as PNG files, for papers, slides and mails. Matplotlib is imported here, in comparison/plot.py,
benchmarking/plot.py, data/sheet.py and notebook/pictures.py, and nowhere else.

Figures are drawn with the Agg canvas directly, without pyplot: no window system, no global state, and half the
import time. Colors are Okabe and Ito's, told apart by all.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tenfold.evaluation.content import ReportContent, Sample, epochs, moments, samples, worst_mistakes
from tenfold.evaluation.metrics import Evaluation
from tenfold.evaluation.svg import NAMED, NUMBERED, heat, shorten

DPI = 140
TILE = 96  # pixels of a picture's longer side on a sheet, about
HEAD, EDGE = 52, 20  # pixels above a sheet's pictures, and at their left
BLUE, ORANGE, GREY, INK, SOFT = "#0072b2", "#d55e00", "#a0a8b0", "#1d2126", "#5c6670"

_WIDER = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Arial Unicode MS",
)

_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e5e8",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x$
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.dpi": DPI,
}


def draw(content: ReportContent) -> dict[str, bytes]:
    """PNG files by name: ``curves``, ``confusion``, ``reliability``, ``classes``, ``mistakes``, ``samples``; those
    the content has something for."""
    figures: dict[str, Figure] = {}
    with style():
        if rows := epochs(content):
            figures["curves"] = curves(rows, moments(content))
        if content.evaluation:
            figures["confusion"] = confusion(content.evaluation)
            figures["reliability"] = reliability(content.evaluation)
            figures["classes"] = classes(content.evaluation)
        if found := worst_mistakes(content):
            captions = [f"{shorten(m.predicted, 11)} {100 * m.sure:.0f} %\nis {shorten(m.true, 14)}" for m in found]
            figures["mistakes"] = sheet("Worst mistakes", [m.image for m in found], captions, 8)
        if groups := samples(content.dataset):
            figures["samples"] = sample_sheet(groups)
        return {name: _png(figure) for name, figure in figures.items()}


@contextmanager
def style() -> Iterator[None]:
    """While the block runs, figures are drawn in tenfold's style."""
    with rc_context({**_STYLE, "font.family": _fonts()}), warnings.catch_warnings():
        # a class named in a script no installed font has: a box stands in the picture, the page has the name
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _fonts() -> list[str]:
    """matplotlib's own font, then those installed here that know other scripts."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _WIDER if name in installed)]


def curves(rows: Sequence[dict[str, Any]], between: Sequence[dict[str, Any]]) -> Figure:
    """Loss, accuracy and learning rate: training at the moments ``between``, validation at the epochs ``rows``."""
    figure, axes = _figure((2.45, 2.1), columns=3, left=0.65, bottom=0.45)
    lines = (("train", "", between, GREY), ("validation", "val_", rows, BLUE))
    for axis, key in ((axes[0], "accuracy"), (axes[1], "loss")):
        for name, prefix, points, color in lines:
            values = [r.get(prefix + key) for r in points]
            if any(v is not None for v in values):
                y = [np.nan if v is None else v for v in values]
                axis.plot([r["at"] for r in points], y, color=color, marker=_mark(points), markersize=3.5, label=name)
        axis.set_title(key)
        axis.legend(fontsize=8, loc="lower right" if key == "accuracy" else "upper right")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    rates = [float(r.get("lr") or 0.0) for r in between]
    axes[2].plot([r["at"] for r in between], rates, color=ORANGE, marker=_mark(between), markersize=3.5)
    axes[2].set_title("learning rate")
    axes[2].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return figure


def _mark(points: Sequence[object]) -> str | None:
    return "o" if len(points) <= 40 else None


def confusion(evaluation: Evaluation) -> Figure:
    """Rows are true classes; a cell's color is the share of its row, the number in it (few classes) the images."""
    k = len(evaluation.classes)
    numbered = k <= NUMBERED
    names = [shorten(c, 18) for c in evaluation.classes] if k <= NAMED else []
    size = 9.0 if numbered else max(4.0, 480 / k)
    margin = 0.35 + 0.0085 * size * max(map(len, names), default=4)
    side = max(1.6, 0.46 * k) if numbered else 9.0
    figure, (axis,) = _figure((side, side), left=margin, bottom=margin)
    axis.imshow(heat(evaluation.confusion), interpolation="nearest", aspect="auto")
    axis.grid(False)
    axis.set_title(f"{'Confusion matrix' if k > 5 else 'Confusion'}, {evaluation.n:,} images")
    figure.text(1 - 0.3 / figure.get_figwidth(), 0.06 / figure.get_figheight(), "predicted", ha="right", color=SOFT)
    figure.text(
        0.06 / figure.get_figwidth(), 1 - 0.4 / figure.get_figheight(), "true", va="top", rotation=90, color=SOFT
    )
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axis.set_yticks(range(len(names)), names, fontsize=size)
    axis.tick_params(length=0, pad=2)
    if numbered:
        _numbers(axis, evaluation.confusion)
    return figure


def _numbers(axis: Axes, counts: np.ndarray) -> None:
    for i, j in zip(*np.nonzero(counts), strict=True):
        share = counts[i, j] / counts[i].sum()
        color = "white" if share > 0.6 else INK
        axis.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=color, fontsize=7.5)


def reliability(evaluation: Evaluation) -> Figure:
    """Accuracy by confidence with a mark at what the model said, and below it the images of each bin."""
    figure, (bottom,) = _figure((3.6, 0.8), left=0.7, bottom=0.45, above=3.5)
    width, height = figure.get_figwidth(), figure.get_figheight()
    top = figure.add_axes((0.7 / width, 1.45 / height, 3.6 / width, 3.2 / height), sharex=bottom)
    bins = evaluation.reliability
    middle = [(b.low + b.high) / 2 for b in bins]
    wide = [(b.high - b.low) * 0.92 for b in bins]
    right, said = np.array([b.accuracy for b in bins]), np.array([b.confidence for b in bins])
    top.bar(middle, right, wide, color=BLUE, label="how often it was right")
    top.bar(middle, np.maximum(said - right, 0), wide, bottom=right, color=ORANGE, alpha=0.25)
    ends = np.array(wide) / 2
    top.hlines(said, middle - ends, middle + ends, color=ORANGE, linewidth=2.2, label="what it said, on average")
    top.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    top.set(xlim=(0, 1), ylim=(0, 1.02), title=f"Expected calibration error {100 * evaluation.ece:.2f} %")
    top.legend(loc="upper left", fontsize=8)
    top.tick_params(labelbottom=False)
    bottom.bar(middle, [b.count for b in bins], wide, color=GREY)
    bottom.set(xlabel="confidence", ylabel="images")
    bottom.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=2))
    for axis in (top.yaxis, bottom.xaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    return figure


def classes(evaluation: Evaluation, limit: int = 40) -> Figure:
    """Recall of each class with its interval, precision as a mark; with many classes, the weakest."""
    figures = [c for c in evaluation.per_class if c.recall is not None]
    title = "Recall with 95 % interval, precision as a mark"
    if len(figures) > limit:
        figures = sorted(figures, key=lambda c: c.recall or 0.0)[:limit]
        title += f"; the {limit} weakest of {len(evaluation.classes)}"
    names = [shorten(c.name, 28) for c in figures]
    figure, (axis,) = _figure((5.0, 0.24 * max(2, len(figures))), left=0.25 + 0.075 * max(map(len, names)), bottom=0.35)
    place = np.arange(len(figures))
    recall = np.array([c.recall for c in figures], dtype=float)
    ends = np.array([c.recall_interval for c in figures], dtype=float)
    whisker = {"ecolor": INK, "elinewidth": 0.9, "capsize": 2}
    axis.barh(place, recall, 0.62, color=BLUE, alpha=0.75, xerr=np.abs(ends.T - recall), error_kw=whisker)
    marks = [(p, c.precision) for p, c in zip(place, figures, strict=True) if c.precision is not None]
    axis.plot([v for _, v in marks], [p for p, _ in marks], "D", color=ORANGE, markersize=4, clip_on=False)
    axis.set_yticks(place, names)
    axis.set_ylim(len(figures) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis.grid(axis="y", visible=False)
    axis.set_title(title, fontsize=9, x=0)
    return figure


def sheet(title: str, pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> Figure:
    """Pictures of one shape in rows, a caption of up to two lines under each."""
    large = [_enlarged(p) for p in pictures]
    height, width = large[0].shape[:2]
    wide, tall = max(width, TILE) + 36, height + 22 + 14 * (1 + max(c.count("\n") for c in captions))
    rows = -(-len(pictures) // columns)
    canvas = np.full((HEAD + tall * rows, EDGE + wide * min(columns, len(pictures)), 3), 255, np.uint8)
    texts = []
    for i, (picture, caption) in enumerate(zip(large, captions, strict=True)):
        y, x = HEAD + tall * (i // columns), EDGE + wide * (i % columns)
        canvas[y : y + height, x : x + width] = picture
        texts.append((x, y + height + 5, caption, 7.0))
    return _pixels(canvas, title, texts)


def sample_sheet(groups: Sequence[tuple[str, Sequence[Sample]]]) -> Figure:
    """A row of training images for each class; with many classes, one image of each."""
    groups = [(name, group) for name, group in groups if group]
    if len(groups) > 20:
        names = [shorten(name, 14) for name, _ in groups]
        return sheet("Samples", [group[0].image for _, group in groups], names, 12)
    height, width = _enlarged(groups[0][1][0].image).shape[:2]
    labels = [shorten(name, 20) for name, _ in groups]
    left = EDGE + 16 + 11 * max(map(len, labels))
    most = max(len(group) for _, group in groups)
    canvas = np.full((HEAD + (height + 8) * len(groups) + 8, left + (width + 8) * most + 8, 3), 255, np.uint8)
    texts = []
    for i, (_, group) in enumerate(groups):
        y = HEAD + (height + 8) * i
        for j, sample in enumerate(group):
            x = left + (width + 8) * j
            canvas[y : y + height, x : x + width] = _enlarged(sample.image)
        texts.append((EDGE, y + height // 2 - 9, labels[i], 9.0))
    return _pixels(canvas, "Samples", texts)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """A small picture with every pixel repeated, so that none is blurred and all have one size."""
    times = max(1, TILE // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _pixels(canvas: np.ndarray, title: str, texts: Sequence[tuple[int, int, str, float]]) -> Figure:
    """A figure that shows the canvas pixel for pixel, with texts at (x, y) from its upper left and of a font size."""
    height, width = canvas.shape[:2]
    figure = _canvas(Figure(figsize=(width / DPI, height / DPI)))
    figure.figimage(canvas)
    figure.text(EDGE / width, 1 - 12 / height, title, va="top", fontweight="bold", fontsize=10)
    for x, y, text, size in texts:
        figure.text(x / width, 1 - y / height, text, va="top", fontsize=size, linespacing=1.2)
    return figure


def _figure(
    size: tuple[float, float], *, columns: int = 1, left: float, bottom: float, above: float = 0.0
) -> tuple[Figure, Sequence[Axes]]:
    """A row of axes of ``size`` inches, with room at the left of each, below, and above for a title.

    Margins by hand: matplotlib's layout engines draw everything twice to find them.
    """
    width, height = size
    total = (columns * (width + left) + 0.3, bottom + height + above + 0.4)
    figure = _canvas(Figure(figsize=total))
    axes = [
        figure.add_axes(
            ((left + i * (width + left)) / total[0], bottom / total[1], width / total[0], height / total[1])
        )
        for i in range(columns)
    ]
    return figure, axes


def _canvas(figure: Figure) -> Figure:
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, pil_kwargs={"compress_level": 3})
    return file.getvalue()


def both(make: Callable[[], Figure], salt: str) -> dict[str, bytes]:
    """A figure in the house style as ``svg`` and ``png``; ``salt`` makes the names in the SVG the same each time."""
    with style(), rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure, found = make(), {}
        for kind, metadata in (("svg", {"Date": None}), ("png", None)):
            file = io.BytesIO()
            figure.savefig(file, format=kind, dpi=DPI, metadata=metadata)
            found[kind] = file.getvalue()
        return found
