"""An architecture as a Keras model, and canonical weights into it and out of it.

Pictures are channels last here. A convolution's kernel is rows×columns×in×out where the canonical one is
out×in×rows×columns, a dense kernel in×out instead of out×in; everything else has one axis.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tenfold.architecture import layers as l
from tenfold.architecture.layers import Architecture, Layer
from tenfold.architecture.weights import layer_name, specs
from tenfold.engines.keras.layers import Activation, BatchNorm, Conv, MaxPool, Normalize, Scale

POLICIES = {"fp32": "float32", "bf16": "mixed_bfloat16"}


@dataclass(frozen=True)
class Net:
    """``model`` takes float32 N×H×W×3 on the scale 0 to 255 and gives float32 logits.

    variables   its variables by canonical name
    layers      its layers, in the network's order
    """

    model: keras.Model
    variables: dict[str, Any]
    layers: tuple[Any, ...]

    @functools.cached_property
    def seeds(self) -> tuple[Any, ...]:
        """The states of its dropouts' generators, in the network's order."""
        generators = (getattr(layer, "seed_generator", None) for layer in self.layers if getattr(layer, "rate", 1))
        return tuple(generator.state for generator in generators if generator is not None)

    def forward(self, values: Mapping[str, Any], images: Any, seed: Any = None) -> tuple[Any, dict[str, Any]]:
        """(logits, ``values`` with new batch-norm statistics): a pure function of the weights given by name.

        ``seed``, two whole numbers, decides what dropouts leave out; without one the network only answers.
        """
        state = [(self.variables[name], value) for name, value in values.items()]
        if seed is not None:
            state += [(variable, seed + np.array([0, i])) for i, variable in enumerate(self.seeds)]
        with keras.StatelessScope(state) as scope:
            logits = self.model(images, training=seed is not None)
        after = {name: scope.get_current_value(variable) for name, variable in self.variables.items()}
        return ops.cast(logits, "float32"), {n: v for n, v in after.items() if v is not None}


def build(
    architecture: Architecture,
    precision: str = "fp32",
    parts: int = 1,
    size: tuple[int, int] = (0, 0),
    resting: bool = False,
) -> Net:
    """The model of an architecture, for pictures of ``size`` where they are not the architecture's own.

    parts     in how many parts of a batch batch norm takes its statistics in training
    resting   in training too, batch norms go by their statistics and leave them as they are
    """
    net = _external(architecture, precision) if architecture.external else _own(architecture, precision, parts, size)
    if resting:
        for layer in net.layers:
            if isinstance(layer, BatchNorm | keras.layers.BatchNormalization):
                layer.trainable = False
    return net


def _own(architecture: Architecture, precision: str, parts: int, size: tuple[int, int]) -> Net:
    height, width = size if all(size) else (architecture.height, architecture.width)
    builder = _Builder(keras.DTypePolicy(POLICIES[precision]), parts)
    pixels = keras.Input((height, width, 3), dtype="float32")
    logits = builder.sequence(architecture.layers, "", pixels)
    model = keras.Model(pixels, logits)
    variables = {}
    for name, spec in specs(architecture).items():
        home, _, part = name.rpartition(".")
        variable = getattr(builder.made[home], part)
        variable.trainable = spec.role == "trained"
        variables[name] = variable
    return Net(model, variables, tuple(builder.made.values()))


def _external(architecture: Architecture, precision: str) -> Net:
    from tenfold.engines.keras import external

    layer = architecture.external
    assert layer is not None
    policy = POLICIES[precision]
    normalize = Normalize(name=layer_name(0, l.Normalize()), dtype=policy)
    inside = external.network(layer, architecture.height, architecture.width, policy)
    pixels = keras.Input((architecture.height, architecture.width, 3), dtype="float32")
    model = keras.Model(pixels, inside(normalize(pixels)))
    variables = {f"{normalize.name}.{part}": getattr(normalize, part) for part in ("mean", "std")}
    return Net(model, variables | external.variables(inside), tuple(external.layers(inside)))


class _Builder:
    def __init__(self, policy: keras.DTypePolicy, parts: int) -> None:
        self.policy, self.parts = policy, parts
        self.made: dict[str, Any] = {}

    def sequence(self, layers: tuple[Layer, ...], prefix: str, x: Any) -> Any:
        for index, layer in enumerate(layers):
            name = prefix + layer_name(index, layer)
            if isinstance(layer, l.Residual):
                body = self.sequence(layer.body, f"{name}.body.", x)
                shortcut = self.sequence(layer.shortcut, f"{name}.shortcut.", x)
                x = keras.layers.Add(name=name, dtype=self.policy)([body, shortcut])
            else:
                for made in self.native(layer, name, x.shape):
                    x = made(x)
                self.made[name] = made
        return x

    def native(self, layer: Layer, name: str, shape: tuple[int | None, ...]) -> list[Any]:
        """Keras's layers for one, the last of them with its name and its weights."""
        named: dict[str, Any] = {"name": name, "dtype": self.policy}
        match layer:
            case l.Normalize():
                return [Normalize(**named)]
            case l.Conv():
                return self._conv(layer, named)
            case l.BatchNorm():
                return [BatchNorm(layer.momentum, layer.eps, layer.scale, layer.center, self.parts, **named)]
            case l.Activation():
                return [Activation(layer.function, **named)]
            case l.Pool(function="max") if layer.size == layer.stride:
                return [MaxPool(layer.size, **named)]
            case l.Pool():
                pool = keras.layers.MaxPooling2D if layer.function == "max" else keras.layers.AveragePooling2D
                return [pool(layer.size, layer.stride, "valid", data_format="channels_last", **named)]
            case l.GlobalPool():
                maximum = layer.function == "max"
                over = keras.layers.GlobalMaxPooling2D if maximum else keras.layers.GlobalAveragePooling2D
                return [over(data_format="channels_last", **named)]
            case l.Dropout():
                return [keras.layers.Dropout(layer.rate, seed=0, **named)]
            case l.Flatten() if len(shape) == 4:
                first = keras.layers.Permute((3, 1, 2), dtype=self.policy)
                return [first, keras.layers.Flatten(data_format="channels_last", **named)]
            case l.Flatten():
                return [keras.layers.Flatten(data_format="channels_last", **named)]
            case l.Dense():
                return [keras.layers.Dense(layer.units, use_bias=layer.bias, kernel_initializer="zeros", **named)]
            case l.Scale():
                return [Scale(layer.factor, **named)]
        raise TypeError(f"no Keras layer for {layer!r}")

    def _conv(self, layer: l.Conv, named: dict[str, Any]) -> list[Any]:
        # "same" pads as PyTorch does only where the stride is 1 and the padding half the kernel
        same = layer.stride == 1 and layer.kernel == 2 * layer.padding + 1
        conv = Conv(
            layer.filters,
            layer.kernel,
            layer.stride,
            "same" if same else "valid",
            data_format="channels_last",
            use_bias=layer.bias,
            kernel_initializer="zeros",  # nothing is drawn here: every value comes from the canonical weights
            **named,
        )
        if same or not layer.padding:
            return [conv]
        pad = keras.layers.ZeroPadding2D(layer.padding, data_format="channels_last", dtype=self.policy)
        return [pad, conv]


# ---- weights ---------------------------------------------------------------------------------------------------------


def native(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Canonical weights (or what has their shapes) in Keras's layouts: float32 copies."""
    return {name: np.array(_turned(np.asarray(a, np.float32), (2, 3, 1, 0)), order="C") for name, a in weights.items()}


def canonical(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """:func:`native` undone."""
    return {name: np.array(_turned(np.asarray(a, np.float32), (3, 2, 0, 1)), order="C") for name, a in weights.items()}


def _turned(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(axes)
    return array.T if array.ndim == 2 else array
