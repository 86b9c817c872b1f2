"""The Open Inference Protocol v2 (KServe, Triton), with the extension for binary tensors: what its JSON means.

Tensors: ``pixels`` UINT8 [n, height, width, 3] in, ``probabilities`` FP32 [n, classes] out. Runs in a worker, but for
the metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.runtimes.graph import INPUT, OUTPUT
from tenfold.serving import bodies
from tenfold.serving.refusal import Refusal

EXTENSION = "binary_tensor_data"
HEADER_LENGTH = "inference-header-content-length"
MAX_IMAGES = 4096


@dataclass(frozen=True)
class Request:
    """``pixels`` uint8 n×H×W×3; ``id`` is the client's, given back; ``binary``: whether it wants bytes."""

    pixels: np.ndarray
    id: str | None
    binary: bool


def metadata(name: str, card: dict[str, Any]) -> dict[str, Any]:
    """A model's metadata as the protocol has it."""
    geometry, classes = card["geometry"], card["classes"]
    return {
        "name": name,
        "versions": [card["version"]],
        "platform": "tenfold",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, geometry["height"], geometry["width"], 3]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(classes)]}],
        "parameters": {"classes": classes},
    }


def parse(body: bytes, header: int | None, shape: tuple[int, int, int]) -> Request:
    """A request to infer. ``header`` is the length of the JSON before binary tensors, ``shape`` H×W×3 the model's."""
    if header is not None and not 0 < header <= len(body):
        raise _refused(f"Inference-Header-Content-Length is {header}, and the body has {len(body)} bytes.")
    value = bodies.json(body if header is None else body[:header])
    rest = b"" if header is None else body[header:]
    tensor = _input(value.get("inputs"))
    count = _count(tensor.get("shape"), shape)
    parameters = _mapping(tensor.get("parameters"), "parameters")
    size = parameters.get("binary_data_size")
    wanted = count * int(np.prod(shape))
    if size is not None:
        if "data" in tensor:
            raise _refused("The input has both data and binary_data_size.")
        if size != wanted or len(rest) != wanted:
            there = f"binary_data_size is {str(size)[:30]}, and after the JSON there are {len(rest):,}"
            raise _refused(f"The input's shape makes {wanted:,} bytes; {there}.")
        pixels = np.frombuffer(rest, np.uint8)
    else:
        if rest:
            raise _refused("There are bytes after the JSON, and the input has no binary_data_size.")
        pixels = _numbers(tensor.get("data"), wanted)
    own = value.get("id")
    if own is not None and not isinstance(own, str):
        raise _refused("id is not a text.")
    return Request(pixels.reshape(count, *shape), own, _wants_binary(value))


def answer(rows: np.ndarray, name: str, version: str, request_id: str | None, binary: bool) -> tuple[bytes, int | None]:
    """(the body, the length of its JSON where bytes follow) for probabilities ``rows``, float32 n×classes."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(rows.shape)}
    raw = rows.astype("<f4").tobytes() if binary else b""
    if binary:
        output["parameters"] = {"binary_data_size": len(raw)}
    else:
        output["data"] = rows.astype(np.float64).ravel().tolist()
    value = {"model_name": name, "model_version": version, "outputs": [output]}
    if request_id is not None:
        value["id"] = request_id
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return text + raw, len(text) if binary else None


def _input(inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _refused(f"inputs must be a list of one tensor, {INPUT}.")
    tensor: dict[str, Any] = inputs[0]
    if tensor.get("name") != INPUT:
        raise _refused(f"The model has no input {str(tensor.get('name'))[:60]!r}; it has {INPUT}.")
    if tensor.get("datatype") != "UINT8":
        raise _refused(f"{INPUT} is UINT8, not {str(tensor.get('datatype'))[:20]}: pixels from 0 to 255 as they are.")
    return tensor


def _count(given: Any, shape: tuple[int, int, int]) -> int:
    whole = isinstance(given, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in given)
    if not whole or len(given) != 4 or tuple(given[1:]) != shape:
        height, width, _ = shape
        raise _refused(f"shape must be [n, {height}, {width}, 3], not {str(given)[:60]}.")
    if not 0 < given[0] <= MAX_IMAGES:
        raise _refused(f"shape asks for {given[0]} images; 1 to {MAX_IMAGES} are taken.")
    count: int = given[0]
    return count


def _numbers(data: Any, wanted: int) -> np.ndarray:
    """JSON's numbers, flat or nested as the shape is."""
    if not isinstance(data, list):
        raise _refused("The input has no data.")
    flat = data
    while flat and isinstance(flat[0], list):  # JSON's depth is bounded
        if not all(isinstance(row, list) for row in flat):
            raise _refused("data is nested unevenly.")
        flat = [n for row in flat for n in row]
    if len(flat) != wanted:
        raise _refused(f"The input's shape makes {wanted:,} numbers; data has {len(flat):,}.")
    if not all(type(n) is int and 0 <= n <= 255 for n in flat):
        raise _refused("data holds what is not a whole number from 0 to 255.")
    return np.array(flat, np.uint8)


def _wants_binary(value: dict[str, Any]) -> bool:
    binary = bool(_mapping(value.get("parameters"), "parameters").get("binary_data_output", False))
    outputs = value.get("outputs")
    if outputs is None:
        return binary
    if not isinstance(outputs, list) or len(outputs) != 1 or not isinstance(outputs[0], dict):
        raise _refused(f"outputs must be a list of one tensor, {OUTPUT}.")
    if outputs[0].get("name") != OUTPUT:
        raise _refused(f"The model has no output {str(outputs[0].get('name'))[:60]!r}; it has {OUTPUT}.")
    parameters = _mapping(outputs[0].get("parameters"), "parameters")
    if parameters.get("classification"):
        raise _refused("The classification extension is not offered: POST /predict gives class names.")
    return bool(parameters.get("binary_data", binary))


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refused(f"{what} is not an object.")
    return value


def _refused(message: str) -> Refusal:
    return Refusal(400, "bad_tensor", message)
