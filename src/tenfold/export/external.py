"""The graph of another library's network, as its engine's exporter wrote it, brought to the form of a bundle's.

An exporter writes whatever the framework did, and for any number of images N much of that is arithmetic on shapes:
``Shape``, ``Gather``, ``Concat``, ``ConstantOfShape``, ``Expand``. None of it is needed, and some of it can make a
tensor of any size from a few bytes, which is why no runtime of tenfold takes it from a file (``runtimes/graph.py``).
So every value that does not depend on the pixels is computed here, for two images and for three, and written down:

- the same both times: a constant
- the new shape of a ``Reshape``: the one size that differs is -1, which ONNX reads as "the rest"
- copies along the first axis (a vision transformer's class token): one row, plus a zero for each image
- a value spread over the shape of what it is then added to, or what it multiplies or divides: left as it is, which is
  spread by the arithmetic itself

What is left computes on pixels alone. That it gives the network's answers is for the gate to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tenfold.errors import BundleError, MissingExtraError
from tenfold.runtimes import onnxruntime as runtime
from tenfold.runtimes.graph import INPUT

_BROADCAST = ("Add", "Sub", "Mul", "Div")
COUNTS = (2, 3)  # the numbers of images that shapes are computed for


def simplified(data: bytes, height: int, width: int) -> Any:
    """The ModelProto of an exporter's ``data``, pixels uint8 N×``height``×``width``×3 to its one output, without
    arithmetic on shapes, texts or value types. Raises BundleError where it can't be had for any N."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "torch", "Writing model.onnx") from None
    model = onnx.load_from_string(data)
    if [i.name for i in model.graph.input] != [INPUT] or len(model.graph.output) != 1:
        raise BundleError("The exporter's graph does not take pixels alone and give logits alone.")
    if model.functions:
        raise BundleError("The exporter's graph holds functions.")
    _strip(model)
    name_constants(onnx, model.graph)
    _Simplifier(onnx, model, height, width).run()
    _drop_unused(model.graph)
    return model


def _strip(model: Any) -> None:
    """Texts that exporters leave: where the code stood, which layer it was."""
    graph = model.graph
    del model.metadata_props[:], graph.value_info[:], graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]


def name_constants(onnx: Any, graph: Any) -> None:
    """Constant nodes become initializers, and what only has another name gets its first one."""
    kept, alias = [], dict[str, str]()
    for node in graph.node:
        node.input[:] = [alias.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.output[0] != graph.output[0].name:
            alias[node.output[0]] = node.input[0]
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)


class _Simplifier:
    def __init__(self, onnx: Any, model: Any, height: int, width: int) -> None:
        self.onnx, self.model, self.graph = onnx, model, model.graph
        self.size = (height, width)
        self.constants = {tensor.name for tensor in self.graph.initializer}
        self.free = self._free()
        self.zeros: dict[int, str] = {}
        self.made: list[Any] = []

    def _free(self) -> set[str]:
        """Values that do not depend on what the pixels are, only on how many there are of them."""
        free = {"", *self.constants}
        for node in self.graph.node:
            if node.op_type in ("Shape", "Size") or all(name in free for name in node.input):
                free.update(node.output)
        return free

    def run(self) -> None:
        nodes = [node for node in self.graph.node if node.output[0] not in self.free]
        wanted = {name for node in nodes for name in node.input if name in self.free} - self.constants - {""}
        reshapes = [node.output[0] for node in nodes if node.op_type == "Reshape"]
        spread = {node.output[0] for node in nodes if node.op_type == "Expand"}
        beside = {name for node in nodes if spread & set(node.input) for name in node.input if name not in self.free}
        values, shapes = self._measure(sorted(wanted), list(dict.fromkeys([*reshapes, *sorted(spread | beside)])))
        nodes = _without_spreading(nodes, shapes)
        for node in nodes:
            if node.op_type == "Reshape":
                node.input[1] = self._shape(node.output[0], shapes)
                del node.attribute[:]  # allowzero: no size is 0 here
            for at, name in enumerate(node.input):
                if name in values:
                    node.input[at] = self._constant(name, values[name], node)
        del self.graph.node[:]
        self.graph.node.extend([*self.made, *nodes])

    def _measure(
        self, wanted: list[str], reshaped: list[str]
    ) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
        """Values, and shapes of values, for each of COUNTS images."""
        probe = self.onnx.ModelProto()
        probe.CopyFrom(self.model)
        for name in reshaped:
            probe.graph.node.append(self.onnx.helper.make_node("Shape", [name], [f"{name}/shape"]))
        asked = [*wanted, *(f"{name}/shape" for name in reshaped)]
        if not asked:
            return {}, {}
        probe.graph.output.extend(self.onnx.ValueInfoProto(name=name) for name in asked)
        data = probe.SerializeToString()
        found = [
            runtime.values(data, np.zeros((count, *self.size, 3), np.uint8), asked, "The exporter's graph")
            for count in COUNTS
        ]
        rows = [list(pair) for pair in zip(*found, strict=True)]
        return dict(zip(wanted, rows, strict=False)), dict(zip(reshaped, rows[len(wanted) :], strict=True))

    def _shape(self, name: str, shapes: dict[str, list[np.ndarray]]) -> str:
        first, second = shapes[name]
        if len(first) != len(second) or (first != second).sum() > 1:
            raise self._refused(name)
        return self._add(f"{name}/shape", np.where(first == second, first, -1).astype(np.int64))

    def _constant(self, name: str, values: list[np.ndarray], node: Any) -> str:
        first, second = values
        if first.shape == second.shape and np.array_equal(first, second):
            return self._add(name, first)
        rank = first.ndim
        if rank and first.shape[1:] == second.shape[1:] and first.dtype == np.float32:
            row = first[:1]
            if (len(first), len(second)) == COUNTS and (first == row).all() and (second == row).all():
                output = f"{name}/each"
                if output not in self.constants:
                    zero = self._zero(rank)
                    self.made.append(self.onnx.helper.make_node("Add", [self._add(name, row), zero], [output]))
                    self.constants.add(output)
                return output
        raise self._refused(f"{node.op_type} {node.output[0]}")

    def _zero(self, rank: int) -> str:
        """The name of a float32 N×1×…: a zero for each image."""
        if rank not in self.zeros:
            make, name = self.onnx.helper.make_node, f"zero{rank}"
            ends = [self._add(f"{name}/{part}", np.full(3, value)) for part, value in (("from", 0), ("to", 1))]
            axes = self._add(f"{name}/axes", np.array([1, 2, 3]))
            shape = self._add(f"{name}/shape", np.array([-1] + [1] * (rank - 1)))
            self.made += [
                make("Slice", [INPUT, *ends, axes], [f"{name}/pixel"]),
                make("Cast", [f"{name}/pixel"], [f"{name}/float"], to=1),
                make("Mul", [f"{name}/float", self._add(f"{name}/nought", np.zeros((), np.float32))], [f"{name}/none"]),
                make("Reshape", [f"{name}/none", shape], [name]),
            ]
            self.zeros[rank] = name
        return self.zeros[rank]

    def _add(self, name: str, value: np.ndarray) -> str:
        if name not in self.constants:
            self.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(value, order="C"), name))
            self.constants.add(name)
        return name

    def _refused(self, what: str) -> BundleError:
        return BundleError(f"The network can't be written for any number of images: its {what} changes with it.")


def _without_spreading(nodes: list[Any], shapes: dict[str, list[np.ndarray]]) -> list[Any]:
    """The nodes without each Expand whose takers are arithmetic with a value of the shape that it spreads to."""
    spread = {node.output[0] for node in nodes if node.op_type == "Expand"}

    def spreads(taker: Any, name: str) -> bool:
        others = [shapes[other] for other in taker.input if other not in spread and other in shapes]
        return taker.op_type in _BROADCAST and any(
            all(np.array_equal(a, b) for a, b in zip(other, shapes[name], strict=True)) for other in others
        )

    kept = []
    for node in nodes:
        takers = [taker for taker in nodes if node.output[0] in taker.input]
        if node.op_type == "Expand" and takers and all(spreads(taker, node.output[0]) for taker in takers):
            for taker in takers:
                taker.input[:] = [node.input[0] if name == node.output[0] else name for name in taker.input]
        else:
            kept.append(node)
    return kept


def _drop_unused(graph: Any) -> None:
    needed, kept = {graph.output[0].name}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    kept.reverse()
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    _replace(graph.node, kept)
    _replace(graph.initializer, initializers)


def _replace(field: Any, values: Iterable[Any]) -> None:
    copies = []
    for value in values:
        copy = type(value)()
        copy.CopyFrom(value)
        copies.append(copy)
    del field[:]
    field.extend(copies)
