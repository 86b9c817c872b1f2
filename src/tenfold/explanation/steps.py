"""How a class's logit answers to the values in a network's last layers: each operator's gradient, in NumPy.

A gradient is float32 channels × rows × columns, of one picture; a value without rows and columns has one of each,
whatever its shape in the graph is. Values are as ONNX Runtime gives them, for a batch of one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tenfold.explanation.places import Window, padding, window
from tenfold.runtimes.nodes import Node, Nodes

Values = Mapping[str, np.ndarray]
Gradients = Iterator[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Step(ABC):
    """An operator, gone through backwards. ``values`` are the names of those whose numbers it needs."""

    @property
    def values(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        """(name, gradient) of each value that the operator takes, from that of the value it gives."""


@dataclass(frozen=True)
class Dense(Step):
    """``matrix`` is in × out."""

    given: str
    matrix: np.ndarray

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        yield self.given, (self.matrix @ gradient.ravel())[:, None, None]


@dataclass(frozen=True)
class Scaled(Step):
    """Sums of values times constants, and constants added: ``factors`` by the value's name, scalars or one for each
    channel."""

    factors: tuple[tuple[str, np.ndarray], ...]

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        for name, factor in self.factors:
            found = gradient * factor.reshape(-1, 1, 1)
            if found.shape != gradient.shape:
                raise ValueError(f"{factor.size} factors for {gradient.shape}")
            yield name, found


@dataclass(frozen=True)
class Product(Step):
    """Two values multiplied with each other."""

    one: str
    other: str

    @property
    def values(self) -> tuple[str, ...]:
        return self.one, self.other

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        yield self.one, gradient * values[self.other].reshape(gradient.shape)
        yield self.other, gradient * values[self.one].reshape(gradient.shape)


@dataclass(frozen=True)
class Curve(Step):
    """A function of each number by itself; ``slope`` is its derivative."""

    given: str
    slope: Callable[[np.ndarray], np.ndarray]

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        yield self.given, gradient * self.slope(values[self.given].reshape(gradient.shape)).astype(np.float32)


@dataclass(frozen=True)
class LayerNorm(Step):
    """Over all of a value without rows and columns. Its deviation counts as given: taken along, the gradient times the
    value would come to nothing, since the whole does not change with the value's scale."""

    given: str
    gamma: np.ndarray
    eps: float

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        scaled = gradient * self.gamma.reshape(gradient.shape) / math.sqrt(values[self.given].var() + self.eps)
        yield self.given, scaled - scaled.mean()


@dataclass(frozen=True)
class Moved(Step):
    """A value with rows and columns laid out anew: flattened, or its axes in another ``order`` (the batch's left
    out)."""

    given: str
    order: tuple[int, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        shape = values[self.given].shape[1:]
        if self.order:
            moved = gradient.reshape([shape[axis] for axis in self.order])
            yield self.given, moved.transpose(np.argsort(self.order))
        else:
            yield self.given, gradient.reshape(shape)


@dataclass(frozen=True)
class Mean(Step):
    """The mean over all rows and columns."""

    given: str

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        channels, rows, columns = values[self.given].shape[1:]
        yield self.given, np.broadcast_to(gradient / (rows * columns), (channels, rows, columns))


@dataclass(frozen=True)
class Most(Step):
    """The maximum over all rows and columns. Where several cells have it they share it."""

    given: str

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        value = values[self.given][0]
        winner = value == value.max((1, 2), keepdims=True)
        yield self.given, gradient * winner / winner.sum((1, 2), keepdims=True, dtype=np.float32)


@dataclass(frozen=True)
class Everywhere(Step):
    """In the place of :class:`Most` where the map is of the very value that it takes: each cell counts as though it
    were the only one. The gradient would give all to the highest, though the next may be as high."""

    given: str

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        yield self.given, np.broadcast_to(gradient, values[self.given].shape[1:])


@dataclass(frozen=True)
class Padded(Step):
    """``amounts`` before and after the rows, before and after the columns."""

    given: str
    amounts: tuple[int, int, int, int]

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        top, bottom, left, right = self.amounts
        _, rows, columns = gradient.shape
        yield self.given, gradient[:, top : rows - bottom, left : columns - right]


@dataclass(frozen=True)
class Conv(Step):
    """``kernel`` is rows × columns × groups × in × out, in and out within a group."""

    given: str
    kernel: np.ndarray
    window: Window

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        shape = values[self.given].shape[1:]
        rows, columns = gradient.shape[1:]
        groups, given, out = self.kernel.shape[2:]
        flat = gradient.reshape(groups, out, rows * columns)
        padded = _padding(np.zeros(shape, np.float32), self.window, 0)
        for place, part in _parts(padded, self.window, rows, columns):
            kernel = self.kernel[place]
            found = kernel * flat if given == out == 1 else kernel @ flat
            part += found.reshape(part.shape)
        yield self.given, _without_padding(padded, self.window, shape)


@dataclass(frozen=True)
class MaxPool(Step):
    """Windows' maxima. Where several cells of a window have it they share it."""

    given: str
    window: Window

    @property
    def values(self) -> tuple[str, ...]:
        return (self.given,)

    def back(self, gradient: np.ndarray, values: Values) -> Gradients:
        value = values[self.given][0]
        padded = _padding(value, self.window, -np.inf)
        out = np.zeros_like(padded)
        parts, taken = ([p for _, p in _parts(a, self.window, *gradient.shape[1:])] for a in (padded, out))
        most = np.maximum.reduce(parts)
        winners = [part == most for part in parts]
        shared = gradient / np.add.reduce(winners, dtype=np.float32)
        for place, winner in zip(taken, winners, strict=True):
            place += shared * winner
        yield self.given, _without_padding(out, self.window, value.shape)


def _padding(value: np.ndarray, window: Window, filling: float) -> np.ndarray:
    pads = ((0, 0), *zip(window.before, window.after, strict=True))
    return np.pad(value, pads, constant_values=filling)


def _without_padding(value: np.ndarray, window: Window, shape: tuple[int, ...]) -> np.ndarray:
    (top, left), (_, rows, columns) = window.before, shape
    return value[:, top : top + rows, left : left + columns]


def _parts(padded: np.ndarray, window: Window, rows: int, columns: int) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """((row, column) of a kernel, the view of all that stands there in ``rows`` × ``columns`` windows)."""
    (down, right), (far, wide) = window.stride, window.dilation
    for i in range(window.size[0]):
        for j in range(window.size[1]):
            top, left = i * far, j * wide
            yield (i, j), padded[:, top : top + down * rows : down, left : left + right * columns : right]


# ---- from nodes ------------------------------------------------------------------------------------------------------

GLOBAL = frozenset(("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"))
SHAPES = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"))
_ONE = np.ones(1, np.float32)
FLAT = SHAPES | frozenset((
    "Add", "BatchNormalization", "Clip", "Conv", "Div", "Erf", "Gemm", "HardSigmoid", "HardSwish",
    "LayerNormalization", "MatMul", "Mul", "Relu", "Sigmoid", "Sub", "Tanh",
))  # fmt: skip


def pools(node: Node) -> bool:
    """Whether the operator leaves nothing of all rows and columns but a mean or a maximum."""
    if node.operator.startswith("Reduce"):
        return node.operator in GLOBAL and sorted(axis % 4 for axis in node.wholes("axes")) == [2, 3]
    return node.operator in GLOBAL


def flattens(node: Node, graph: Nodes) -> bool:
    """Whether the operator makes one row of numbers of each picture's."""
    if node.operator == "Reshape":
        shape = graph.weight(node.inputs[1]) if len(node.inputs) == 2 else None
        return shape is not None and shape.shape == (2,)
    return node.operator == "Flatten" and node.whole("axis", 1) == 1


def step(node: Node, graph: Nodes, flat: Container[str]) -> Step | None:
    """The operator backwards; None where it is none of those known here. ``flat`` are the values that have no rows and
    columns."""
    given = node.inputs[0] if node.inputs else ""
    if pools(node):
        return Mean(given) if node.operator in ("GlobalAveragePool", "ReduceMean") else Most(given)
    match node.operator:
        case operator if operator in SHAPES and given in flat:
            return Scaled(((given, _ONE),))
        case "Transpose":
            perm = node.wholes("perm")
            fits = sorted(perm) == [0, 1, 2, 3] and perm[0] == 0
            return Moved(given, tuple(axis - 1 for axis in perm[1:])) if fits else None
        case "Flatten" | "Reshape":
            return Moved(given) if flattens(node, graph) else None
        case "Gemm" | "MatMul":
            return _dense(node, graph)
        case "Conv":
            return _conv(node, graph)
        case "MaxPool":
            found = window(node, graph)
            return MaxPool(given, found) if found and found.dilation == (1, 1) else None
        case "Pad":
            amounts = padding(node, graph)
            return Padded(given, amounts) if amounts else None
        case "BatchNormalization":
            gamma, variance = (graph.weight(node.inputs[i]) for i in (1, 4))
            if gamma is None or variance is None:
                return None
            return Scaled(((given, gamma / np.sqrt(variance + np.float32(node.real("epsilon", 1e-5)))),))
        case "LayerNormalization":
            scale = graph.weight(node.inputs[1]) if given in flat else None
            return None if scale is None else LayerNorm(given, scale, node.real("epsilon", 1e-5))
        case "Add" | "Sub" | "Mul" | "Div":
            return _binary(node, graph, node.outputs[0] in flat)
    slope = _slope(node, graph)
    return Curve(given, slope) if slope else None


def _dense(node: Node, graph: Nodes) -> Step | None:
    given, matrix = node.inputs[0], graph.weight(node.inputs[1])
    if matrix is None or matrix.ndim != 2 or graph.constant(given) or node.whole("transA", 0):
        return None
    alpha = node.real("alpha", 1)
    matrix = matrix if alpha == 1 else matrix * np.float32(alpha)
    return Dense(given, matrix.T if node.whole("transB", 0) else matrix)


def _conv(node: Node, graph: Nodes) -> Step | None:
    kernel, found, groups = graph.weight(node.inputs[1]), window(node, graph), node.whole("group", 1)
    if kernel is None or found is None or kernel.ndim != 4 or kernel.shape[2:] != found.size:
        return None
    if groups < 1 or len(kernel) % groups:
        return None
    parts = kernel.reshape(groups, -1, *kernel.shape[1:])
    return Conv(node.inputs[0], np.ascontiguousarray(parts.transpose(3, 4, 0, 2, 1)), found)


def _binary(node: Node, graph: Nodes, flat: bool) -> Step | None:
    one, other = node.inputs
    signs = _ONE, -_ONE if node.operator == "Sub" else _ONE
    if not graph.constant(one) and not graph.constant(other):
        if node.operator in ("Add", "Sub"):
            return Scaled(((one, signs[0]), (other, signs[1])))
        return Product(one, other) if node.operator == "Mul" else None
    first = graph.constant(one)
    given, constant = (other, graph.weight(one)) if first else (one, graph.weight(other))
    if constant is None or graph.constant(given) or not (flat or _of_channels(constant)):
        return None
    match node.operator:
        case "Add" | "Sub":
            return Scaled(((given, signs[first]),))
        case "Mul":
            return Scaled(((given, constant),))
    return None if first else Scaled(((given, 1 / constant),))


def _of_channels(constant: np.ndarray) -> bool:
    """One number, or one for each channel of N×channels×rows×columns."""
    return constant.size == 1 or (constant.ndim in (3, 4) and constant.shape[-2:] == (1, 1))


def _slope(node: Node, graph: Nodes) -> Callable[[np.ndarray], np.ndarray] | None:
    match node.operator:
        case "Relu":
            return lambda x: x > 0
        case "Sigmoid":
            return lambda x: 0.25 / np.cosh(np.clip(x, -80, 80) / 2) ** 2
        case "Tanh":
            return lambda x: 1 - np.tanh(x) ** 2
        case "Erf":
            return lambda x: 2 / math.sqrt(math.pi) * np.exp(-np.square(x))
        case "HardSwish":
            return lambda x: np.where(np.abs(x) < 3, x / 3 + 0.5, x > 0)
        case "HardSigmoid":
            alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)
            return lambda x: alpha * (np.abs(2 * (alpha * x + beta) - 1) < 1)
        case "Clip":
            ends = [graph.weight(name) if name else None for name in (*node.inputs[1:], "", "")[:2]]
            if any(end is None and name for end, name in zip(ends, node.inputs[1:], strict=False)):
                return None
            low, high = (end if end is not None else limit for end, limit in zip(ends, (-np.inf, np.inf), strict=True))
            return lambda x: (x > low) & (x < high)
    return None
