"""What an ONNX file holds, read from its bytes before any runtime sees them.

A model.onnx may come from a stranger, and a runtime's loader does what the file says: opens other files that
it names as its weights, runs loops, makes tensors of any size. This module walks the file's protobuf messages
(varints and lengths; nothing is copied) and refuses whatever a tenfold model has no need of: weights in other
files, operators that are not among ``OPERATORS``, kernels and paddings of any size, graphs within nodes,
functions. It reads the metadata on the way, so that neither the package onnx nor a runtime is needed to know
a model's classes.

The field numbers are those of onnx.proto (ONNX IR), the encoding is protobuf's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tenfold.bundle import fields
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError

MAX_BYTES = 2**31 - 1  # protobuf's own limit
MAX_PARTS = 200_000
MAX_METADATA = 8 * 2**20
MAX_NUMBER = 64  # of kernels, strides and paddings, as an architecture bounds them
MAX_GROUPS = 65536  # of a convolution, which are no more work than one
MAX_PADDINGS = 16  # two for each of eight axes
MAX_NAME = 1000
FORMAT = 1  # of the metadata

INPUT = "pixels"
OUTPUT = "probabilities"

# All that export.onnx writes of its own, and beside it what is left of other libraries' networks (export.external) and
# what export.int8 and export.fold write: the last three.
# Each takes time and memory in proportion to its inputs and the weights; Pad's amounts are bounded as paddings are.
# fmt: off
OWN = frozenset((
    "Add", "AveragePool", "BatchNormalization", "Cast", "Conv", "Div", "Erf", "Flatten", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Mul", "Relu", "Sigmoid", "Softmax", "Sub", "Transpose",
))
OPERATORS = OWN | frozenset((
    "Abs", "Clip", "Concat", "Elu", "Exp", "Gather", "HardSigmoid", "HardSwish", "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "MatMul", "Max", "Min", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceL2",
    "ReduceMax", "ReduceMean", "ReduceSum", "Reshape", "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Tanh",
    "Unsqueeze", "Gelu", "QuantizeLinear", "DequantizeLinear",
))
# fmt: on

# Messages of onnx.proto and those of their fields that hold messages, or that are refused.
_MODEL = {"graph": 7, "metadata": 14, "training": 20, "functions": 25, "opset": 8}
_GRAPH = {"node": 1, "initializer": 5, "sparse": 15, "input": 11, "output": 12}
_NODE = {"input": 1, "op_type": 4, "attribute": 5, "domain": 7}
_TENSOR = {"name": 8, "raw_data": 9}
_ATTRIBUTE_REFUSED = {5: "a tensor", 6: "a graph", 10: "tensors", 11: "graphs", 22: "a tensor", 23: "tensors"}
_ATTRIBUTE_NAME = 1
_ATTRIBUTE_NUMBERS = (3, 8)  # i and ints
_MINUS_ONE = 2**64 - 1  # as a varint; the one negative number written, for the last axis
_AXIS = 2**64 - 8  # the first of up to eight axes, counted from the last
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14

Field = tuple[int, "int | memoryview"]


@dataclass(frozen=True)
class Description:
    """What a model says of itself in its metadata, checked. ``threshold`` is None where it has none."""

    name: str
    classes: tuple[str, ...]
    geometry: Geometry
    temperature: float
    threshold: float | None = None


def inspect(data: bytes, where: str) -> dict[str, str]:
    """The metadata of the ONNX model in ``data``, refusing what is not a plain network.

    Raises BundleError, naming ``where``, for bytes that are no ONNX model, weights kept in other files, operators
    that tenfold doesn't write, and subgraphs.
    """
    try:
        return _Reader(where).model(memoryview(data))
    except (IndexError, UnicodeDecodeError):
        raise BundleError(f"{where} is damaged, or not an ONNX model.") from None


def describe(metadata: Mapping[str, str], where: str) -> Description:
    """The tenfold entries of a model's metadata. Raises BundleError where one is missing or doesn't fit."""
    prefix = "tenfold."
    own = {key[len(prefix) :]: value for key, value in metadata.items() if key.startswith(prefix)}
    if "format" not in own:
        raise BundleError(
            f"{where} is an ONNX model without tenfold's metadata, so its classes are not known.",
            "Give a model.onnx that tenfold wrote, or the run's folder.",
        )
    version = fields.whole(_json(own, "format", where), f"{where}: tenfold.format", 1, 10**6)
    if version > FORMAT:
        raise BundleError(
            f"{where} has the format {version}; this tenfold reads formats up to {FORMAT}.",
            "A newer tenfold wrote it. Upgrade with: pip install --upgrade tenfold",
        )
    return Description(
        name=fields.text(own.get("name"), f"{where}: tenfold.name", 1000),
        classes=fields.classes(_json(own, "classes", where), f"{where}: tenfold.classes"),
        geometry=fields.geometry(_json(own, "geometry", where), f"{where}: tenfold.geometry"),
        temperature=fields.temperature(_json(own, "temperature", where), f"{where}: tenfold.temperature"),
        threshold=fields.threshold(
            _json(own, "threshold", where) if "threshold" in own else None, f"{where}: tenfold.threshold"
        ),
    )


def _json(own: Mapping[str, str], key: str, where: str) -> object:
    if key not in own:
        raise BundleError(f"{where} lacks the metadata tenfold.{key}.")
    return fields.strict_json(own[key].encode(), f"{where}: tenfold.{key}")


class Messages:
    """Reads protobuf's messages. ``left`` bounds the messages and fields looked at, whatever the file says."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.left = MAX_PARTS

    def message(self, value: int | memoryview) -> memoryview:
        if isinstance(value, int):
            raise BundleError(f"{self.where} is damaged, or not an ONNX model.")
        return value

    def fields(self, data: memoryview) -> Iterator[Field]:
        """(field number, value) of a protobuf message: an int for a varint, the bytes for all else."""
        at, end = 0, len(data)
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise BundleError(f"{self.where} has more parts than a network that tenfold writes.")
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == 0:
                value, at = _varint(data, at)
                yield tag >> 3, value
                continue
            if kind == 2:
                size, at = _varint(data, at)
            else:
                size = {1: 8, 5: 4}.get(kind, end)  # groups and unknown kinds: beyond the end
            if size > end - at or (kind not in (1, 2, 5)):
                raise BundleError(f"{self.where} is damaged, or not an ONNX model.")
            yield tag >> 3, data[at : at + size]
            at += size

    def packed(self, data: memoryview) -> Iterator[int]:
        at = 0
        while at < len(data):
            self.left -= 1
            value, at = _varint(data, at)
            yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at ``at`` and the place after it; IndexError where the bytes end or it has more than ten."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise IndexError


class _Reader(Messages):
    """Walks one model and refuses what is not a plain network."""

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.paddings: list[str] = []  # the names of the values that say how much is padded
        self.few: dict[str, list[int]] = {}  # weights that can be such values

    def model(self, data: memoryview) -> dict[str, str]:
        metadata: dict[str, str] = {}
        graphs = 0
        for number, value in self.fields(data):
            if number == _MODEL["graph"]:
                graphs += 1
                self.graph(self.message(value))
            elif number == _MODEL["metadata"]:
                self.entry(self.message(value), metadata)
            elif number in (_MODEL["functions"], _MODEL["training"]):
                raise self.refused("functions or training graphs")
        if graphs != 1:
            raise BundleError(f"{self.where} is damaged, or not an ONNX model.")
        return metadata

    def graph(self, data: memoryview) -> None:
        for number, value in self.fields(data):
            if number == _GRAPH["node"]:
                self.node(self.message(value))
            elif number == _GRAPH["initializer"]:
                self.tensor(self.message(value))
            elif number == _GRAPH["sparse"]:
                raise self.refused("sparse weights")
        for name in self.paddings:
            if name not in self.few or not all(0 <= amount <= MAX_NUMBER for amount in self.few[name]):
                raise self.refused(f"a size or padding above {MAX_NUMBER}")

    def node(self, data: memoryview) -> None:
        pads, inputs = False, list[str]()
        for number, value in self.fields(data):
            if number == _NODE["input"]:
                inputs.append(bytes(self.message(value)[:MAX_NAME]).decode(errors="replace"))
            elif number == _NODE["op_type"]:
                operator = bytes(self.message(value)[:80]).decode()
                if operator not in OPERATORS:
                    raise self.refused(f"the operator {operator!r}")
                pads = pads or operator == "Pad"
            elif number == _NODE["domain"] and bytes(self.message(value)[:80]) not in (b"", b"ai.onnx"):
                raise self.refused("operators of another domain")
            elif number == _NODE["attribute"]:
                self.attribute(self.message(value))
        if pads:
            self.paddings.append(inputs[1] if len(inputs) > 1 else "")

    def attribute(self, data: memoryview) -> None:
        name, numbers = b"", list[int]()
        for number, value in self.fields(data):
            if number in _ATTRIBUTE_REFUSED:
                raise self.refused(f"{_ATTRIBUTE_REFUSED[number]} within an operator")
            if number == _ATTRIBUTE_NAME:
                name = bytes(self.message(value)[:MAX_NAME])
            elif number in _ATTRIBUTE_NUMBERS:
                numbers += [value] if isinstance(value, int) else self.packed(value)
        most = MAX_GROUPS if name == b"group" else MAX_NUMBER
        if any(most < n < (_AXIS if name in (b"axis", b"axes") else _MINUS_ONE) for n in numbers):
            raise self.refused(f"a size or padding above {MAX_NUMBER}")

    def tensor(self, data: memoryview) -> None:
        name, amounts = "", list[int]()
        for number, value in self.fields(data):
            if number == _TENSOR["name"]:
                name = bytes(self.message(value)[:MAX_NAME]).decode(errors="replace")
            elif number == _TENSOR["raw_data"] and len(raw := self.message(value)) in range(8, 8 * MAX_PADDINGS + 1, 8):
                amounts += struct.unpack(f"<{len(raw) // 8}q", raw)
            elif number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                raise self.refused("weights kept in another file")
        if amounts:
            self.few.setdefault(name, []).extend(amounts)

    def entry(self, data: memoryview, into: dict[str, str]) -> None:
        """A key and value of metadata_props."""
        if len(data) > MAX_METADATA or len(into) > 1000:
            raise BundleError(f"{self.where} has more than {MAX_METADATA >> 20} MiB of metadata.")
        parts = {number: bytes(self.message(value)).decode() for number, value in self.fields(data)}
        key = parts.get(1, "")
        if key in into:
            raise BundleError(f"{self.where} has the metadata {key[:60]!r} twice.")
        into[key] = parts.get(2, "")

    def refused(self, what: str) -> BundleError:
        return BundleError(f"{self.where} holds {what}, which tenfold never writes into a model.", "It was not loaded.")
