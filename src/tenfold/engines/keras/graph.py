"""A functional model of Keras's as an ONNX graph, layer by layer.

Keras's own export goes through tf2onnx, whose last release (2024) wants a protobuf that TensorFlow has left behind, and
needs TensorFlow for JAX's models. The networks of keras.applications are made of some twenty kinds of layers, and what
each means is written down here; another kind is refused by name, before training starts.

Pictures are N×H×W×C in Keras and N×C×H×W in the graph. Where the order matters (a layer norm over channels, a
flattening) a Transpose stands on each side, which runtimes take out where two meet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tenfold.architecture.layers import Architecture, Normalize
from tenfold.architecture.weights import layer_name
from tenfold.engines.keras import external
from tenfold.errors import BundleError
from tenfold.export import onnx
from tenfold.runtimes.graph import INPUT

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # axes of a picture
END = 2**31 - 1


def write(architecture: Architecture, model: Any, weights: Mapping[str, np.ndarray]) -> bytes:
    """``model``, whose variables have the names that :func:`external.variables` gives, with canonical ``weights``: the
    bytes of a graph from uint8 pixels to logits. Raises BundleError for a layer that has no form here."""
    writer = _Writer(weights, external.variables(model))
    start = writer.graph.normalize(layer_name(0, Normalize()), INPUT)
    return onnx.network(writer.graph, writer.model(model, start), architecture)


class _Writer:
    def __init__(self, weights: Mapping[str, np.ndarray], variables: Mapping[str, Any]) -> None:
        self.graph = onnx.Graph(weights)
        self.names = {id(variable): name for name, variable in variables.items()}
        self.values: dict[int, str] = {}  # names in the graph of Keras's tensors
        self.kept: list[Any] = []  # those tensors, so that no other gets their id
        self.count = 0

    # ---- the walk ----------------------------------------------------------------------------------------------------

    def model(self, model: Any, start: str) -> str:
        """The name of what a functional or sequential model makes of the value ``start``."""
        if isinstance(model, keras.Sequential):
            x = start
            for layer in model.layers:
                x = self.operation(layer, [x], layer.input)
            return x
        inside = model.inputs[0]

        def call(operation: Any, *arguments: Any, **settings: Any) -> Any:
            out = operation(*arguments, **settings)
            given = [*keras.tree.flatten(arguments), *keras.tree.flatten(settings)]
            inputs: list[str | float] = []
            for value in given:
                if isinstance(value, keras.KerasTensor):
                    inputs.append(self.values[id(value)])
                elif isinstance(value, int | float) and not isinstance(value, bool):
                    inputs.append(float(value))
            first = next(value for value in given if isinstance(value, keras.KerasTensor))
            self.remember(out, self.operation(operation, inputs, first))
            return out

        tensor = keras.Input(batch_shape=inside.shape, dtype=inside.dtype)
        self.remember(tensor, start)
        copy = keras.models.clone_model(
            model, input_tensors=tensor, clone_function=lambda layer: layer, call_function=call
        )
        return self.values[id(copy.outputs[0])]

    def remember(self, tensor: Any, name: str) -> None:
        self.kept.append(tensor)
        self.values[id(tensor)] = name

    def operation(self, operation: Any, inputs: list[str | float], given: Any) -> str:
        """What an operation of Keras's makes of ``inputs``; ``given`` is the first of them as Keras sees it."""
        if isinstance(operation, keras.Model):
            return self.model(operation, str(inputs[0]))
        kind = next((k for k in type(operation).__mro__ if k.__name__ in _FORMS), None)
        if kind is None:
            raise BundleError(f"{operation.name}: no ONNX form is known for Keras's {type(operation).__name__}.")
        out = _FORMS[kind.__name__](self, operation, inputs, given)
        return self.activated(getattr(operation, "activation", None), out) if kind.__name__ in _WITH_ACTIVATION else out

    # ---- parts -------------------------------------------------------------------------------------------------------

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        return self.graph.add(op, f"v{self.count}", *inputs, **attributes)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        value = np.asarray(value, dtype)
        name = f"c{len(self.graph.initializers)}"
        self.graph.initializers[name] = value
        return name

    def weight(self, variable: Any, change: Callable[[np.ndarray], np.ndarray] = lambda value: value) -> str:
        """The name of a variable's canonical weight in the graph."""
        name = self.names[id(variable)]
        self.graph.initializers[name] = np.ascontiguousarray(change(self.graph.weights[name]))
        return name

    def bias(self, layer: Any) -> list[str]:
        return [self.weight(layer.bias)] if layer.use_bias else []

    def value(self, given: str | float) -> str:
        return given if isinstance(given, str) else self.constant(given)

    def activated(self, function: Any, x: str) -> str:
        name = getattr(function, "__name__", None) or "linear"
        match name:
            case "linear":
                return x
            case "relu":
                return self.add("Relu", x)
            case "relu6":
                return self.add("Clip", x, self.constant(0), self.constant(6))
            case "sigmoid":
                return self.add("Sigmoid", x)
            case "silu":
                return self.add("Mul", x, self.add("Sigmoid", x))
            case "hard_silu":
                return self.add("HardSwish", x)
            case "hard_sigmoid":
                return self.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)
            case "tanh":
                return self.add("Tanh", x)
            case "gelu":
                erf = self.add("Erf", self.add("Div", x, self.constant(2**0.5)))
                product = self.add("Mul", x, self.add("Add", erf, self.constant(1)))
                return self.add("Mul", product, self.constant(0.5))
        raise BundleError(f"No ONNX form is known for Keras's activation {name}.")

    # ---- layers ------------------------------------------------------------------------------------------------------

    def conv(self, layer: Any, inputs: list[Any], given: Any) -> str:
        kernel = self.weight(layer.kernel)
        window = _window(layer, layer.kernel_size, layer.dilation_rate, given)
        return self.add("Conv", inputs[0], kernel, *self.bias(layer), group=layer.groups, **window)

    def depthwise(self, layer: Any, inputs: list[Any], given: Any, variable: Any = None, biased: bool = True) -> str:
        variable = layer.kernel if variable is None else variable
        channels = given.shape[-1]
        # canonical: multiplier×channels×rows×columns
        kernel = self.weight(variable, lambda k: k.transpose(1, 0, 2, 3).reshape(-1, 1, *k.shape[2:]))
        window = _window(layer, layer.kernel_size, layer.dilation_rate, given)
        return self.add("Conv", inputs[0], kernel, *(self.bias(layer) if biased else ()), group=channels, **window)

    def separable(self, layer: Any, inputs: list[Any], given: Any) -> str:
        x = self.depthwise(layer, inputs, given, layer.depthwise_kernel, biased=False)
        return self.add("Conv", x, self.weight(layer.pointwise_kernel), *self.bias(layer))

    def dense(self, layer: Any, inputs: list[Any], given: Any) -> str:
        if len(given.shape) == 4:  # of each pixel
            kernel = self.weight(layer.kernel, lambda k: k[:, :, None, None])
            return self.add("Conv", inputs[0], kernel, *self.bias(layer))
        return self.add("Gemm", inputs[0], self.weight(layer.kernel), *self.bias(layer), transB=1)

    def batchnorm(self, layer: Any, inputs: list[Any], given: Any) -> str:
        channels = given.shape[-1]
        gamma = self.weight(layer.gamma) if layer.scale else self.constant(np.ones(channels))
        beta = self.weight(layer.beta) if layer.center else self.constant(np.zeros(channels))
        statistics = self.weight(layer.moving_mean), self.weight(layer.moving_variance)
        return self.add("BatchNormalization", inputs[0], gamma, beta, *statistics, epsilon=float(layer.epsilon))

    def layernorm(self, layer: Any, inputs: list[Any], given: Any) -> str:
        picture, x = len(given.shape) == 4, inputs[0]
        x = self.add("Transpose", x, perm=TO_LAST) if picture else x
        weights = self.weight(layer.gamma), self.weight(layer.beta)
        x = self.add("LayerNormalization", x, *weights, axis=-1, epsilon=float(layer.epsilon))
        return self.add("Transpose", x, perm=TO_FIRST) if picture else x

    def pool(self, layer: Any, inputs: list[Any], given: Any, op: str) -> str:
        return self.add(op, inputs[0], **_window(layer, layer.pool_size, (1, 1), given, dilated=False))

    def globally(self, layer: Any, inputs: list[Any], given: Any) -> str:
        x = self.add("GlobalAveragePool", inputs[0])
        return x if layer.keepdims else self.add("Flatten", x)

    def pad(self, layer: Any, inputs: list[Any], given: Any) -> str:
        (top, bottom), (left, right) = layer.padding
        return self.add("Pad", inputs[0], self.constant([0, 0, top, left, 0, 0, bottom, right], np.int64))

    def crop(self, layer: Any, inputs: list[Any], given: Any) -> str:
        (top, bottom), (left, right) = layer.cropping
        ends = [-bottom or END, -right or END]
        bounds = (self.constant(value, np.int64) for value in ([top, left], ends, [2, 3]))
        return self.add("Slice", inputs[0], *bounds)

    def reshape(self, layer: Any, inputs: list[Any], given: Any) -> str:
        x, before, after = inputs[0], given.shape, layer.compute_output_shape(given.shape)
        if len(before) == 4 and before[1:3] != (1, 1):
            x = self.add("Transpose", x, perm=TO_LAST)
        if len(after) == 4 and after[1:3] == (1, 1):
            return self.add("Reshape", x, self.constant([-1, after[3], 1, 1], np.int64))
        x = self.add("Reshape", x, self.constant([-1, *after[1:]], np.int64))
        return self.add("Transpose", x, perm=TO_FIRST) if len(after) == 4 else x

    def relu(self, layer: Any, inputs: list[Any], given: Any) -> str:
        if layer.negative_slope or layer.threshold:
            raise BundleError(f"{layer.name}: no ONNX form is known for a ReLU with a slope or a threshold.")
        if layer.max_value is None:
            return self.add("Relu", inputs[0])
        return self.add("Clip", inputs[0], self.constant(0), self.constant(layer.max_value))

    def layerscale(self, layer: Any, inputs: list[Any], given: Any) -> str:
        return self.add("Mul", inputs[0], self.weight(layer.gamma, lambda g: g[:, None, None]))

    def scaled_sum(self, layer: Any, inputs: list[Any], given: Any) -> str:
        return self.add("Add", inputs[0], self.add("Mul", inputs[1], self.constant(layer.scale)))

    def joined(self, layer: Any, inputs: list[Any], given: Any) -> str:
        axis = layer.axis % len(given.shape)
        return self.add("Concat", *inputs, axis={0: 0, 1: 2, 2: 3, 3: 1}[axis] if len(given.shape) == 4 else axis)

    def folded(self, layer: Any, inputs: list[Any], given: Any, op: str) -> str:
        return functools.reduce(lambda a, b: self.add(op, a, b), map(self.value, inputs))

    def same(self, layer: Any, inputs: list[Any], given: Any) -> str:
        return str(inputs[0])


def _window(
    layer: Any, size: tuple[int, int], dilation: tuple[int, int], given: Any, dilated: bool = True
) -> dict[str, Any]:
    """Sizes and paddings. Keras pads "same" so that the output is ceil(input / stride), an odd one at the end."""
    strides = tuple(layer.strides)
    before, after = [0, 0], [0, 0]
    if layer.padding == "same":
        for i, length in enumerate(given.shape[1:3]):
            covered = (size[i] - 1) * dilation[i] + 1
            whole = max(0, (-(-length // strides[i]) - 1) * strides[i] + covered - length)
            before[i], after[i] = whole // 2, whole - whole // 2
    found = {"kernel_shape": list(size), "strides": list(strides), "pads": [*before, *after]}
    return {**found, "dilations": list(dilation)} if dilated else found


_FORMS: dict[str, Callable[[_Writer, Any, list[Any], Any], str]] = {
    "Conv2D": _Writer.conv,
    "DepthwiseConv2D": _Writer.depthwise,
    "SeparableConv2D": _Writer.separable,
    "Dense": _Writer.dense,
    "BatchNormalization": _Writer.batchnorm,
    "LayerNormalization": _Writer.layernorm,
    "Activation": _Writer.same,
    "ReLU": _Writer.relu,
    "MaxPooling2D": functools.partial(_Writer.pool, op="MaxPool"),
    "AveragePooling2D": functools.partial(_Writer.pool, op="AveragePool"),
    "GlobalAveragePooling2D": _Writer.globally,
    "ZeroPadding2D": _Writer.pad,
    "Cropping2D": _Writer.crop,
    "Reshape": _Writer.reshape,
    "Flatten": _Writer.reshape,
    "LayerScale": _Writer.layerscale,
    "CustomScaleLayer": _Writer.scaled_sum,
    "Concatenate": _Writer.joined,
    "Add": functools.partial(_Writer.folded, op="Add"),
    "Multiply": functools.partial(_Writer.folded, op="Mul"),
    "Dropout": _Writer.same,
    "StochasticDepth": _Writer.same,
}
_WITH_ACTIVATION = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense", "Activation"}
