"""An ONNX graph written from the architecture itself. The only importer of the package onnx.

Input ``pixels``: uint8 N×H×W×3, any N. Output ``probabilities``: float32 N×classes, softmax(logits /
temperature). Everything between the two is in the graph, so a program in another language needs a runtime
for ONNX and nothing of ours.

Opset 17 and IR version 8 are read by every ONNX Runtime since 1.12 and by OpenVINO, TensorRT and the browser
runtimes of the same years. Opset 20 would have a Gelu of its own; here it is spelt out by Erf, in the form
that ONNX Runtime fuses into one kernel. Batch norms are written as they are: runtimes fold them into the
convolution. The weights stand in the graph under their canonical names, so they can be found again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.architecture import weights as canonical
from tenfold.architecture.layers import (
    Activation,
    Architecture,
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
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError, MissingExtraError
from tenfold.export import external
from tenfold.paths import write_whole
from tenfold.runtimes.graph import FORMAT, INPUT, OUTPUT

OPSET = 17
IR_VERSION = 8
MAX_BYTES = 2_000_000_000  # protobuf's limit is 2 GiB


def write(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str],
    geometry: Geometry,
    temperature: float,
    name: str,
    path: Path,
    graph: bytes | None = None,
    threshold: float | None = None,
) -> None:
    """Write the model to ``path``, whole or not at all; the same arguments give the same bytes.

    ``weights`` holds float32 arrays by canonical name. For a network of another library ``graph`` is what its engine
    wrote: an ONNX graph from ``pixels`` to logits. The metadata (``metadata_props``) are
    ``tenfold.format``, ``tenfold.name``, ``tenfold.classes`` (a JSON list), ``tenfold.geometry`` (JSON),
    ``tenfold.temperature`` and, where there is one, ``tenfold.threshold``.

    Raises MissingExtraError where the package onnx isn't installed, BundleError where weights don't fit the
    architecture or the file would pass the 2 GB that an ONNX file can have.
    """
    model = build(
        architecture,
        weights,
        classes=classes,
        geometry=geometry,
        temperature=temperature,
        name=name,
        graph=graph,
        threshold=threshold,
    )
    write_whole(path, model)


def build(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    *,
    classes: Sequence[str],
    geometry: Geometry,
    temperature: float,
    name: str,
    graph: bytes | None = None,
    threshold: float | None = None,
) -> bytes:
    """The bytes that :func:`write` writes."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "torch", "Writing model.onnx") from None
    canonical.check(architecture, weights)
    if len(classes) != architecture.classes:
        raise BundleError(f"{len(classes)} class names for a network with {architecture.classes} logits.")
    if 4 * canonical.count(architecture) > MAX_BYTES:
        raise BundleError("The network is too large for an ONNX file, which can hold 2 GB.")
    made = Graph(weights)
    rest: Any = None
    if architecture.external is None:
        logits = made.layers(architecture.layers, "", INPUT)
    elif graph is None:
        raise BundleError(f"The graph of {architecture.name} is its engine's to write, and there is none.")
    else:
        rest = external.simplified(graph, architecture.height, architecture.width)
        logits = rest.graph.output[0].name
    if temperature != 1:
        logits = made.add("Div", "temperature.scaled", logits, made.constant("temperature", temperature))
    made.add("Softmax", OUTPUT, logits, axis=-1)
    proto = _model(onnx, made, rest, architecture, name)
    onnx.helper.set_model_props(proto, texts(name, classes, geometry, temperature, threshold))
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def texts(
    name: str, classes: Sequence[str], geometry: Geometry, temperature: float, threshold: float | None
) -> dict[str, str]:
    """What a model says of itself, as ``runtimes.graph.describe`` reads it."""
    return {
        "tenfold.format": str(FORMAT),
        "tenfold.name": name,
        "tenfold.classes": json.dumps(list(classes), ensure_ascii=False),
        "tenfold.geometry": json.dumps(geometry.to_dict()),
        "tenfold.temperature": repr(float(temperature)),
        **({} if threshold is None else {"tenfold.threshold": repr(float(threshold))}),
    }


def network(graph: Graph, logits: str, architecture: Architecture) -> bytes:
    """The bytes of a graph from pixels to ``logits`` that an engine wrote with :class:`Graph`, for a network of another
    library: what :func:`write` takes. Raises MissingExtraError where the package onnx isn't installed."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "torch", "Writing model.onnx") from None
    made = _model(onnx, graph, None, architecture, architecture.name)
    made.graph.output[0].name = logits
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def _model(onnx: Any, graph: Graph, rest: Any, architecture: Architecture, name: str) -> Any:
    """The ModelProto around ``graph``'s nodes and initializers, and before them those of the ModelProto ``rest`` where
    an engine wrote the network."""
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node(op, inputs, [output], name=output, **attributes)
        for op, inputs, output, attributes in graph.nodes
    ]
    initializers = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in graph.initializers.items()
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    if rest is not None:
        nodes, initializers = [*rest.graph.node, *nodes], [*rest.graph.initializer, *initializers]
        opsets = list(rest.opset_import)
    pixels = helper.make_tensor_value_info(
        INPUT, types.UINT8, ["N", architecture.height, architecture.width, 3], "RGB, rows from the top"
    )
    probabilities = helper.make_tensor_value_info(OUTPUT, types.FLOAT, ["N", architecture.classes])
    return helper.make_model(
        helper.make_graph(nodes, architecture.name, [pixels], [probabilities], initializers),
        opset_imports=opsets,
        ir_version=IR_VERSION,
        producer_name="tenfold",
        doc_string=f"{name}: uint8 pixels N×H×W×3 to calibrated probabilities",
    )


class Graph:
    """Nodes and initializers in the network's order. Each value is named after its layer.

    ``weights`` holds float32 arrays by the name that they have in the graph. Pictures are N×channels×height×width from
    :meth:`normalize` on.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.initializers: dict[str, np.ndarray] = {}

    def add(self, op: str, output: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append((op, list(inputs), output, attributes))
        return output

    def constant(self, name: str, value: float) -> str:
        self.initializers.setdefault(name, np.array(value, np.float32))
        return name

    def weight(self, name: str, shape: tuple[int, ...] | None = None) -> str:
        value = self.weights[name]
        self.initializers[name] = value if shape is None else value.reshape(shape)
        return name

    def filled(self, name: str, like: str, value: float) -> str:
        """A constant for a weight that the layer goes without (a batch norm's gamma or beta)."""
        self.initializers[name] = np.full_like(self.weights[like], value)
        return name

    def layers(self, layers: tuple[Layer, ...], prefix: str, x: str) -> str:
        """Add ``layers`` after the value ``x`` and give the name of the value they end in."""
        for index, layer in enumerate(layers):
            x = self.layer(layer, prefix + canonical.layer_name(index, layer), x)
        return x

    def layer(self, layer: Layer, name: str, x: str) -> str:
        match layer:
            case Normalize():
                return self.normalize(name, x)
            case Conv():
                parts = [f"{name}.kernel"] + ([f"{name}.bias"] if layer.bias else [])
                sizes = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
                return self.add("Conv", name, x, *map(self.weight, parts), pads=[layer.padding] * 4, **sizes)
            case BatchNorm():
                return self.batchnorm(layer, name, x)
            case Activation():
                return self.activation(layer.function, name, x)
            case Pool():
                op = {"max": "MaxPool", "average": "AveragePool"}[layer.function]
                return self.add(op, name, x, kernel_shape=[layer.size] * 2, strides=[layer.stride] * 2)
            case GlobalPool():
                op = {"max": "GlobalMaxPool", "average": "GlobalAveragePool"}[layer.function]
                return self.add("Flatten", name, self.add(op, f"{name}.pooled", x))
            case Dropout():
                return x
            case Residual():
                body = self.layers(layer.body, f"{name}.body.", x)
                return self.add("Add", name, body, self.layers(layer.shortcut, f"{name}.shortcut.", x))
            case Flatten():
                return self.add("Flatten", name, x)
            case Dense():
                bias = [self.weight(f"{name}.bias")] if layer.bias else []
                return self.add("Gemm", name, x, self.weight(f"{name}.kernel"), *bias, transB=1)
            case Scale():
                return self.add("Mul", name, x, self.constant(f"{name}.factor", layer.factor))
        raise BundleError(f"{name}: no ONNX form is known for the layer {layer.kind}.")

    def normalize(self, name: str, x: str) -> str:
        # Transposed while the pixels are bytes, and scaled by whole planes after that: ten times as fast in
        # ONNX Runtime as scaling N×H×W×3, where it would go three numbers at a time.
        planes = self.add("Transpose", f"{name}.planes", x, perm=[0, 3, 1, 2])
        cast = self.add("Cast", f"{name}.float", planes, to=1)
        unit = self.add("Div", f"{name}.unit", cast, self.constant(f"{name}.255", 255))
        centered = self.add("Sub", f"{name}.centered", unit, self.weight(f"{name}.mean", (3, 1, 1)))
        return self.add("Div", name, centered, self.weight(f"{name}.std", (3, 1, 1)))

    def batchnorm(self, layer: BatchNorm, name: str, x: str) -> str:
        mean = f"{name}.mean"
        gamma = self.weight(f"{name}.gamma") if layer.scale else self.filled(f"{name}.gamma", mean, 1)
        beta = self.weight(f"{name}.beta") if layer.center else self.filled(f"{name}.beta", mean, 0)
        statistics = self.weight(mean), self.weight(f"{name}.variance")
        return self.add("BatchNormalization", name, x, gamma, beta, *statistics, epsilon=layer.eps)

    def activation(self, function: str, name: str, x: str) -> str:
        if function == "relu":
            return self.add("Relu", name, x)
        if function == "silu":
            return self.add("Mul", name, x, self.add("Sigmoid", f"{name}.sigmoid", x))
        scaled = self.add("Div", f"{name}.scaled", x, self.constant("gelu.root2", math.sqrt(2)))
        erf = self.add("Erf", f"{name}.erf", scaled)
        shifted = self.add("Add", f"{name}.shifted", erf, self.constant("gelu.one", 1))
        product = self.add("Mul", f"{name}.product", x, shifted)
        return self.add("Mul", name, product, self.constant("gelu.half", 0.5))
