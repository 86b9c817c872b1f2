"""Layers that Keras spells otherwise than PyTorch and ONNX do."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Array = Any


class Normalize(keras.layers.Layer):
    """Pixels N×H×W×3 on the scale 0 to 255 to ``(pixel / 255 - mean) / std``, in the network's precision."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(shape=(3,), initializer="zeros", trainable=False, name="mean", dtype="float32")
        self.std = self.add_weight(shape=(3,), initializer="ones", trainable=False, name="std", dtype="float32")

    def call(self, x: Array) -> Array:
        mean, std = _float32(self.mean), _float32(self.std)
        x = ops.cast(x, "float32") * (1 / (255 * std)) - mean / std
        return ops.cast(x, self.compute_dtype)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, self.compute_dtype)


class BatchNorm(keras.layers.Layer):
    """Batch norm over all but the last axis; in training over each of ``parts`` parts of the batch by itself.

    The parts are those of ``torch.tensor_split``: of nearly equal size, the larger ones first. Running statistics move
    to those of the parts, averaged; the running variance is the unbiased one (N - 1), as PyTorch keeps it, and that is
    the rule of all engines. (Keras's own layer keeps the biased one, and takes the whole batch.) ``momentum`` is the
    share that is kept. Statistics are computed in float32 in any precision.
    """

    def __init__(self, momentum: float, eps: float, scale: bool, center: bool, parts: int, **more: Any) -> None:
        super().__init__(**more)
        self.momentum, self.eps, self.scale, self.center, self.parts = momentum, eps, scale, center, parts
        self.gamma: Any = None
        self.beta: Any = None

    def build(self, shape: Any) -> None:
        def weight(name: str, initializer: str, trainable: bool) -> Any:
            return self.add_weight(
                shape=(shape[-1],), initializer=initializer, trainable=trainable, name=name, dtype="float32"
            )

        self.gamma = weight("gamma", "ones", True) if self.scale else None
        self.beta = weight("beta", "zeros", True) if self.center else None
        self.mean = weight("mean", "zeros", False)
        self.variance = weight("variance", "ones", False)

    def call(self, x: Array, training: bool = False) -> Array:
        if not training:
            return self._normalized(x, _float32(self.mean), _float32(self.variance))
        if self.parts == 1:
            x, mean, variance = self._by_own_statistics(x, 0)
        elif x.shape[0] % self.parts == 0:
            shape = x.shape
            x, mean, variance = self._by_own_statistics(ops.reshape(x, (self.parts, -1, *shape[1:])), 1)
            x, mean, variance = ops.reshape(x, shape), ops.mean(mean, 0), ops.mean(variance, 0)
        else:
            done = [self._by_own_statistics(part, 0) for part in _split(x, self.parts)]
            x = ops.concatenate([part for part, _, _ in done])
            mean = sum(mean for _, mean, _ in done) / self.parts
            variance = sum(variance for _, _, variance in done) / self.parts
        self.mean.assign(_float32(self.mean) * self.momentum + mean * (1 - self.momentum))
        self.variance.assign(_float32(self.variance) * self.momentum + variance * (1 - self.momentum))
        return x

    def _by_own_statistics(self, x: Array, first: int) -> tuple[Array, Array, Array]:
        """(x normalised, means, unbiased variances) over all axes from ``first`` on but the last."""
        axes = tuple(range(first, len(x.shape) - 1))
        wide = ops.cast(x, "float32")
        mean = ops.mean(wide, axes, keepdims=True)
        variance = ops.mean(ops.square(wide - mean), axes, keepdims=True)
        count = 1
        for axis in axes:
            count *= x.shape[axis]
        out = self._normalized(x, mean, variance)
        return out, ops.squeeze(mean, axes), ops.squeeze(variance, axes) * (count / max(1, count - 1))

    def _normalized(self, x: Array, mean: Array, variance: Array) -> Array:
        factor = ops.rsqrt(variance + self.eps)
        if self.gamma is not None:
            factor = factor * _float32(self.gamma)
        offset = -mean * factor
        if self.beta is not None:
            offset = offset + _float32(self.beta)
        return ops.cast(ops.cast(x, "float32") * factor + offset, self.compute_dtype)

    def compute_output_spec(self, x: Any, training: bool = False) -> Any:
        return keras.KerasTensor(x.shape, self.compute_dtype)


class Pool(keras.layers.Layer):
    """Windows side by side (stride = size); what doesn't fill one at the edge is dropped. The maximum of pieces is
    cheaper to differentiate than a sliding window's."""

    def __init__(self, function: str, size: int, **more: Any) -> None:
        super().__init__(**more)
        self.function, self.size = function, size

    def call(self, x: Array) -> Array:
        _, height, width, channels = x.shape
        rows, columns = height // self.size, width // self.size
        x = x[:, : rows * self.size, : columns * self.size]
        x = ops.reshape(x, (-1, rows, self.size, columns, self.size, channels))
        return ops.max(x, (2, 4)) if self.function == "max" else ops.mean(x, (2, 4))


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


def _float32(variable: Any) -> Array:
    return ops.convert_to_tensor(variable, "float32")
