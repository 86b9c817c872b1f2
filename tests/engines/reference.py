"""A training step in NumPy, float64: slow, plain, independent of every framework.

Each layer gives its output and a function from the gradient of that to the gradient of its input. Only the update rules
are tenfold's own (``engines/rules.py``); ``test_rules.py`` compares those with PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tenfold.architecture import layers as l
from tenfold.architecture.layers import Architecture
from tenfold.architecture.weights import layer_name
from tenfold.engines import rules
from tenfold.engines.groups import groups
from tenfold.engines.schedule import plan
from tenfold.recipe import Recipe

Weights = dict[str, np.ndarray]
Back = Callable[[np.ndarray], np.ndarray]


class NumPy:
    """Arrays for the update rules; kernels are filters first."""

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(len(kernel), -1)

    def kernel(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        return matrix.reshape(like.shape)

    def transpose(self, matrix: np.ndarray) -> np.ndarray:
        return matrix.T

    def total(self, array: np.ndarray) -> np.ndarray:
        return array.sum()


def first_step(
    recipe: Recipe, architecture: Architecture, first: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray
) -> tuple[float, Weights]:
    """(mean loss, weights after the step) of one step from ``first`` on uint8 B×H×W×3, without augmentation, dropout
    or anything else that is not in the network, the optimizer and batch norm's parts."""
    weights = {n: a.astype(np.float64) for n, a in first.items()}
    steps = plan(recipe, len(images))
    tape = Tape(weights, steps.parts)
    logits, back = tape.sequence(architecture.layers, "", images.astype(np.float64))
    shifted = logits - logits.max(1, keepdims=True)
    chances = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    hot = np.eye(architecture.classes)[labels]
    back((np.exp(chances) - hot) / len(images))
    after = {**weights, **tape.statistics}
    for group in groups(recipe, architecture, steps):
        now = rules.scalars(group, recipe, 0.0, 0)
        for name in group.names:
            held = {kind: np.zeros_like(weights[name]) for kind in rules.buffers(group, recipe.optimizer)}
            after[name], _ = rules.update(
                group, recipe.optimizer, weights[name], tape.gradients[name], held, now, NumPy()
            )
    return float(-(hot * chances).sum() / len(images)), after


@dataclass
class Tape:
    """The forward pass; the functions it gives fill ``gradients`` in. Batch norm takes statistics over ``parts``."""

    weights: Weights
    parts: int = 1
    gradients: Weights = field(default_factory=dict)
    statistics: Weights = field(default_factory=dict)

    def sequence(self, layers: tuple[l.Layer, ...], prefix: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
        backs: list[Back] = []
        for index, layer in enumerate(layers):
            x, back = self.layer(layer, prefix + layer_name(index, layer), x)
            backs.append(back)

        def backward(gradient: np.ndarray) -> np.ndarray:
            for step in reversed(backs):
                gradient = step(gradient)
            return gradient

        return x, backward

    def layer(self, layer: l.Layer, name: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
        match layer:
            case l.Residual():
                body, into_body = self.sequence(layer.body, f"{name}.body.", x)
                shortcut, into_shortcut = self.sequence(layer.shortcut, f"{name}.shortcut.", x)
                return body + shortcut, lambda g: into_body(g) + into_shortcut(g)
            case l.Normalize():
                x = (x / 255 - self.weights[f"{name}.mean"]) / self.weights[f"{name}.std"]
                return x.transpose(0, 3, 1, 2), lambda g: g
            case l.Conv():
                return self._conv(layer, name, x)
            case l.Dense():
                return self._dense(layer, name, x)
            case l.BatchNorm():
                return self._norm(layer, name, x)
            case l.Activation():
                slope = _slope(layer.function, x)
                return _activated(layer.function, x), lambda g: g * slope
            case l.Pool():
                return _pool(layer, x)
            case l.GlobalPool(function="max"):
                share = (x == x.max((2, 3), keepdims=True)).astype(np.float64)
                share /= share.sum((2, 3), keepdims=True)
                return x.max((2, 3)), lambda g: g[:, :, None, None] * share
            case l.GlobalPool():
                each = np.full_like(x, 1 / (x.shape[2] * x.shape[3]))
                return x.mean((2, 3)), lambda g: g[:, :, None, None] * each
            case l.Flatten():
                shape = x.shape
                return x.reshape(len(x), -1), lambda g: g.reshape(shape)
            case l.Scale():
                return x * layer.factor, lambda g: g * layer.factor
            case l.Dropout(rate=0):
                return x, lambda g: g
        raise AssertionError(f"the reference does not know {layer}")

    def _conv(self, layer: l.Conv, name: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
        kernel, stride, edge = self.weights[f"{name}.kernel"], layer.stride, layer.padding
        padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        views = _windows(padded, layer.kernel, stride)
        out = np.einsum("nchwij,ocij->nohw", views, kernel, optimize=True)
        if layer.bias:
            out = out + self.weights[f"{name}.bias"][:, None, None]

        def backward(g: np.ndarray) -> np.ndarray:
            self.gradients[f"{name}.kernel"] = np.einsum("nchwij,nohw->ocij", views, g, optimize=True)
            if layer.bias:
                self.gradients[f"{name}.bias"] = g.sum((0, 2, 3))
            into = np.zeros_like(padded)
            for i, j in np.ndindex(layer.kernel, layer.kernel):
                _window(into, i, j, stride, g.shape)[...] += np.einsum("nohw,oc->nchw", g, kernel[:, :, i, j])
            return into[:, :, edge : edge + x.shape[2], edge : edge + x.shape[3]]

        return out, backward

    def _dense(self, layer: l.Dense, name: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
        kernel = self.weights[f"{name}.kernel"]

        def backward(g: np.ndarray) -> np.ndarray:
            self.gradients[f"{name}.kernel"] = g.T @ x
            if layer.bias:
                self.gradients[f"{name}.bias"] = g.sum(0)
            return g @ kernel

        return x @ kernel.T + (self.weights[f"{name}.bias"] if layer.bias else 0), backward

    def _norm(self, layer: l.BatchNorm, name: str, x: np.ndarray) -> tuple[np.ndarray, Back]:
        """Each part by itself; the running variance is the unbiased one, and what the parts arrive at is averaged."""
        column = (slice(None), *([None] * (x.ndim - 2)))
        axes = (0, *range(2, x.ndim))
        gamma = self.weights[f"{name}.gamma"][column] if layer.scale else 1.0
        beta = self.weights[f"{name}.beta"][column] if layer.center else 0.0
        normal, roots, means, variances = [], [], [], []
        for part in np.array_split(x, self.parts):
            mean, variance = part.mean(axes, keepdims=True), part.var(axes, keepdims=True)
            roots.append(np.sqrt(variance + layer.eps))
            normal.append((part - mean) / roots[-1])
            count = part.size / part.shape[1]
            means.append(mean.ravel())
            variances.append(variance.ravel() * count / (count - 1))
        for kind, found in (("mean", means), ("variance", variances)):
            before = self.weights[f"{name}.{kind}"]
            self.statistics[f"{name}.{kind}"] = layer.momentum * before + (1 - layer.momentum) * np.mean(found, 0)

        def backward(g: np.ndarray) -> np.ndarray:
            if layer.scale:
                self.gradients[f"{name}.gamma"] = (g * np.concatenate(normal)).sum(axes)
            if layer.center:
                self.gradients[f"{name}.beta"] = g.sum(axes)
            out = []
            for part, unit, root in zip(np.array_split(g * gamma, self.parts), normal, roots, strict=True):
                through = part.mean(axes, keepdims=True) + unit * (part * unit).mean(axes, keepdims=True)
                out.append((part - through) / root)
            return np.concatenate(out)

        return np.concatenate(normal) * gamma + beta, backward


def _windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def _window(x: np.ndarray, i: int, j: int, stride: int, shape: tuple[int, ...]) -> np.ndarray:
    """What position (i, j) of the windows sees, for an output of ``shape``."""
    return x[:, :, i : i + stride * shape[2] : stride, j : j + stride * shape[3] : stride][:, :, : shape[2], : shape[3]]


def _pool(layer: l.Pool, x: np.ndarray) -> tuple[np.ndarray, Back]:
    views = _windows(x, layer.size, layer.stride)
    out = views.max((4, 5)) if layer.function == "max" else views.mean((4, 5))
    chosen = views.reshape(*views.shape[:4], -1).argmax(-1)

    def backward(g: np.ndarray) -> np.ndarray:
        into = np.zeros_like(x)
        for i, j in np.ndindex(layer.size, layer.size):
            share = chosen == i * layer.size + j if layer.function == "max" else 1 / layer.size**2
            _window(into, i, j, layer.stride, g.shape)[...] += g * share
        return into

    return out, backward


_erf: Any = np.vectorize(math.erf)


def _activated(function: str, x: np.ndarray) -> np.ndarray:
    if function == "relu":
        return np.maximum(x, 0)
    return x * (_normal_share(x) if function == "gelu" else 1 / (1 + np.exp(-x)))


def _slope(function: str, x: np.ndarray) -> np.ndarray:
    if function == "relu":
        return (x > 0).astype(np.float64)
    if function == "gelu":
        return _normal_share(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    share = 1 / (1 + np.exp(-x))
    return share * (1 + x * (1 - share))


def _normal_share(x: np.ndarray) -> np.ndarray:
    return (1 + _erf(x / math.sqrt(2))) / 2
