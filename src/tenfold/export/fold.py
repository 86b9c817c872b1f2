"""An ONNX graph with fewer operators and the same answers: what quantised and float16 graphs are made from.

Batch norms go into the convolution before them, also past a max pool: a batch norm that doesn't turn the order of the
values round (all its factors are above 0) may as well come before the pool. GELU, spelt out by Erf in a bundle's graph,
becomes one operator, which needs opset 20. ONNX Runtime does most of this when it loads a graph; but once the graph is
quantised, the operators that it would join are apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tenfold.errors import MissingExtraError
from tenfold.export.external import name_constants

GELU_OPSET, GELU_IR = 20, 9


def load(data: bytes, purpose: str) -> tuple[Any, Any]:
    """The package onnx, and the ModelProto in ``data``. MissingExtraError where the package isn't installed."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "torch", purpose) from None
    return onnx, onnx.load_from_string(data)


def folded(onnx: Any, model: Any) -> Any:
    """``model``, changed in place where that is possible; its metadata stay."""
    _fold_batchnorms(onnx, model.graph)
    model = _with_gelu(onnx, model)
    drop_unused(model.graph)
    return model


class Links:
    """Who makes each value of a graph, who takes it, and its constants."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self.onnx = onnx
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.takers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)

    def value(self, name: str) -> np.ndarray | None:
        tensor = self.constants.get(name)
        return None if tensor is None else self.onnx.numpy_helper.to_array(tensor)

    def only(self, name: str) -> Any:
        """The one node that takes the value; None where there are several."""
        found = self.takers.get(name, [])
        return found[0] if len(found) == 1 else None


def drop_unused(graph: Any) -> None:
    """Removes constants that no node takes."""
    taken = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in taken]:
        graph.initializer.remove(tensor)


# ---- batch norms -----------------------------------------------------------------------------------------------------


def _fold_batchnorms(onnx: Any, graph: Any) -> None:
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        links = Links(onnx, graph)
        parts = [links.value(name) for name in norm.input[1:]]
        if any(part is None for part in parts) or links.only(norm.input[0]) is not norm:
            continue
        gamma, beta, mean, variance = (part.astype(np.float64) for part in parts if part is not None)
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = gamma / np.sqrt(variance + epsilon)
        before = links.maker.get(norm.input[0])
        if before is not None and before.op_type == "MaxPool" and (factor > 0).all():
            before = links.maker.get(before.input[0]) if links.only(before.input[0]) is before else None
        if before is None or before.op_type != "Conv" or len(links.takers[before.output[0]]) != 1:
            continue
        if _scale_conv(onnx, graph, links, before, factor, beta - mean * factor):
            for node in links.takers.get(norm.output[0], []):
                node.input[:] = [norm.input[0] if name == norm.output[0] else name for name in node.input]
            graph.node.remove(norm)


def _scale_conv(onnx: Any, graph: Any, links: Links, conv: Any, factor: np.ndarray, offset: np.ndarray) -> bool:
    """Writes ``factor × conv + offset`` into the convolution's kernel and bias; False where they aren't constants."""
    kernel = links.value(conv.input[1])
    bias = links.value(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else np.zeros(len(factor))
    if kernel is None or bias is None:
        return False
    scaled = kernel.astype(np.float64) * factor.reshape(-1, *[1] * (kernel.ndim - 1))
    names = [f"{conv.output[0]}.folded.{part}" for part in ("kernel", "bias")]
    for name, value in zip(names, (scaled, bias * factor + offset), strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    conv.input[:] = [conv.input[0], *names]
    return True


# ---- GELU ------------------------------------------------------------------------------------------------------------


def _with_gelu(onnx: Any, model: Any) -> Any:
    """x / √2 → Erf → + 1 → × x → × ½, as ``export.onnx`` writes it, as one Gelu."""
    if not any(node.op_type == "Erf" for node in model.graph.node):
        return model
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < GELU_OPSET:
        kept = {entry.key: entry.value for entry in model.metadata_props}
        model = onnx.version_converter.convert_version(model, GELU_OPSET)
        onnx.helper.set_model_props(model, kept)
        name_constants(onnx, model.graph)  # the converter writes what became an input of a node as one
    model.ir_version = max(model.ir_version, GELU_IR)
    links = Links(onnx, model.graph)
    for erf in [node for node in model.graph.node if node.op_type == "Erf"]:
        chain = _gelu_chain(links, erf)
        if chain is not None:
            start, last, between = chain
            last.op_type = "Gelu"
            last.input[:] = [start]
            for node in between:
                model.graph.node.remove(node)
    return model


def _gelu_chain(links: Links, erf: Any) -> tuple[str, Any, list[Any]] | None:
    """(the value that goes in, the last node, the nodes before it) where ``erf`` stands in a GELU."""
    scaled = links.maker.get(erf.input[0])
    if scaled is None or scaled.op_type != "Div" or not _is(links, scaled.input[1], np.sqrt(2)):
        return None
    start, found = scaled.input[0], [scaled, erf]
    for operator, other in (("Add", 1.0), ("Mul", start), ("Mul", 0.5)):
        node = links.only(found[-1].output[0])
        if node is None or node.op_type != operator:
            return None
        rest = [name for name in node.input if name != found[-1].output[0]]
        fits = rest == [other] if isinstance(other, str) else len(rest) == 1 and _is(links, rest[0], other)
        if not fits:
            return None
        found.append(node)
    return start, found[-1], found[:-1]


def _is(links: Links, name: str, number: float) -> bool:
    value = links.value(name)
    return value is not None and value.size == 1 and bool(np.isclose(value.reshape(-1)[0], number))
