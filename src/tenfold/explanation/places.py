"""Where the cells of a network's values lie on its pixels.

A convolution without padding leaves out the picture's edges, and a pooling whatever does not fill a window: the cells
of what they give cover a part of the picture only, which follows from kernels, strides and paddings (as A. Araujo,
W. Norris, J. Sim, "Computing receptive fields of convolutional neural networks", Distill 2019, reckon their centres).
``classic`` has 6×6 cells at last, between the pixels 3 and 27 of 32; drawn from edge to edge they would be off by up to
five pixels. Where nothing is left out the cells cover the whole evenly, however the padding lies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tenfold.runtimes.graph import INPUT
from tenfold.runtimes.nodes import Node, Nodes

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # the axis of channels

# One number for each number, or for each of a few that are broadcast.
_EACH = frozenset((
    "Abs", "Add", "BatchNormalization", "Cast", "Clip", "Div", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Max", "Min", "Mul", "Neg", "PRelu", "Pow",
    "Reciprocal", "Relu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
))  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """Rows or columns of cells: how many, and the pixels between which they lie, from ``low`` to ``high``; ``before``
    and ``after`` them there is padding, counted in cells too."""

    cells: int
    low: float
    high: float
    before: int = 0
    after: int = 0

    def windowed(self, size: int, stride: int, dilation: int, before: int, after: int) -> Axis:
        """What windows of ``size`` cells make of them, with so much more padding."""
        reach, before = dilation * (size - 1), before + self.before
        cells = (self.cells + before + after + self.after - reach - 1) // stride + 1
        if cells * stride >= self.cells:
            return Axis(cells, self.low, self.high)
        each = (self.high - self.low) / self.cells
        low = self.low + each * ((reach + 1 - stride) / 2 - before)
        return Axis(cells, low, low + each * stride * cells)

    def spread(self, size: int) -> np.ndarray:
        """float64, one for each of as many even parts of ``size`` pixels: its centre, counted in cells from the first
        one's centre. Beyond the outermost cells' centres that is theirs."""
        centres = (np.arange(self.cells) + 0.5) * size / self.cells
        inside = (centres - self.low) * self.cells / (self.high - self.low) - 0.5
        return np.clip(inside, 0, self.cells - 1)


@dataclass(frozen=True)
class Place:
    """A value's rows and columns. ``last``: N×rows×columns×channels, not N×channels×rows×columns."""

    rows: Axis
    columns: Axis
    last: bool = False

    @property
    def cells(self) -> tuple[int, int]:
        """Of the picture, without padding."""
        return self.rows.cells, self.columns.cells

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """Before and after the rows, before and after the columns."""
        return self.rows.before, self.rows.after, self.columns.before, self.columns.after


def places(graph: Nodes, height: int, width: int) -> dict[str, Place]:
    """The place of every value whose rows and columns can be followed from the pixels, ``height`` × ``width`` of them.
    Values without rows and columns, and what comes after an operator that moves them about, have none."""
    found = {INPUT: Place(Axis(height, 0, height), Axis(width, 0, width), last=True)}
    for node in graph.all:
        place = _after(node, graph, found)
        if place is not None and min(place.cells) > 0:
            found.update(dict.fromkeys(node.outputs, place))
    return found


def _after(node: Node, graph: Nodes, found: dict[str, Place]) -> Place | None:
    given = [found[name] for name in node.inputs if name in found]
    if len({(place.cells, place.padding, place.last) for place in given}) != 1:
        return None
    place = given[0]
    match node.operator:
        case "Transpose":
            wanted = TO_FIRST if place.last else TO_LAST
            return replace(place, last=not place.last) if node.wholes("perm") == wanted else None
        case "Conv" | "MaxPool" | "AveragePool":
            return _windowed(node, place, graph)
        case "Pad":
            amounts = padding(node, graph)
            return None if amounts is None or place.last or any(place.padding) else _padded(place, *amounts)
        case "Concat":
            return place if node.whole("axis", 0) in ((3, -1) if place.last else (1, -3)) else None
        case "MatMul":  # of each pixel
            return place if place.last and node.inputs[0] in found and graph.constant(node.inputs[1]) else None
    return place if node.operator in _EACH else None


@dataclass(frozen=True)
class Window:
    """A convolution's or pooling's windows: by rows, then by columns."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]


def window(node: Node, graph: Nodes) -> Window | None:
    """The windows of a Conv, MaxPool or AveragePool over rows and columns; None where they are written otherwise than
    by their numbers."""
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET" or node.whole("ceil_mode", 0):
        return None
    size = node.wholes("kernel_shape")
    if not size and node.operator == "Conv":
        kernel = graph.weight(node.inputs[1])
        size = () if kernel is None else kernel.shape[2:]
    pads = node.wholes("pads") or (0, 0, 0, 0)
    stride, dilation = (node.wholes(name) or (1, 1) for name in ("strides", "dilations"))
    if (len(size), len(stride), len(dilation), len(pads)) != (2, 2, 2, 4) or min(*size, *stride, *dilation) < 1:
        return None
    return Window(*((pair[0], pair[1]) for pair in (size, stride, dilation, pads[:2], pads[2:])))


def _windowed(node: Node, place: Place, graph: Nodes) -> Place | None:
    found = window(node, graph)
    if found is None or place.last:
        return None
    rows, columns = (
        axis.windowed(*(pair[i] for pair in (found.size, found.stride, found.dilation, found.before, found.after)))
        for i, axis in enumerate((place.rows, place.columns))
    )
    return Place(rows, columns)


def padding(node: Node, graph: Nodes) -> tuple[int, int, int, int] | None:
    """What a Pad of N×channels×rows×columns adds before and after the rows, before and after the columns; None where it
    is of other axes."""
    amounts = graph.weight(node.inputs[1]) if len(node.inputs) in (2, 3) else None
    if amounts is None or amounts.shape != (8,) or amounts[[0, 1, 4, 5]].any():
        return None
    _, _, top, left, _, _, bottom, right = amounts.tolist()
    return top, bottom, left, right


def _padded(place: Place, top: int, bottom: int, left: int, right: int) -> Place:
    return Place(replace(place.rows, before=top, after=bottom), replace(place.columns, before=left, after=right))
