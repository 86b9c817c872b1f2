"""An architecture as a PyTorch module, and canonical weights into it and out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.architecture.layers import (
    Activation,
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    External,
    Flatten,
    GlobalPool,
    Layer,
    Normalize,
    Pool,
    Residual,
    Scale,
)
from tenfold.architecture.weights import layer_name, shape_after, specs
from tenfold.engines.torch.conv import Conv as TorchConv
from tenfold.engines.torch.sync_norm import Sync, batch_norm

# canonical part -> attribute of the module below
_ATTRIBUTES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "mean": "mean",
    "variance": "variance",
    "std": "std",
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class _Normalize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """uint8 N×H×W×3, or float N×3×H×W on the scale 0 to 255, as augmentation gives it."""
        if x.dtype == torch.uint8:
            x = x.permute(0, 3, 1, 2).float()
        scale = 1 / (255 * self.std)
        return x * scale[:, None, None] - (self.mean / self.std)[:, None, None]


class _BatchNorm(nn.Module):
    def __init__(self, layer: BatchNorm, channels: int) -> None:
        super().__init__()
        self.momentum, self.eps = 1 - layer.momentum, layer.eps
        self.groups = 1  # parts of a batch that take their own statistics while training
        self.sync: Sync | None = None  # statistics over the images of several processes
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=layer.scale)
        self.bias = nn.Parameter(torch.zeros(channels), requires_grad=layer.center)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.sync is not None and self.sync.active:
            weights = (self.weight, self.bias)
            return batch_norm(x, self.mean, self.variance, *weights, self.momentum, self.eps, self.sync)
        if self.training and self.groups > 1:
            return self._by_groups(x)
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, self.training, self.momentum, self.eps)

    def _by_groups(self, x: Tensor) -> Tensor:
        out, statistics = [], []
        for part in x.tensor_split(self.groups):
            mean, variance = self.mean.clone(), self.variance.clone()
            out.append(F.batch_norm(part, mean, variance, self.weight, self.bias, True, self.momentum, self.eps))
            statistics.append((mean, variance))
        average_statistics(self, statistics)
        return torch.cat(out)


@torch.no_grad()
def average_statistics(norm: _BatchNorm, statistics: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Sets a batch norm's running mean and variance to the means of those its parts of a batch arrived at."""
    norm.mean.copy_(add_in_pairs([mean for mean, _ in statistics]) / len(statistics))
    norm.variance.copy_(add_in_pairs([variance for _, variance in statistics]) / len(statistics))


def add_in_pairs(tensors: Sequence[Tensor]) -> Tensor:
    """Their sum, the first half's and the second half's added last: the order in which several processes that have a
    part of them each come to it, so that their number does not change the last digit where all numbers are powers of
    two."""
    if len(tensors) == 1:
        return tensors[0]
    middle = len(tensors) // 2
    return add_in_pairs(tensors[:middle]) + add_in_pairs(tensors[middle:])


class _Dropout(nn.Module):
    def __init__(self, layer: Dropout) -> None:
        super().__init__()
        self.rate = layer.rate
        self.rng: torch.Generator | None = None  # PyTorch's default one
        self.within: tuple[int, int] | None = None  # (rows drawn for, first of them) where x is a part of a batch

    def forward(self, x: Tensor) -> Tensor:
        if self.within is None and (self.rng is None or not self.training):
            return F.dropout(x, self.rate, self.training)
        if not self.training:
            return x
        total, first = self.within or (len(x), 0)
        rows, room = slice(first, first + len(x)), _room(x, total)
        if self.rng is None:
            return x * F.dropout(room.fill_(1), self.rate)[rows]
        return x * room.bernoulli_(1 - self.rate, generator=self.rng)[rows] / (1 - self.rate)


def _room(x: Tensor, rows: int) -> Tensor:
    """An empty tensor of ``rows`` rows like ``x``'s, laid out as they are: the order in which numbers are drawn."""
    if rows == len(x):
        return torch.empty_like(x)
    room = x.new_empty(rows, *x.shape[1:])
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return room.contiguous(memory_format=torch.channels_last) if last else room


class _Activation(nn.Module):
    def __init__(self, layer: Activation) -> None:
        super().__init__()
        self.function = _FUNCTIONS[layer.function]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _GlobalPool(nn.Module):
    def __init__(self, layer: GlobalPool) -> None:
        super().__init__()
        self.maximum = layer.function == "max"

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3)) if self.maximum else x.mean((2, 3))


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def build(architecture: Architecture) -> nn.Sequential:
    """The native module of an architecture: uint8 N×H×W×3 (or float N×3×H×W, 0 to 255) to logits N×classes."""
    if architecture.external is not None:
        return _with_external(architecture, architecture.external)
    shape = (3, architecture.height, architecture.width)
    with torch.device("meta"):
        # nothing is drawn or filled here: load_weights gives every value
        net, _ = _sequence(architecture.layers, shape)
    net = net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, _BatchNorm):  # a gamma or beta that the architecture hasn't is no weight of it
            module.weight.data.fill_(1)
            module.bias.data.zero_()
    return net


def _with_external(architecture: Architecture, network: External) -> nn.Sequential:
    from tenfold.engines.torch import external

    module = external.module(network, architecture.height, architecture.width)
    names = (layer_name(index, layer) for index, layer in enumerate(architecture.layers))
    net = nn.Sequential()
    for name, part in zip(names, (_Normalize(), module), strict=True):
        net.add_module(name, part)
    return net


def _sequence(layers: tuple[Layer, ...], shape: tuple[int, ...]) -> tuple[nn.Sequential, tuple[int, ...]]:
    net = nn.Sequential()
    for index, layer in enumerate(layers):
        module, shape = _module(layer, shape)
        net.add_module(layer_name(index, layer), module)
    return net, shape


def _module(layer: Layer, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    if isinstance(layer, Residual):
        body, after = _sequence(layer.body, shape)
        shortcut, _ = _sequence(layer.shortcut, shape)
        return _Residual(body, shortcut), after
    return _plain(layer, shape), shape_after(layer, shape, layer.kind)


def _plain(layer: Layer, shape: tuple[int, ...]) -> nn.Module:
    match layer:
        case Normalize():
            return _Normalize()
        case Conv():
            conv = TorchConv(shape[0], layer.filters, layer.kernel, layer.stride, layer.padding, bias=layer.bias)
            conv.weight.requires_grad_(not layer.frozen)
            return conv
        case BatchNorm():
            return _BatchNorm(layer, shape[0])
        case Activation():
            return _Activation(layer)
        case Pool():
            pool = nn.MaxPool2d if layer.function == "max" else nn.AvgPool2d
            return pool(layer.size, layer.stride)
        case GlobalPool():
            return _GlobalPool(layer)
        case Dropout():
            return _Dropout(layer)
        case Flatten():
            return nn.Flatten()
        case Dense():
            return nn.Linear(shape[0], layer.units, bias=layer.bias)
        case Scale():
            return _Scale(layer.factor)
    raise TypeError(f"no PyTorch module for {layer!r}")


def batch_norms(net: nn.Module) -> Iterator[_BatchNorm]:
    return (module for module in net.modules() if isinstance(module, _BatchNorm))


def dropouts(net: nn.Module) -> Iterator[_Dropout]:
    return (module for module in net.modules() if isinstance(module, _Dropout))


def tensors(net: nn.Module, architecture: Architecture) -> dict[str, Tensor]:
    """The module's own tensors by canonical name, in the architecture's order."""
    found = {}
    for name in specs(architecture):
        layer, _, part = name.rpartition(".")
        module = net.get_submodule(layer)
        if architecture.external is not None and not isinstance(module, _Normalize):
            found[name] = getattr(module, part)
        else:
            found[name] = getattr(module, _ATTRIBUTES[part])
    return found


def train(net: nn.Module, resting: bool) -> None:
    """Training mode; ``resting``: batch norms go by their statistics and leave them as they are."""
    net.train()
    if resting:
        for module in net.modules():
            if isinstance(module, _BatchNorm | nn.modules.batchnorm._NormBase):
                module.eval()


@torch.no_grad()
def load_weights(net: nn.Module, architecture: Architecture, weights: Mapping[str, np.ndarray]) -> None:
    for name, tensor in tensors(net, architecture).items():
        tensor.copy_(torch.from_numpy(np.array(weights[name], np.float32)))


def export_weights(net: nn.Module, architecture: Architecture) -> dict[str, np.ndarray]:
    """Canonical weights, float32 copies on the host."""
    return {name: to_numpy(tensor) for name, tensor in tensors(net, architecture).items()}


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A float32 C-ordered copy on the host."""
    return np.array(tensor.detach().to("cpu", torch.float32).numpy(), order="C", copy=True)
