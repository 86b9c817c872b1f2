"""The timeline of a few steps as inline SVG: a row a lane, a box an operation, colored by its kind."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tenfold.engines.recording import Span
from tenfold.profiling.kinds import DATA, kind
from tenfold.words import seconds_fine

WIDTH, LEFT, ROW, GAP, TOP = 940, 70, 26, 8, 4
MOST = 2500  # boxes; what is narrower than a third of a pixel is merged with its neighbour
NARROW = 0.35
# Kinds of operations by color, the rest grey; the colors of the other charts.
STYLES = (
    ("convolution forward", "k0", "#0072b2"), ("convolution backward", "k1", "#56b4e9"),
    ("batch norm", "k2", "#cc79a7"), ("activation", "k3", "#e69f00"), ("pooling", "k4", "#009e73"),
    ("optimizer", "k5", "#d55e00"),
    ("augmentation", "k6", "#b0811a"), (DATA, "k7", "#f0c419"), ("compiled step", "k0", "#0072b2"),
    ("decode", "k7", "#f0c419"), ("copy", "k6", "#b0811a"), ("model", "k0", "#0072b2"), ("answers", "k4", "#009e73"),
)  # fmt: skip
OTHER, WAITING = ("other", "k8", "#8d8d8d"), ("waiting", "k9", "none")
_OPERATORS = {  # of ONNX and OpenVINO
    "Conv": "convolution forward", "Convolution": "convolution forward", "FusedConv": "convolution forward",
    "BatchNormalization": "batch norm", "Gelu": "activation", "Relu": "activation", "MaxPool": "pooling",
    "GlobalMaxPool": "pooling", "AveragePool": "pooling", "GlobalAveragePool": "pooling", "ReduceMax": "pooling",
}  # fmt: skip
STYLE = (
    "".join(f".{c}{{fill:{color}}}" for _, c, color in dict.fromkeys([*STYLES, OTHER]))
    + ".k9{fill:none;stroke:var(--grey);stroke-width:.5} .key .k9{border:1px solid var(--grey)}"
    + "".join(f".key .{c}{{background:{color}}}" for _, c, color in dict.fromkeys([*STYLES, OTHER]))
)


def draw(spans: Sequence[Span]) -> str:
    """The figure and its key; nothing for no spans."""
    end = max((s.end for s in spans), default=0.0)
    boxes = [(s, name) for s in spans if (name := _named(s)) is not None]
    if end <= 0 or not boxes:
        return ""
    lanes = {lane: row for row, lane in enumerate(sorted({s.lane for s, _ in boxes}, key=_order))}
    scale = (WIDTH - LEFT - 4) / end
    drawn, used = [], {}
    for lane, row in lanes.items():
        y = TOP + row * (ROW + GAP)
        drawn.append(f'<text class="tick" x="0" y="{y + ROW / 2 + 4:.0f}">{escape(lane)}</text>')
        drawn.append(f'<path class="grid" d="M{LEFT} {y + ROW}H{WIDTH - 4}"/>')
        mine = [(s, name) for s, name in boxes if s.lane == lane]
        for start, stop, name, tip in _merged(mine, scale)[: MOST // len(lanes)]:
            style = _style(name)
            used[style[1]] = style[0] if style[0] != OTHER[0] else "other"
            drawn.append(
                f'<rect class="{style[1]}" x="{LEFT + start * scale:.1f}" y="{y}" '
                f'width="{max(NARROW, (stop - start) * scale):.1f}" height="{ROW}">{tip}</rect>'
            )
    height = TOP + len(lanes) * (ROW + GAP) + 18
    for mark in range(5):
        x = LEFT + (WIDTH - LEFT - 4) * mark / 4
        anchor = "start" if mark == 0 else "end" if mark == 4 else "middle"
        text = seconds_fine(end * mark / 4) if mark else "0"
        drawn.append(f'<text class="tick" x="{x:.0f}" y="{height - 4}" text-anchor="{anchor}">{text}</text>')
    key = "".join(f'<span><i class="{c}"></i>{escape(name)}</span>' for c, name in used.items())
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Timeline" '
        f'style="min-width:640px">{"".join(drawn)}</svg><div class="key">{key}</div>'
    )


def _named(span: Span) -> str | None:
    """What a span is drawn as; None for what only groups others."""
    if span.kind == "kernel":
        return kind(span.name)
    if span.kind == "operation":
        if span.callers and span.callers[0] in _OPERATORS:
            return _OPERATORS[span.callers[0]]
        outermost = not any(caller.startswith(("aten::", "autograd::")) for caller in span.callers)
        return kind(span.name, span.callers) if outermost or span.own > 0 else None
    if span.lane == "batch":
        return None if span.name == "batch" else span.name
    return {"wait": WAITING[0], "data": DATA, "read": DATA}.get(span.name)


def _merged(boxes: Sequence[tuple[Span, str]], scale: float) -> list[tuple[float, float, str, str]]:
    """(start, end, name, tip) of boxes in order, the inner over the outer; runs of one kind with hardly a gap between
    them are one box."""
    found: list[tuple[float, float, str, str]] = []
    for span, name in sorted(boxes, key=lambda pair: (pair[0].start, -pair[0].end)):
        tip = f"<title>{escape(span.name)}: {seconds_fine(span.seconds)}</title>"
        if found:
            start, end, before, _ = found[-1]
            if before == name and span.start - end < NARROW / scale:
                found[-1] = start, max(end, span.end), name, f"<title>{escape(name)}</title>"
                continue
            if span.seconds * scale < NARROW and span.end <= end:
                continue
        found.append((span.start, span.end, name, tip))
    return found


def _style(name: str) -> tuple[str, str, str]:
    if name == WAITING[0]:
        return WAITING
    return next((style for style in STYLES if style[0] == name), OTHER)


def _order(lane: str) -> tuple[int, str]:
    first = {"feed": 0, "host": 1, "batch": 1, "model": 2, "device": 9}
    return first.get(lane, 5), lane
