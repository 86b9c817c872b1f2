"""The named networks. Each is a function from a recipe's ``model`` part to an architecture."""

from __future__ import annotations

import math
from collections.abc import Callable

from tenfold.architecture.layers import (
    Activation,
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Kind,
    Layer,
    Normalize,
    Pool,
    Residual,
    Scale,
)
from tenfold.architecture.weights import output_shapes
from tenfold.errors import BundleError, RecipeError, UnknownNameError
from tenfold.recipe import Model


def build(model: Model, height: int, width: int, classes: int) -> Architecture:
    """The architecture ``model`` names, for pixels of ``height`` × ``width`` and ``classes`` logits.

    Raises UnknownNameError for another name, RecipeError where the settings or the size don't fit the network.
    """
    if model.name not in NETWORKS:
        raise UnknownNameError("network", model.name, NETWORKS)
    if model.pretrained or model.pretrained_file is not None:
        raise RecipeError(
            f"There are no pretrained weights for the network {model.name}.",
            "Take one of timm's or Keras's, e.g. --set model.name=timm:resnet18, or --set model.pretrained=false.",
        )
    layers, used = NETWORKS[model.name](model, classes)
    for name in ("widths", "depth", "residual", "activation", "dropout", "head_scale"):
        if name not in used and getattr(model, name) != Model.model_fields[name].default:
            raise RecipeError(f"model.{name} is not a setting of the network {model.name}.")
    architecture = Architecture(model.name, height, width, classes, layers)
    try:
        output_shapes(architecture)
    except BundleError as error:
        raise RecipeError(f"{model.name} at {height}×{width}: {error.message}", error.hint) from None
    return architecture


def _cnn(model: Model, classes: int) -> tuple[tuple[Layer, ...], set[str]]:
    """Two blocks of two convolutions, batch norm, pooling and dropout, then 512 features: the network of the Keras
    CIFAR-10 example and of most such projects. 1,253,290 parameters at 32×32 and 10 classes."""
    widths = model.widths or (32, 64)
    function = _function(model, "relu")
    rates = (0.25, 0.5) if model.dropout is None else (model.dropout, model.dropout)
    layers: list[Layer] = [Normalize()]
    for filters in widths:
        layers += [
            Conv(filters, 3, padding=1, bias=True, init="glorot"),
            Activation(function),
            Conv(filters, 3, bias=True, init="glorot"),
            Activation(function),
            BatchNorm(model.batchnorm_momentum, eps=1e-3),
            Pool("max", 2, 2),
            Dropout(rates[0]),
        ]
    layers += [
        Flatten(),
        Dense(512, init="glorot"),
        Activation(function),
        BatchNorm(model.batchnorm_momentum, eps=1e-3),
        Dropout(rates[1]),
        Dense(classes, init="glorot"),
    ]
    return tuple(layers), {"widths", "activation", "dropout"}


def _sprint(model: Model, classes: int) -> tuple[tuple[Layer, ...], set[str]]:
    """A frozen whitening layer and a few stages of convolutions started as identities, after K. Jordan's airbench
    (2024), which goes back to D. Page's "How to train your ResNet" (2018). Any size from 16×16 up."""
    widths = model.widths or (64, 256, 256)
    function = _function(model, "gelu")
    scale = model.head_scale or 1 / math.sqrt(widths[-1])
    norm = BatchNorm(model.batchnorm_momentum, scale=False)
    layers: list[Layer] = [
        Normalize(),
        Conv(24, 2, bias=True, init="whiten", frozen=True),
        Activation(function),
    ]
    for filters in widths:
        conv = Conv(filters, 3, padding=1, init="dirac")
        layers += [conv, Pool("max", 2, 2), norm, Activation(function)]
        rest: list[Layer] = []
        for _ in range(model.depth - 1):
            rest += [conv, norm, Activation(function)]
        if model.residual and rest:
            layers += [Residual(tuple(rest[:-1])), Activation(function)]
        else:
            layers += rest
    if model.dropout:
        layers.append(Dropout(model.dropout))
    layers += [GlobalPool("max"), Dense(classes, bias=False), Scale(scale)]
    return tuple(layers), {"widths", "depth", "residual", "activation", "dropout", "head_scale"}


def _resnet18(model: Model, classes: int) -> tuple[tuple[Layer, ...], set[str]]:
    """ResNet-18 (He et al. 2016) with the 3×3 first layer and no first pooling that small pictures want.
    11,183,562 parameters at 10 classes, batch norm's statistics counted."""
    widths = model.widths or (64, 128, 256, 512)
    function = _function(model, "relu")
    norm = BatchNorm(model.batchnorm_momentum)
    layers: list[Layer] = [Normalize(), Conv(widths[0], 3, padding=1), norm, Activation(function)]
    before = widths[0]
    for stage, filters in enumerate(widths):
        for block in range(2):
            stride = 2 if stage and not block else 1
            body = (
                Conv(filters, 3, stride=stride, padding=1),
                norm,
                Activation(function),
                Conv(filters, 3, padding=1),
                norm,
            )
            same = stride == 1 and before == filters
            shortcut: tuple[Layer, ...] = () if same else (Conv(filters, 1, stride=stride), norm)
            layers += [Residual(body, shortcut), Activation(function)]
            before = filters
    if model.dropout:
        layers.append(Dropout(model.dropout))
    layers += [GlobalPool("average"), Dense(classes)]
    return tuple(layers), {"widths", "activation", "dropout"}


def _function(model: Model, own: Kind) -> Kind:
    return own if model.activation == "auto" else model.activation


NETWORKS: dict[str, Callable[[Model, int], tuple[tuple[Layer, ...], set[str]]]] = {
    "cnn": _cnn,
    "sprint": _sprint,
    "resnet18": _resnet18,
}
