"""Curves in a terminal: a series of bounded length, and its drawing in braille dots, 2×4 to a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Span = tuple[str, str]  # text and the name of its style
Line = list[Span]

# The bit of each dot of a braille cell, by row and column (Unicode block U+2800).
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


@dataclass
class Series:
    """Points of a curve in the order they came, at most ``limit`` of them however long the run.

    When full, neighbours are averaged in pairs, and from then on as many new points into one as were merged:
    the curve keeps its whole length and loses detail that no terminal could show.
    """

    limit: int = 256
    points: list[tuple[float, float]] = field(default_factory=list)
    _merged: int = 1
    _open: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """A further point; one that is not finite is left out."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        self._open.append((x, y))
        if len(self._open) < self._merged:
            return
        self.points.append(_mean(self._open))
        self._open = []
        if len(self.points) >= self.limit:
            self.points = [_mean(self.points[i : i + 2]) for i in range(0, len(self.points), 2)]
            self._merged *= 2

    def drawn(self) -> list[tuple[float, float]]:
        """All points, the one still being averaged included."""
        return [*self.points, _mean(self._open)] if self._open else self.points


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    n = len(points)
    return sum(x for x, _ in points) / n, sum(y for _, y in points) / n


@dataclass(frozen=True)
class Curve:
    """A series to draw: points with x from 0 to 1 of the width, and the name of the style it is drawn in."""

    points: Sequence[tuple[float, float]]
    style: str


def plot(curves: Sequence[Curve], columns: int, rows: int, low: float, high: float) -> list[Line]:
    """``rows`` lines of ``columns`` cells, the top one first. A cell's color is the last curve's in it."""
    bits = [[0] * columns for _ in range(rows)]
    styles = [[""] * columns for _ in range(rows)]
    span = high - low if high > low else 1.0
    for curve in curves:
        for x, y in _dots(curve.points, 2 * columns, 4 * rows, low, span):
            row, column = y // 4, x // 2
            styles[row][column] = curve.style
            bits[row][column] |= _DOTS[y % 4][x % 2]
    return [_spans(bits[row], styles[row]) for row in range(rows)]


def _dots(
    points: Sequence[tuple[float, float]], width: int, height: int, low: float, span: float
) -> list[tuple[int, int]]:
    """The dots (x from the left, y from the top) of straight lines through the points, without gaps."""
    found: list[tuple[int, int]] = []
    before: tuple[int, int] | None = None
    for x, y in points:
        at = (
            round(min(max(x, 0.0), 1.0) * (width - 1)),
            round((1 - min(max((y - low) / span, 0.0), 1.0)) * (height - 1)),
        )
        if before is None:
            found.append(at)
        elif at != before:
            found.extend(_line(before, at))
        before = at
    if len(found) == 1:  # a dot alone is hard to see
        (x, y), last = found[0], width - 1
        found += [(max(x - 2, 0), y), (max(x - 1, 0), y), (min(x + 1, last), y), (min(x + 2, last), y)]
    return found


def _line(a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, int]]:
    steps = max(abs(b[0] - a[0]), abs(b[1] - a[1]), 1)
    return [
        (a[0] + round(i * (b[0] - a[0]) / steps), a[1] + round(i * (b[1] - a[1]) / steps)) for i in range(1, steps + 1)
    ]


def _spans(bits: Sequence[int], styles: Sequence[str]) -> Line:
    """One row's cells, neighbours of one style joined."""
    line: Line = []
    for dots, style in zip(bits, styles, strict=True):
        cell = chr(0x2800 + dots) if dots else " "
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + cell, style)
        else:
            line.append((cell, style))
    return line


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest loss to show. A first loss far above the rest does not flatten what follows."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    typical = ordered[int(0.9 * (len(ordered) - 1))]
    low = ordered[0]
    high = min(ordered[-1], low + 1.5 * (typical - low)) if len(ordered) >= 10 else ordered[-1]
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def accuracy_bounds(values: Sequence[float]) -> tuple[float, float]:
    """A range of whole tens of percent, as fractions, around accuracies."""
    if not values:
        return 0.0, 1.0
    low = math.floor(min(values) * 10) / 10
    high = min(1.0, math.ceil(max(values) * 10) / 10)
    return (low, high) if high > low else (max(0.0, low - 0.1), min(1.0, low + 0.1))
