"""Layers that Keras spells otherwise than PyTorch and ONNX do."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tenfold.engines.keras.framework import chosen

Array = Any


class Normalize(keras.layers.Layer):
    """Pixels N×H×W×3 on the scale 0 to 255 to ``(pixel / 255 - mean) / std``, in the network's precision."""

    def build(self, shape: Any) -> None:
        def weight(name: str, initializer: str) -> Any:
            return self.add_weight((3,), initializer, "float32", trainable=False, autocast=False, name=name)

        self.mean, self.std = weight("mean", "zeros"), weight("std", "ones")

    def call(self, x: Array) -> Array:
        mean, std = self.mean.value, self.std.value
        x = ops.cast(x, "float32") * (1 / (255 * std)) - mean / std
        return ops.cast(x, self.compute_dtype)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, self.compute_dtype)


class Conv(keras.layers.Conv2D):
    """As Keras's, computed by the way that is fastest on the device."""

    def convolution_op(self, inputs: Array, kernel: Array) -> Array:
        kernel = kernel.value if isinstance(kernel, keras.Variable) else kernel
        return chosen().conv(inputs, kernel, self.strides[0], self.padding)


class BatchNorm(keras.layers.Layer):
    """Batch norm over all but the last axis; in training over each of ``parts`` parts of the batch by itself.

    The parts are those of ``torch.tensor_split``: of nearly equal size, the larger ones first. Running statistics move
    to those of the parts, averaged; the running variance is the unbiased one (N - 1), as PyTorch keeps it, and that is
    the rule of all engines. (Keras's own layer keeps the biased one, and takes the whole batch.) ``momentum`` is the
    share that is kept. Statistics are computed in float32 in any precision. Where the layer is not ``trainable`` it
    goes by those it has, in training too.
    """

    def __init__(self, momentum: float, eps: float, scale: bool, center: bool, parts: int, **more: Any) -> None:
        super().__init__(**more)
        self.momentum, self.eps, self.scale, self.center, self.parts = momentum, eps, scale, center, parts
        self._fused = chosen().fused(self._by_parts)

    def build(self, shape: Any) -> None:
        def weight(name: str, initializer: str, trainable: bool) -> Any:
            return self.add_weight((shape[-1],), initializer, "float32", trainable=trainable, autocast=False, name=name)

        self.gamma = weight("gamma", "ones", True) if self.scale else None
        self.beta = weight("beta", "zeros", True) if self.center else None
        self.mean = weight("mean", "zeros", False)
        self.variance = weight("variance", "ones", False)

    def call(self, x: Array, training: bool = False) -> Array:
        gamma = None if self.gamma is None else self.gamma.value
        beta = None if self.beta is None else self.beta.value
        if not training or not self.trainable:
            return self._normalized(x, self.mean.value, self.variance.value, gamma, beta)
        x, mean, variance = self._fused(x, gamma, beta)
        self.mean.assign(self.mean.value * self.momentum + mean * (1 - self.momentum))
        self.variance.assign(self.variance.value * self.momentum + variance * (1 - self.momentum))
        return x

    def _by_parts(self, x: Array, gamma: Array | None, beta: Array | None) -> tuple[Array, Array, Array]:
        """(x normalised, means, unbiased variances), the parts' statistics averaged."""
        if self.parts == 1:
            return self._by_own_statistics(x, 0, gamma, beta)
        if x.shape[0] % self.parts == 0:
            stacked = ops.reshape(x, (self.parts, x.shape[0] // self.parts, *x.shape[1:]))
            out, mean, variance = self._by_own_statistics(stacked, 1, gamma, beta)
            return ops.reshape(out, x.shape), ops.mean(mean, 0), ops.mean(variance, 0)
        done = [self._by_own_statistics(part, 0, gamma, beta) for part in _split(x, self.parts)]
        mean = sum(mean for _, mean, _ in done) / self.parts
        variance = sum(variance for _, _, variance in done) / self.parts
        return ops.concatenate([part for part, _, _ in done]), mean, variance

    def _by_own_statistics(
        self, x: Array, first: int, gamma: Array | None, beta: Array | None
    ) -> tuple[Array, Array, Array]:
        """The same over all axes from ``first`` on but the last."""
        axes = tuple(range(first, len(x.shape) - 1))
        wide = ops.cast(x, "float32")
        mean = ops.mean(wide, axes, keepdims=True)
        variance = ops.mean(ops.square(wide - mean), axes, keepdims=True)
        count = math.prod(x.shape[axis] for axis in axes)
        out = self._normalized(x, mean, variance, gamma, beta)
        return out, ops.squeeze(mean, axes), ops.squeeze(variance, axes) * (count / max(1, count - 1))

    def _normalized(self, x: Array, mean: Array, variance: Array, gamma: Array | None, beta: Array | None) -> Array:
        factor = ops.rsqrt(variance + self.eps)
        if gamma is not None:
            factor = factor * gamma
        offset = -mean * factor if beta is None else beta - mean * factor
        return ops.cast(ops.cast(x, "float32") * factor + offset, self.compute_dtype)

    def compute_output_spec(self, x: Any, training: bool = False) -> Any:
        return keras.KerasTensor(x.shape, self.compute_dtype)


class Activation(keras.layers.Layer):
    """``relu``, ``gelu`` (exact, by erf) or ``silu``, computed in float32."""

    def __init__(self, function: str, **more: Any) -> None:
        super().__init__(**more)
        self.function = function
        self._fused = chosen().fused(self._activated)

    def call(self, x: Array) -> Array:
        return ops.relu(x) if self.function == "relu" else self._fused(x)

    def _activated(self, x: Array) -> Array:
        wide = ops.cast(x, "float32")
        out = ops.gelu(wide, approximate=False) if self.function == "gelu" else ops.silu(wide)
        return ops.cast(out, self.compute_dtype)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, self.compute_dtype)


class MaxPool(keras.layers.Layer):
    """Windows side by side (stride = size); what doesn't fill one at the edge is dropped."""

    def __init__(self, size: int, **more: Any) -> None:
        super().__init__(**more)
        self.size = size

    def call(self, x: Array) -> Array:
        return chosen().max_pool(x, self.size)

    def compute_output_spec(self, x: Any) -> Any:
        count, height, width, channels = x.shape
        return keras.KerasTensor((count, height // self.size, width // self.size, channels), self.compute_dtype)


class Scale(keras.layers.Layer):
    def __init__(self, factor: float, **more: Any) -> None:
        super().__init__(**more)
        self.factor = factor

    def call(self, x: Array) -> Array:
        return x * self.factor


def _split(x: Array, parts: int) -> list[Array]:
    """As ``torch.tensor_split``."""
    least, more = divmod(x.shape[0], parts)
    out, at = [], 0
    for part in range(parts):
        size = least + (part < more)
        out.append(x[at : at + size])
        at += size
    return out
