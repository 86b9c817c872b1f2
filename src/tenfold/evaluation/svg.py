"""The report's charts as inline SVG, drawn by hand: sharp at every size, colored by the page's style sheet.

Every chart is a string with its own viewBox; colors are classes (``s0``, ``s1`` …) that ``style.css`` sets for
light and dark. All text is escaped here: class names come from strangers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from tenfold.evaluation.calibration import Bin
from tenfold.evaluation.metrics import Evaluation
from tenfold.png import data_uri

NUMBERED = 24  # up to so many classes the matrix has numbers in its cells
NAMED = 130  # and up to so many, names along its edges
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)  # blue and vermilion of Okabe and Ito, told apart by all


@dataclass(frozen=True)
class Series:
    """A line. ``style`` is its class in the style sheet; values that are None or not finite are gaps. ``x`` is where
    its values lie, the chart's own x where None."""

    name: str
    style: str
    values: Sequence[float | None]
    x: Sequence[float] | None = None


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that reach from below ``low`` to above ``high``."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-290:  # all the same, as far as can be told
        low, high = low - (abs(low) * 0.5 or 0.5), high + (abs(high) * 0.5 or 0.5)
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def lines(
    title: str,
    x: Sequence[float],
    series: Sequence[Series],
    *,
    show: Callable[[float], str] = lambda v: f"{v:g}",
    zero: bool = False,
    highest: float = math.inf,
) -> str:
    """A line chart over epochs. ``show`` words a value; ``zero`` begins the axis at 0; ``highest`` bounds it."""
    width, height, left, right, top, bottom = 310, 228, 46, 10, 44, 38
    values = [v for s in series for v in s.values if v is not None and math.isfinite(v)]
    marks = ticks(0.0 if zero or not values else min(values), max(values, default=1.0))
    if marks[-1] > highest:
        marks = [m for m in marks if m <= highest + 1e-9]
    low, high = marks[0], max(marks[-1], min(highest, max(values, default=marks[-1])))
    begin, end = (x[0], x[-1]) if len(x) > 1 else (0.0, 2.0 * (x[0] if x else 1))
    own = [v for s in series for v in s.x or ()]
    begin, end = min([begin, *own]), max([end, *own])

    def px(v: float) -> float:
        return left + (v - begin) / ((end - begin) or 1) * (width - left - right)

    def py(v: float) -> float:
        return height - bottom - (v - low) / ((high - low) or 1) * (height - top - bottom)

    parts = [_text("ct", left, 15, title)]
    for m in marks:
        parts.append(f'<path class="grid" d="M{left} {py(m):.1f}H{width - right}"/>')
        parts.append(_text("tick", left - 7, py(m) + 4, show(m), "end"))
    parts += [_text("tick", px(m), height - bottom + 17, f"{m:g}", "middle") for m in _whole_ticks(begin, end, x)]
    parts.append(_text("tick", width - right, height - 5, "epoch", "end"))
    place: float = left
    for s in series if series[0].name else ():
        parts.append(f'<path class="line {s.style}" d="M{place:.0f} 28h16"/>')
        parts.append(_text("tick", place + 21, 32, s.name))
        place += 21 + 6.2 * len(s.name) + 18
    parts += [_line(x if s.x is None else s.x, s, px, py, show) for s in series]
    return _svg(width, height, title, parts)


def _whole_ticks(begin: float, end: float, x: Sequence[float]) -> list[float]:
    if len(x) <= 1:
        return list(x)
    return [m for m in ticks(begin, end, 6) if begin <= m <= end and m == round(m)]


def _line(
    x: Sequence[float],
    s: Series,
    px: Callable[[float], float],
    py: Callable[[float], float],
    show: Callable[[float], str],
) -> str:
    points: list[tuple[float, float] | None] = [
        (a, v) if v is not None and math.isfinite(v) else None for a, v in zip(x, s.values, strict=True)
    ]
    path, pen = "", "M"
    for p in points:
        if p is None:
            pen = "M"
        else:
            path += f"{pen}{px(p[0]):.1f} {py(p[1]):.1f}"
            pen = "L"
    dots, radius = "", 3 if len(points) > 1 else 5
    if len(points) <= 40:  # more would be a caterpillar
        for p in points:
            if p is not None:
                tip = _tip(f"{s.name} epoch {p[0]:g}: {show(p[1])}".strip())
                place = f'cx="{px(p[0]):.1f}" cy="{py(p[1]):.1f}"'
                dots += f'<circle class="dot {s.style}" {place} r="{radius}">{tip}</circle>'
    return f'<path class="line {s.style}" d="{path}"/>{dots}'


def reliability(bins: Sequence[Bin]) -> str:
    """Accuracy in each bin of confidence, a mark at what the model said, and below the images of each bin."""
    size, left, top, tall = 260, 52, 26, 56
    width, height, floor = left + size + 20, top + size + tall + 46, top + size
    base = floor + 12 + tall
    parts = [f'<text class="ct" x="{left}" y="13">accuracy by confidence</text>']
    for m in (0, 0.2, 0.4, 0.6, 0.8, 1):
        y, x = floor - size * m, left + size * m
        parts.append(f'<path class="grid" d="M{left} {y:.1f}h{size}"/>')
        parts.append(_text("tick", left - 7, y + 4, f"{100 * m:.0f} %", "end"))
        parts.append(_text("tick", x, height - 18, f"{100 * m:.0f} %", "middle"))
    total, most = sum(b.count for b in bins), max((b.count for b in bins), default=1)
    for b in bins:
        tip = _tip(
            f"confidence {100 * b.confidence:.1f} %, accuracy {100 * b.accuracy:.1f} %, {b.count:,} of {total:,} images"
        )
        x, w = left + size * b.low + 1, size * (b.high - b.low) - 2
        if b.confidence > b.accuracy:
            y, h = floor - size * b.confidence, size * (b.confidence - b.accuracy)
            parts.append(_rect("gap", x, y, w, h, tip))
        parts.append(_rect("f0", x, floor - size * b.accuracy, w, size * b.accuracy, tip))
        parts.append(f'<path class="said" d="M{x:.1f} {floor - size * b.confidence:.1f}h{w:.1f}"/>')
        high = max(1.0, tall * b.count / most)
        parts.append(_rect("fm", x, base - high, w, high, tip))
    parts.append(f'<path class="ideal" d="M{left} {floor}L{left + size} {top}"/>')
    parts.append(f'<path class="axis" d="M{left} {base}h{size}"/>')
    parts.append(_text("tick", left - 7, base - 22, "images", "end"))
    parts.append(_text("tick", left + size, height - 4, "confidence", "end"))
    return _svg(width, height, "Reliability diagram", parts)


def matrix(evaluation: Evaluation) -> str:
    """The confusion matrix: a row for each true class, colored by the share of that class's images."""
    k = len(evaluation.classes)
    numbered, named = k <= NUMBERED, k <= NAMED
    cell = max(30, min(64, 560 // k)) if numbered else 9 if named else 900 / k
    names = [shorten(c, 18) for c in evaluation.classes] if named else []
    margin = 26 + (6.4 if numbered else 3.8) * max(map(len, names), default=0)
    side = cell * k
    if numbered:
        body = _numbered_cells(evaluation, margin, cell)
    else:
        body = [
            f'<image class="heat" x="{margin:.1f}" y="{margin:.1f}" width="{side:.1f}" height="{side:.1f}" '
            f'preserveAspectRatio="none" href="{data_uri(heat(evaluation.confusion))}"/>'
        ]
    body.append(f'<rect class="frame" x="{margin:.1f}" y="{margin:.1f}" width="{side:.1f}" height="{side:.1f}"/>')
    small, drop = ("tick", 4.0) if numbered else ("tiny", 2.3)
    for i, name in enumerate(names):
        middle = margin + cell * (i + 0.5) + drop
        text = f"{escape(name)}{_tip(evaluation.classes[i])}"
        body.append(f'<text class="{small}" x="{margin - 6:.1f}" y="{middle:.1f}" text-anchor="end">{text}</text>')
        turned = f"translate({middle:.1f} {margin - 6:.1f}) rotate(-90)"
        body.append(f'<text class="{small}" transform="{turned}">{text}</text>')
    body.append(f'<text class="ct" x="{margin:.1f}" y="11">predicted →</text>')
    body.append(f'<text class="ct" transform="translate(2 {margin:.1f}) rotate(90)">true →</text>')
    edge = margin + side + 2
    return _svg(edge, edge, "Confusion matrix", body, least=margin + k * (26 if numbered else 6))


def _numbered_cells(evaluation: Evaluation, margin: float, cell: float) -> list[str]:
    """Colored squares: the share of the row in a large cell with the count below it, in a small one the count."""
    parts = []
    for i, j in zip(*np.nonzero(evaluation.confusion), strict=True):
        count, support = int(evaluation.confusion[i, j]), evaluation.per_class[i].support
        share = count / support
        x, y = margin + cell * j, margin + cell * i
        strength = strengths(share, i == j)
        true, taken = evaluation.classes[i], evaluation.classes[j]
        tip = _tip(f"{true} taken for {taken}: {count:,} of {support:,} ({100 * share:.1f} %)")
        parts.append(_rect("m0" if i == j else "m1", x, y, cell, cell, tip, strength))
        on = " on" if strength > 0.55 else ""
        middle = x + cell / 2
        if cell >= 44:
            parts.append(_text(f"cell{on}", middle, y + cell / 2, f"{100 * share:.0f} %", "middle"))
            parts.append(_text(f"sub{on}", middle, y + cell / 2 + 13, f"{count:,}", "middle"))
        else:
            parts.append(_text(f"cell{on}", middle, y + cell / 2 + 4, f"{count}", "middle"))
    return parts


def strengths(share: float, right: bool) -> float:
    """How strongly a numbered cell is colored, 0 to 1: mistakes more than their share, so that a few are seen."""
    return share if right else min(1.0, 1.1 * share**0.65)


def heat(confusion: np.ndarray) -> np.ndarray:
    """A matrix as uint8 RGBA K×K: hue says right or wrong, opacity how much, so that it lies on any page.

    Mistakes by the square root of their share: without numbers, one in a hundred must be seen too.
    """
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    k = len(confusion)
    picture = np.empty((k, k, 4), np.uint8)
    picture[:, :, :3] = WRONG
    picture[np.arange(k), np.arange(k), :3] = RIGHT
    opacity = np.where(confusion > 0, np.minimum(1.0, 0.08 + 0.92 * np.sqrt(share)), 0.0)
    np.fill_diagonal(opacity, np.diag(share))
    picture[:, :, 3] = (255 * opacity).round()
    return picture


def bar(value: float | None, interval: tuple[float, float] | None) -> str:
    """A small bar from 0 to 1 with its interval as a whisker, for a table's cell."""
    if value is None:
        return ""
    parts = [f'<rect class="f0" x="0" y="3" width="{100 * value:.1f}" height="8"/>']
    if interval:
        low, high = 100 * interval[0], 100 * interval[1]
        parts.append(f'<path class="whisker" d="M{low:.1f} 7H{high:.1f}M{low:.1f} 4v6M{high:.1f} 4v6"/>')
    return (
        '<svg class="bar" viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" x="0" y="3" width="100" height="8"/>' + "".join(parts) + "</svg>"
    )


def _rect(style: str, x: float, y: float, w: float, h: float, tip: str = "", opacity: float = 1.0) -> str:
    clear = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"{clear}>{tip}</rect>'


def _text(style: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def shorten(text: str, limit: int) -> str:
    """``text`` of at most ``limit`` characters, its middle left out."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return text[: limit - 1 - head] + "…" + text[-head:]


def _svg(width: float, height: float, title: str, parts: Sequence[str], least: float = 0) -> str:
    style = f' style="min-width:{least:.0f}px;max-width:{1.15 * width:.0f}px"' if least else ""
    return (
        f'<svg class="chart" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}"{style}>'
        + "".join(parts)
        + "</svg>"
    )
