"""The nodes and weights of an ONNX graph that ``graph.inspect`` has passed, and how to ask it for more than it gives.

The field numbers are those of onnx.proto (ONNX IR). Weights are read when they are asked for: a tail of a few layers
needs few of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tenfold.errors import BundleError
from tenfold.runtimes.graph import Messages

_MODEL_GRAPH = 7
_GRAPH = {"node": 1, "initializer": 5, "output": 12}
_NODE = {"input": 1, "output": 2, "operator": 4, "attribute": 5}
_ATTRIBUTE = {"name": 1, "float": 2, "int": 3, "text": 4, "ints": 8}
_TENSOR = {"dims": 1, "type": 2, "name": 8, "raw": 9}
_INFO_NAME = 1
_BYTES = 2  # protobuf's kind of a field that is preceded by its length
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}  # FLOAT, INT64

Setting = int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """An operator with the names of the values that it takes and gives. A value left out has the name ``""``."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Setting] = field(default_factory=dict)

    def whole(self, name: str, default: int) -> int:
        """An attribute that is one whole number."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def wholes(self, name: str) -> tuple[int, ...]:
        """An attribute that is several whole numbers; empty where it isn't there."""
        value = self.attributes.get(name, ())
        return value if isinstance(value, tuple) else ()

    def real(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        value = self.attributes.get(name, default)
        return float(value) if isinstance(value, int | float) else default


class Nodes:
    """A graph: ``all`` its nodes in the order of the file, which is that of computing, and its weights by name."""

    def __init__(self, all: tuple[Node, ...], weights: Mapping[str, memoryview], where: str) -> None:
        self.all = all
        self._weights = weights
        self._where = where

    def constant(self, name: str) -> bool:
        """Whether the value is one of the graph's weights; so is a value left out."""
        return name in self._weights or not name

    def weight(self, name: str) -> np.ndarray | None:
        """A weight as float32 or int64, a copy; None where there is none of that name, or of another type.

        Raises BundleError where its bytes are not its shape's.
        """
        if name not in self._weights:
            return None
        reader = Messages(self._where)
        shape, kind, raw = list[int](), 0, memoryview(b"")
        for number, value in reader.fields(self._weights[name]):
            if number == _TENSOR["dims"]:
                shape += [value] if isinstance(value, int) else reader.packed(value)
            elif number == _TENSOR["type"]:
                kind = value if isinstance(value, int) else 0
            elif number == _TENSOR["raw"]:
                raw = reader.message(value)
        if kind not in _TYPES:
            return None
        dtype = _TYPES[kind]
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise BundleError(f"{self._where}: the weight {name[:80]!r} is not of its shape.")
        return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def read(data: bytes, where: str) -> Nodes:
    """The graph in ``data``, an ONNX model's bytes. BundleError, naming ``where``, where it is damaged."""
    reader = Messages(where)
    nodes, weights = list[Node](), dict[str, memoryview]()
    try:
        graph = next(reader.message(v) for number, v in reader.fields(memoryview(data)) if number == _MODEL_GRAPH)
        for number, value in reader.fields(graph):
            if number == _GRAPH["node"]:
                nodes.append(_node(reader, reader.message(value)))
            elif number == _GRAPH["initializer"]:
                tensor = reader.message(value)
                name = next((v for n, v in reader.fields(tensor) if n == _TENSOR["name"]), memoryview(b""))
                weights[_text(reader, name)] = tensor
    except (IndexError, StopIteration, UnicodeDecodeError, struct.error):
        raise BundleError(f"{where} is damaged, or not an ONNX model.") from None
    return Nodes(tuple(nodes), weights, where)


def with_outputs(data: bytes, names: Iterable[str]) -> bytes:
    """The ONNX model in ``data``, which also gives the values called ``names``.

    A message that stands twice in protobuf's encoding is merged, and lists in it are joined: so a second graph of
    nothing but outputs, written behind the first, adds them to it.
    """
    infos = b"".join(_field(_GRAPH["output"], _field(_INFO_NAME, name.encode())) for name in names)
    return data + _field(_MODEL_GRAPH, infos)


def _node(reader: Messages, data: memoryview) -> Node:
    operator, inputs, outputs, attributes = "", list[str](), list[str](), dict[str, Setting]()
    for number, value in reader.fields(data):
        if number == _NODE["input"]:
            inputs.append(_text(reader, value))
        elif number == _NODE["output"]:
            outputs.append(_text(reader, value))
        elif number == _NODE["operator"]:
            operator = _text(reader, value)
        elif number == _NODE["attribute"]:
            attributes.update(_attribute(reader, reader.message(value)))
    return Node(operator, tuple(inputs), tuple(outputs), attributes)


def _attribute(reader: Messages, data: memoryview) -> dict[str, Setting]:
    """Its name and number, numbers or text; nothing of another kind."""
    name, numbers = "", list[int]()
    found: Setting | None = None
    for number, value in reader.fields(data):
        if number == _ATTRIBUTE["name"]:
            name = _text(reader, value)
        elif number == _ATTRIBUTE["float"]:
            found = struct.unpack("<f", reader.message(value))[0]
        elif number == _ATTRIBUTE["int"] and isinstance(value, int):
            found = _signed(value)
        elif number == _ATTRIBUTE["text"]:
            found = _text(reader, value)
        elif number == _ATTRIBUTE["ints"]:
            numbers += map(_signed, [value] if isinstance(value, int) else reader.packed(value))
    if numbers:
        return {name: tuple(numbers)}
    return {} if found is None else {name: found}


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _text(reader: Messages, value: int | memoryview) -> str:
    return bytes(reader.message(value)).decode()


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
