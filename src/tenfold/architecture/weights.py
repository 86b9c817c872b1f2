"""The weights of an architecture: names, shapes, dtypes and first values, all from the architecture alone.

A weight is called ``<index>_<kind>.<part>``: ``03_conv.kernel``, inside a residual ``07_residual.body.00_conv.kernel``.
In a network of another library the rest is that library's own name: ``01_external.layer1.0.conv1.weight``.
All are float32. Layouts are PyTorch's and ONNX's: a convolution's kernel is out×in×rows×columns, a dense kernel out×in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from tenfold.architecture.layers import (
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    External,
    Flatten,
    GlobalPool,
    Layer,
    Normalize,
    Pool,
    Residual,
)
from tenfold.errors import BundleError

Role = Literal["trained", "frozen", "statistic"]
Shape = tuple[int, ...]

MAX_WEIGHTS = 2_000_000_000


@dataclass(frozen=True)
class WeightSpec:
    """Shape and role of one weight: ``trained`` by the optimizer, ``frozen`` from the start, or a ``statistic``
    (batch norm's running mean and variance, the pixels' mean and deviation)."""

    shape: Shape
    role: Role
    counted: bool = True


def layer_name(index: int, layer: Layer) -> str:
    return f"{index:02d}_{layer.kind}"


def walk(architecture: Architecture) -> Iterator[tuple[str, Layer, Shape, Shape]]:
    """Every layer inside and outside residuals as (name, layer, shape in, shape out); a shape is (C, H, W) or (C,)."""
    yield from _walk(architecture.layers, "", (3, architecture.height, architecture.width))


def _walk(layers: tuple[Layer, ...], prefix: str, shape: Shape) -> Iterator[tuple[str, Layer, Shape, Shape]]:
    for index, layer in enumerate(layers):
        name = prefix + layer_name(index, layer)
        if isinstance(layer, Residual):
            ends = []
            for part, body in (("body", layer.body), ("shortcut", layer.shortcut)):
                end = shape
                for row in _walk(body, f"{name}.{part}.", shape):
                    # rows of nested residuals report their inner shapes; the last one at this level is the end
                    end = row[3]
                    yield row
                ends.append(end)
            if ends[0] != ends[1]:
                raise BundleError(f"{name}: body gives {ends[0]}, shortcut {ends[1]}.")
            shape = ends[0]
        else:
            after = shape_after(layer, shape, name)
            yield name, layer, shape, after
            shape = after


def shape_after(layer: Layer, shape: Shape, name: str) -> Shape:
    """The shape that a layer (not a Residual) gives for ``shape``; BundleError, naming it, where it doesn't fit."""
    spatial = len(shape) == 3
    if isinstance(layer, Conv | Pool | GlobalPool | External) and not spatial:
        raise BundleError(f"{name} needs a picture, but the layer before gives {shape}.")
    if isinstance(layer, Conv):
        rows, columns = ((d + 2 * layer.padding - layer.kernel) // layer.stride + 1 for d in shape[1:])
        after: Shape = (layer.filters, rows, columns)
    elif isinstance(layer, Pool):
        rows, columns = ((d - layer.size) // layer.stride + 1 for d in shape[1:])
        after = (shape[0], rows, columns)
    elif isinstance(layer, GlobalPool):
        after = shape[:1]
    elif isinstance(layer, Flatten):
        after = (math.prod(shape),)
    elif isinstance(layer, External):
        after = (layer.units,)
    elif isinstance(layer, Dense):
        if spatial:
            raise BundleError(f"{name} needs features: put Flatten or GlobalPool before it.")
        after = (layer.units,)
    else:
        after = shape
    if min(after) < 1:
        raise BundleError(
            f"{name}: a picture of {shape[1]}×{shape[2]} is too small for it.",
            "Use a larger image size, e.g. --set data.size=32.",
        )
    return after


def output_shapes(architecture: Architecture) -> list[tuple[str, Shape]]:
    """(name, shape out) of each layer, the architecture checked on the way.

    Raises BundleError where layers don't fit together, the first isn't Normalize, or the last doesn't give the classes.
    """
    if not architecture.layers or not isinstance(architecture.layers[0], Normalize):
        raise BundleError("An architecture's first layer must be Normalize.")
    if any(isinstance(layer, Normalize) for layer in architecture.layers[1:]):
        raise BundleError("An architecture has one Normalize, its first layer.")
    found = list(walk(architecture))
    if len(found) != 2 and any(isinstance(layer, External) for _, layer, _, _ in found):
        raise BundleError("Another library's network stands alone after Normalize.")
    rows = [(name, after) for name, _, _, after in found]
    if rows[-1][1] != (architecture.classes,):
        raise BundleError(f"The network gives {rows[-1][1]}, not {architecture.classes} logits.")
    return rows


def specs(architecture: Architecture) -> dict[str, WeightSpec]:
    """Every weight's specification by its canonical name, in the network's order."""
    out: dict[str, WeightSpec] = {}
    for name, layer, before, _ in walk(architecture):
        for part, spec in _layer_specs(layer, before):
            out[f"{name}.{part}"] = spec
    if sum(math.prod(s.shape) for s in out.values()) > MAX_WEIGHTS:
        raise BundleError(f"The architecture has more than {MAX_WEIGHTS:,} weights.")
    return out


def _layer_specs(layer: Layer, before: Shape) -> Iterator[tuple[str, WeightSpec]]:
    if isinstance(layer, Normalize):
        yield "mean", WeightSpec((3,), "statistic", counted=False)
        yield "std", WeightSpec((3,), "statistic", counted=False)
    elif isinstance(layer, Conv):
        shape = (layer.filters, before[0], layer.kernel, layer.kernel)
        yield "kernel", WeightSpec(shape, "frozen" if layer.frozen else "trained")
        if layer.bias:
            yield "bias", WeightSpec((layer.filters,), "trained")
    elif isinstance(layer, BatchNorm):
        if layer.scale:
            yield "gamma", WeightSpec((before[0],), "trained")
        if layer.center:
            yield "beta", WeightSpec((before[0],), "trained")
        yield "mean", WeightSpec((before[0],), "statistic")
        yield "variance", WeightSpec((before[0],), "statistic")
    elif isinstance(layer, Dense):
        yield "kernel", WeightSpec((layer.units, before[0]), "trained")
        if layer.bias:
            yield "bias", WeightSpec((layer.units,), "trained")
    elif isinstance(layer, External):
        for native, own, role in layer.weights:
            yield native, WeightSpec(own, cast(Role, role))


def count(architecture: Architecture) -> int:
    """Parameters as such figures are given: everything trained or frozen and batch norm's statistics, but not the
    pixels' mean and deviation."""
    return sum(math.prod(s.shape) for s in specs(architecture).values() if s.counted)


def check(architecture: Architecture, weights: Mapping[str, np.ndarray]) -> None:
    """Raises BundleError naming the first weight that is missing, unknown, of another shape or dtype, or not finite."""
    wanted = specs(architecture)
    for name in weights:
        if name not in wanted:
            raise BundleError(f"Weight {name!r} does not belong to the architecture {architecture.name}.")
    for name, spec in wanted.items():
        if name not in weights:
            raise BundleError(f"Weight {name!r} is missing.")
        value = weights[name]
        if value.dtype != np.float32 or value.shape != spec.shape:
            raise BundleError(f"Weight {name!r} is {value.dtype} {value.shape}, not float32 {spec.shape}.")
        if not np.isfinite(value).all():
            raise BundleError(f"Weight {name!r} holds numbers that are not finite.")


def initial(architecture: Architecture, seed: int, images: np.ndarray) -> dict[str, np.ndarray]:
    """First weights from a seed and the training images (uint8 N×H×W×3), the same for every engine. Those of another
    library's network are its engine's to give (``engines/external.py``).

    Each weight has a random stream of its own, (seed, its position), so adding a layer leaves the others as they were.
    """
    sample = _sample(images)
    mean, std = mean_and_std(sample)
    out: dict[str, np.ndarray] = {}
    for name, layer, before, _ in walk(architecture):
        if isinstance(layer, External):
            raise TypeError(f"the first weights of {architecture.name} are its engine's to give")
        for part, spec in _layer_specs(layer, before):
            rng = np.random.default_rng([seed, len(out)])
            if isinstance(layer, Normalize):
                value = mean if part == "mean" else std
            elif part == "kernel" and isinstance(layer, Conv) and layer.init == "whiten":
                value = whitening(sample, mean, std, layer.filters, layer.kernel)
            elif part == "kernel" and isinstance(layer, Conv | Dense):
                value = _kernel(rng, spec.shape, layer.init)
            elif part == "bias" and isinstance(layer, Dense | Conv):
                value = _bias(rng, spec.shape, before, layer)
            else:
                value = (np.ones if part in ("gamma", "variance") else np.zeros)(spec.shape)
            out[f"{name}.{part}"] = np.ascontiguousarray(value, np.float32)
    return out


def _sample(images: np.ndarray, limit: int = 5000) -> np.ndarray:
    """Up to ``limit`` images, spread evenly over the split."""
    if len(images) <= limit:
        return np.asarray(images)
    return np.asarray(images[np.linspace(0, len(images) - 1, limit).astype(np.int64)])


def mean_and_std(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 means and standard deviations of the three colours of uint8 images N×H×W×3, on the scale 0 to 1.

    Their sums are exact integers, a few images at a time: what ``mean`` and ``std`` give, in a fraction of the time.
    """
    total, squares = np.zeros(3, np.uint64), np.zeros(3, np.uint64)
    for start in range(0, len(images), 256):  # 256 · 255² fits 32 bits
        part = images[start : start + 256]
        total += part.sum(0, dtype=np.uint32).sum((0, 1), dtype=np.uint64)
        square = np.multiply(part, part, dtype=np.uint16)
        squares += square.sum(0, dtype=np.uint32).sum((0, 1), dtype=np.uint64)
    count = images.size / 3
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    least = np.float32(1 / 255)  # one-coloured pictures
    return (mean / 255).astype(np.float32), np.maximum((std / 255).astype(np.float32), least)


def _kernel(rng: np.random.Generator, shape: Shape, init: str) -> np.ndarray:
    fan_in = math.prod(shape[1:])
    fan_out = shape[0] * math.prod(shape[2:])
    if init == "he":
        return rng.normal(0, math.sqrt(2 / fan_in), shape)
    if init == "glorot":
        bound = math.sqrt(6 / (fan_in + fan_out))
        return rng.uniform(-bound, bound, shape)
    if init in ("zeros", "ones"):
        return np.full(shape, float(init == "ones"))
    value = rng.uniform(-1, 1, shape) / math.sqrt(fan_in)  # PyTorch's default: kaiming uniform with a = √5
    if init == "dirac":
        channels = min(shape[0], shape[1])
        value[:channels] = 0
        value[np.arange(channels), np.arange(channels), shape[2] // 2, shape[3] // 2] = 1
    return value


def _bias(rng: np.random.Generator, shape: Shape, before: Shape, layer: Conv | Dense) -> np.ndarray:
    if layer.init != "torch":
        return np.zeros(shape)
    fan_in = before[0] * (layer.kernel**2 if isinstance(layer, Conv) else 1)
    return rng.uniform(-1, 1, shape) / math.sqrt(fan_in)


def whitening(
    images: np.ndarray, mean: np.ndarray, std: np.ndarray, filters: int, size: int, eps: float = 5e-4
) -> np.ndarray:
    """Kernels that whiten the images' ``size`` × ``size`` patches: float64 ``filters``×3×size×size.

    The eigenvectors of the patches' covariance, largest eigenvalue first, each over its eigenvalue's root, and then
    their negatives (D. Page, "How to train your ResNet 8"; K. Jordan, airbench). Where more filters are asked
    for than the 2·3·size² there are, the rest repeats them; fewer keep the largest.
    """
    values, vectors = np.linalg.eigh(_patch_covariance(images, mean, std, size))
    kernels = (vectors / np.sqrt(np.maximum(values, 0) + eps)).T[::-1]
    both = np.concatenate([kernels, -kernels]).reshape(-1, 3, size, size)
    if filters < len(both):
        half = -(-filters // 2)
        both = np.concatenate([both[:half], both[len(kernels) : len(kernels) + filters - half]])
    return np.resize(both, (filters, 3, size, size))


def _patch_covariance(images: np.ndarray, mean: np.ndarray, std: np.ndarray, size: int) -> np.ndarray:
    """float64, second moments of the normalised images' ``size`` × ``size`` patches, a few images at a time: these stay
    in the processor's cache."""
    rows, columns = images.shape[1] - size + 1, images.shape[2] - size + 1
    total = np.zeros((3 * size * size,) * 2)
    for start in range(0, len(images), 64):
        x = ((images[start : start + 64].astype(np.float32) / 255 - mean) / std).transpose(3, 0, 1, 2)
        patches = np.empty((3, size, size, x.shape[1], rows, columns), np.float32)
        for i in range(size):
            for j in range(size):
                patches[:, i, j] = x[:, :, i : i + rows, j : j + columns]
        flat = patches.reshape(3 * size * size, -1)
        total += flat @ flat.T
    return total / (len(images) * rows * columns)
