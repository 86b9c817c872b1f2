"""An architecture as a function of tinygrad tensors.

Pictures are N×C×H×W and kernels out×in×rows×columns, as canonical weights have them. A network is no object here: its
weights are a dict of tensors by canonical name, and :func:`forward` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tinygrad import Tensor, dtypes

from tenfold.architecture.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    Normalize,
    Pool,
    Residual,
    Scale,
)
from tenfold.architecture.weights import layer_name
from tenfold.engines.tinygrad.conv import conv

Weights = Mapping[str, Tensor]


@dataclass
class Training:
    """What a pass in training needs beside the weights, and what it leaves.

    parts       parts of the batch over which batch norm takes its statistics, split as ``torch.tensor_split`` does
    seed        uint32, 0-dim: of this step's dropout
    statistics  batch norm's running means and variances after the step, by canonical name
    """

    parts: int
    seed: Tensor
    statistics: dict[str, Tensor] = field(default_factory=dict)
    dropouts: int = 0


def forward(
    layers: Sequence[Layer], weights: Weights, x: Tensor, training: Training | None = None, prefix: str = ""
) -> Tensor:
    """Logits N×classes of pictures: uint8 N×H×W×3, or float32 N×3×H×W on the scale 0 to 255 as augmentation gives."""
    for index, layer in enumerate(layers):
        name = prefix + layer_name(index, layer)
        if isinstance(layer, Residual):
            body = forward(layer.body, weights, x, training, f"{name}.body.")
            x = body + forward(layer.shortcut, weights, x, training, f"{name}.shortcut.")
        else:
            x = _layer(layer, name, weights, x, training)
    return x


def _layer(layer: Layer, name: str, weights: Weights, x: Tensor, training: Training | None) -> Tensor:
    match layer:
        case Normalize():
            return _normalize(x, weights[f"{name}.mean"], weights[f"{name}.std"])
        case Conv():
            return conv(x, weights[f"{name}.kernel"], weights.get(f"{name}.bias"), layer.stride, layer.padding)
        case BatchNorm():
            return _batch_norm(layer, name, weights, x, training)
        case Activation():
            return _activation(layer, x)
        case Pool():
            size = (layer.size, layer.size)
            pooled = x.max_pool2d(size, layer.stride) if layer.function == "max" else x.avg_pool2d(size, layer.stride)
            assert isinstance(pooled, Tensor)  # places of the maxima, which max_pool2d can give too, were not asked for
            return pooled
        case GlobalPool():
            return x.max((2, 3)) if layer.function == "max" else x.mean((2, 3))
        case Dropout():
            return x if training is None else _dropout(x, layer.rate, training)
        case Flatten():
            return x.flatten(1)
        case Dense():
            x = x @ weights[f"{name}.kernel"].transpose()
            return x + weights[f"{name}.bias"] if layer.bias else x
        case Scale():
            return x * layer.factor
    raise TypeError(f"no tinygrad function for {layer!r}")


def _normalize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if x.dtype == dtypes.uint8:
        x = x.permute(0, 3, 1, 2).cast(dtypes.float32)
    scale = 1 / (255 * std)
    return x * scale.reshape(1, 3, 1, 1) - (mean / std).reshape(1, 3, 1, 1)


def _activation(layer: Activation, x: Tensor) -> Tensor:
    if layer.function == "relu":
        return x.relu()
    if layer.function == "silu":
        return x * x.sigmoid()
    return 0.5 * x * (1 + (x * math.sqrt(0.5)).erf())  # tinygrad's own gelu is the one by tanh


def _batch_norm(layer: BatchNorm, name: str, weights: Weights, x: Tensor, training: Training | None) -> Tensor:
    shape = (1, -1, *([1] * (x.ndim - 2)))
    running = weights[f"{name}.mean"], weights[f"{name}.variance"]
    if training is None:
        out = (x - running[0].reshape(shape)) * (running[1] + layer.eps).rsqrt().reshape(shape)
    else:
        out, found = _by_batch(x, layer.eps, training.parts)
        for part, before, now in zip(("mean", "variance"), running, found, strict=True):
            after = layer.momentum * before + (1 - layer.momentum) * now.detach()
            training.statistics[f"{name}.{part}"] = after
    if layer.scale:
        out = out * weights[f"{name}.gamma"].reshape(shape)
    return out + weights[f"{name}.beta"].reshape(shape) if layer.center else out


def _by_batch(x: Tensor, eps: float, parts: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """``x`` normalised by its own statistics, each part of the batch by its own; and the mean over the parts of their
    means and unbiased variances, as PyTorch keeps them."""
    small, larger = divmod(int(x.shape[0]), parts)
    out, means, variances = [], [], []
    start = 0
    for number, size in ((larger, small + 1), (parts - larger, small)):
        if not number or not size:
            continue
        grouped = x[start : start + number * size].reshape(number, size, *x.shape[1:])
        start += number * size
        axes = (1, *range(3, grouped.ndim))
        count = math.prod(int(grouped.shape[a]) for a in axes)
        mean = grouped.mean(axes, keepdim=True)
        centred = grouped - mean
        variance = (centred * centred).mean(axes, keepdim=True)
        out.append((centred * (variance + eps).rsqrt()).reshape(number * size, *x.shape[1:]))
        means.append(mean.reshape(number, -1).sum(0))
        variances.append(variance.reshape(number, -1).sum(0) * (count / max(1, count - 1)))
    whole = out[0] if len(out) == 1 else out[0].cat(*out[1:])
    return whole, (sum(means[1:], means[0]) / parts, sum(variances[1:], variances[0]) / parts)


def _dropout(x: Tensor, rate: float, training: Training) -> Tensor:
    """Values kept by a hash of their position, the step's seed and which dropout layer it is: computed where they are
    used, so no mask is stored or sent."""
    training.dropouts += 1
    at = Tensor.arange(math.prod(int(d) for d in x.shape), dtype=dtypes.uint32).reshape(x.shape)
    bits = _mixed(at + _mixed(training.seed + training.dropouts))
    keep = bits >= round(rate * 2**32)
    return keep.where(x / (1 - rate), 0)


def _mixed(bits: Tensor) -> Tensor:
    """A permutation of 32-bit words in which every bit of the word decides on every bit of the result (C. Wellons 2018,
    "lowbias32")."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = (bits ^ (bits // (1 << shift))) * factor
    return bits ^ (bits // (1 << 16))
