"""The page's charts as inline SVG: history, curves, importance, slices. Colors are style.css's, text is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from tenfold.evaluation.svg import shorten, ticks
from tenfold.tuning.records import Trial
from tenfold.words import percent

DOT = {"complete": "s1", "pruned": "s0", "stopped": "s0"}
SHOWN = 14  # choices with names along an axis

Place = Callable[[float], float]


def scale(values: Sequence[float]) -> list[float]:
    """Ticks for accuracies. One that is far below the others would press them together: the axis begins at the
    lowest of the better three quarters, less half of their span, and what lies below stands at its foot."""
    found = sorted(values)
    if not found:
        return [0.0, 1.0]
    low = found[len(found) // 4]
    low = max(found[0], low - 0.5 * (found[-1] - low))
    marks = [m for m in ticks(low, found[-1]) if -1e-9 <= m <= 1 + 1e-9]
    return marks if len(marks) > 1 else [0.0, 1.0]


class _Frame:
    """A chart's area with its accuracies along the left edge."""

    def __init__(self, width: int, height: int, marks: Sequence[float], title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.left, self.right, self.top, self.bottom = 50, 12, 30, 36
        self.low, self.high = marks[0], marks[-1]
        self.parts = [f'<text class="ct" x="{self.left}" y="14">{escape(title)}</text>']
        for mark in marks:
            self.parts.append(f'<path class="grid" d="M{self.left} {self.y(mark):.1f}H{width - self.right}"/>')
            self.text("tick", self.left - 7, self.y(mark) + 4, f"{100 * mark:.4g} %", "end")

    def y(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return self.height - self.bottom - min(1.0, max(0.0, share)) * (self.height - self.top - self.bottom)

    def x(self, share: float) -> float:
        return self.left + 8 + share * (self.width - self.left - self.right - 16)

    def text(self, style: str, x: float, y: float, words: str, anchor: str = "start") -> None:
        self.parts.append(
            f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def dot(self, share: float, trial: Trial, best: bool) -> None:
        assert trial.value is not None
        style = "s2" if best else DOT.get(trial.state, "s0")
        tip = escape(f"{trial}: {percent(trial.value)}, {trial.state}" + (", the winner" if best else ""))
        self.parts.append(
            f'<circle class="dot {style}" cx="{self.x(share):.1f}" cy="{self.y(trial.value):.1f}" '
            f'r="{5 if best or trial.recipe else 3.5}"><title>{tip}</title></circle>'
        )

    def svg(self) -> str:
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(self.parts)}</svg>'
        )


def history(trials: Sequence[Trial], best: int | None) -> str:
    """Validation accuracy by the trial's number, and the best completed one so far as a line."""
    shown = [t for t in trials if t.value is not None]
    if not shown:
        return ""
    frame = _Frame(640, 260, scale([t.value for t in shown if t.value is not None]), "validation accuracy by trial")
    last = max(t.number for t in shown) or 1
    path, top = "", -1.0
    for trial in shown:
        if trial.state == "complete" and trial.value is not None and trial.value > top:
            x = frame.x(trial.number / last)
            path += f"M{x:.1f} {frame.y(trial.value):.1f}" if top < 0 else f"H{x:.1f}V{frame.y(trial.value):.1f}"
            top = trial.value
    if path:
        frame.parts.append(f'<path class="line s1" d="{path}H{frame.x(1):.1f}"/>')
    for trial in shown:
        frame.dot(trial.number / last, trial, trial.number == best)
    for mark in [m for m in ticks(0, last, 8) if m <= last and m == round(m)]:
        frame.text("tick", frame.x(mark / last), frame.height - frame.bottom + 18, f"{mark:g}", "middle")
    frame.text("tick", frame.width - frame.right, frame.height - 3, "trial", "end")
    return frame.svg()


def curves(trials: Sequence[Trial], best: int | None) -> str:
    """Validation accuracy by epoch, a line a trial: where Hyperband cut."""
    shown = [t for t in trials if t.curve]
    if not shown:
        return ""
    values = [v for t in shown for v in t.curve.values()]
    frame = _Frame(640, 260, scale(values), "validation accuracy by epoch")
    first, last = min(min(t.curve) for t in shown), max(max(t.curve) for t in shown)

    def at(epoch: float) -> float:
        return (epoch - first) / (last - first) if last > first else 0.5

    for trial in sorted(shown, key=lambda t: (t.number == best, t.state == "complete")):
        style = "s2" if trial.number == best else DOT.get(trial.state, "s0")
        points = " ".join(f"{frame.x(at(e)):.1f},{frame.y(v):.1f}" for e, v in trial.curve.items())
        tip = escape(f"{trial}, {trial.state}")
        frame.parts.append(
            f'<polyline class="line {style}" points="{points}" stroke-opacity="0.7"><title>{tip}</title></polyline>'
        )
        epoch, value = list(trial.curve.items())[-1]
        frame.parts.append(
            f'<circle class="dot {style}" cx="{frame.x(at(epoch)):.1f}" cy="{frame.y(value):.1f}" r="3">'
            f"<title>{tip}: {percent(value)}</title></circle>"
        )
    for mark in [m for m in ticks(first, last, 8) if first <= m <= last and m == round(m)]:
        frame.text("tick", frame.x(at(mark)), frame.height - frame.bottom + 18, f"{mark:g}", "middle")
    frame.text("tick", frame.width - frame.right, frame.height - 3, "epoch", "end")
    return frame.svg()


def bars(shares: Mapping[str, float]) -> str:
    """Importances, the largest first."""
    row, left, width = 24, 190, 640
    most = max(shares.values(), default=0.0) or 1.0
    parts = []
    for i, (name, share) in enumerate(shares.items()):
        y = i * row
        long = share / most * (width - left - 60)
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(shorten(name, 28))}</text>'
            f'<rect class="f0" x="{left}" y="{y + 5}" width="{max(long, 1):.1f}" height="14" rx="2"/>'
            f'<text class="tick" x="{left + long + 6:.1f}" y="{y + 16}">{100 * share:.0f} %</text>'
        )
    height = row * len(shares) + 4
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="importance">{"".join(parts)}</svg>'
    )


def slice_of(name: str, axis: Mapping[str, Any], trials: Sequence[Trial], best: int | None) -> str:
    """Validation accuracy by one field's value; what was pruned stands where it was cut."""
    shown = [t for t in trials if t.value is not None and name in t.params]
    if not shown:
        return ""
    frame = _Frame(310, 220, scale([t.value for t in trials if t.value is not None]), shorten(name, 34))
    at, labels = _along(name, axis, shown)
    for trial in sorted(shown, key=lambda t: (t.number == best, t.state == "complete")):
        frame.dot(at(trial), trial, trial.number == best)
    for share, words in labels:
        anchor = "start" if share < 0.1 else "end" if share > 0.9 else "middle"
        frame.text("tick", frame.x(share), frame.height - frame.bottom + 18, words, anchor)
    return frame.svg()


def _along(
    name: str, axis: Mapping[str, Any], trials: Sequence[Trial]
) -> tuple[Callable[[Trial], float], list[tuple[float, str]]]:
    """Where a trial stands along a field, 0 to 1, and the words below the axis."""
    if "choices" in axis:
        from tenfold.tuning.space import key

        known = [key(choice) for choice in axis["choices"]]
        spread = max(1, len(known) - 1)
        limit = max(3, 40 // len(known))
        labels = [(i / spread, shorten(c, limit)) for i, c in enumerate(known)] if len(known) <= SHOWN else []
        return (lambda t: known.index(str(t.params[name])) / spread), labels
    low, high, log = axis["low"], axis["high"], axis.get("log", False)
    if log:
        span = math.log(high / low)
        middle = math.sqrt(low * high)
        return (lambda t: math.log(t.params[name] / low) / span), [
            (0.0, f"{low:.3g}"), (0.5, f"{middle:.2g}"), (1.0, f"{high:.3g} (log)"),
        ]  # fmt: skip
    return (lambda t: (t.params[name] - low) / (high - low)), [
        (0.0, f"{low:.3g}"), (0.5, f"{(low + high) / 2:.3g}"), (1.0, f"{high:.3g}"),
    ]  # fmt: skip
