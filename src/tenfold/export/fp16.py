"""The format ``onnx-fp16``: weights and activations in float16, between normalisation and softmax.

Pixels are normalised in float32 (0 to 255 over 255 loses nothing that way), and the logits are brought back to it, so
temperature and softmax are exact. Half the size; as fast as the hardware is in float16. ONNX Runtime has few kernels
for it on CPUs and computes most of the graph in float32 there, with casts before and after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tenfold.export import fold
from tenfold.export.source import Source

MODEL = "model.onnx"
FLOAT, HALF = 1, 10  # TensorProto's numbers of the types
NAMES = {FLOAT: "float", HALF: "half"}
# What brings pixels from bytes to normalised float32, and logits to probabilities.
_FIRST = ("Transpose", "Cast", "Div", "Sub", "Mul", "Add")
_LARGEST = float(np.finfo(np.float16).max)


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    onnx, model = fold.load(source.bundle.model(), "Exporting to onnx-fp16")
    model = fold.folded(onnx, model)
    _halve(onnx, model.graph)
    onnx.helper.set_model_props(model, source.texts)
    onnx.checker.check_model(model)
    (folder / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    return MODEL, {"weights": "float16", "activations": "float16"}


def _halve(onnx: Any, graph: Any) -> None:
    links = fold.Links(onnx, graph)
    first, last = _front(links, graph), _back(links, graph)
    wide = {id(node) for node in (*first, *last)}
    inner = [node for node in graph.node if id(node) not in wide]
    into = {name for node in first for name in node.output}
    made = {name for node in inner for name in node.output}
    out = made & {name for node in last for name in node.input}
    constants = _constants(onnx, links, graph, inner)
    for node in inner:
        names = [constants.get(name, f"{name}.half" if name in into else name) for name in node.input]
        node.input[:] = names
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = HALF
    for node in last:
        node.input[:] = [f"{name}.float" if name in out else name for name in node.input]
    before = [_cast(onnx, name, HALF) for name in sorted(into) if any(f"{name}.half" in n.input for n in inner)]
    after = [_cast(onnx, name, FLOAT) for name in sorted(out)]
    nodes = [*first, *before, *inner, *after, *last]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
    fold.drop_unused(graph)


def _cast(onnx: Any, name: str, to: int) -> Any:
    output = f"{name}.{NAMES[to]}"
    return onnx.helper.make_node("Cast", [name], [output], name=output, to=to)


def _front(links: fold.Links, graph: Any) -> list[Any]:
    """The nodes from the pixels to normalised float32, in their order: a chain of arithmetic with constants."""
    found: list[Any] = []
    name = graph.input[0].name
    while (node := links.only(name)) is not None and node.op_type in _FIRST:
        if any(other not in links.constants for other in node.input if other != name):
            break
        found.append(node)
        name = node.output[0]
    return found


def _back(links: fold.Links, graph: Any) -> list[Any]:
    """Softmax, and the temperature before it."""
    softmax = links.maker[graph.output[0].name]
    before = links.maker.get(softmax.input[0])
    divides = before is not None and before.op_type == "Div" and before.input[1] in links.constants
    return [before, softmax] if divides else [softmax]


def _constants(onnx: Any, links: fold.Links, graph: Any, inner: list[Any]) -> dict[str, str]:
    """float16 copies of the float32 constants that the inner nodes take: the new name by the old."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(name for node in inner for name in node.input):
        value = links.value(name)
        if value is not None and value.dtype == np.float32:
            # beyond float16's range a value would be infinite, and what it meets not finite
            halved = np.clip(value, -_LARGEST, _LARGEST).astype(np.float16)
            found[name] = f"{name}.half"
            graph.initializer.append(onnx.numpy_helper.from_array(halved, found[name]))
    return found
