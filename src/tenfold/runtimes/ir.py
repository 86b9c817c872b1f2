"""What an OpenVINO IR's XML holds, read before OpenVINO sees it.

Refused are document types and entities, layers that are not among ``LAYERS`` (loops, state, what reads other files),
and layers of other sets than OpenVINO's own. Sizes are not bounded as ``graph`` bounds them for ONNX.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tenfold.errors import BundleError

MAX_BYTES = 64 * 2**20

# What OpenVINO makes of the operators that graph.OPERATORS names.
# fmt: off
LAYERS = frozenset((
    "Abs", "Add", "AvgPool", "BatchNormInference", "Broadcast", "Clamp", "Concat", "Const", "Convert",
    "ConvertLike", "Convolution", "Divide", "Elu", "Erf", "Exp", "FakeQuantize", "Gather", "Gelu",
    "GroupConvolution", "HSigmoid", "HSwish", "HardSigmoid", "MVN", "MatMul", "MaxPool", "Maximum", "Minimum",
    "Multiply", "Negative", "NormalizeL2", "PRelu", "Pad", "Parameter", "Power", "Range", "ReLU", "ReduceL2",
    "ReduceMax", "ReduceMean", "ReduceProd", "ReduceSum", "Reshape", "Result", "ShapeOf", "Sigmoid", "Slice",
    "SoftMax", "SoftPlus", "Split", "Sqrt", "Squeeze", "StridedSlice", "Subtract", "Swish", "Tanh", "Transpose",
    "Unsqueeze", "VariadicSplit",
))
# fmt: on


def inspect(data: bytes, where: str) -> dict[str, str]:
    """The texts under ``tenfold`` in ``rt_info`` of the IR in ``data``, as ``tenfold.<name>``.

    Raises BundleError, naming ``where``, for what is no IR, or holds what tenfold never writes.
    """
    if len(data) > MAX_BYTES:
        raise BundleError(f"{where} is larger than {MAX_BYTES >> 20} MiB.")
    if b"<!" in data:
        raise BundleError(f"{where} holds declarations, which tenfold never writes into a model.", "It was not loaded.")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        raise BundleError(f"{where} is damaged, or not an OpenVINO model.") from None
    if root.tag != "net":
        raise BundleError(f"{where} is damaged, or not an OpenVINO model.")
    for layer in root.iter("layer"):
        kind, version = layer.get("type", ""), layer.get("version", "")
        if kind not in LAYERS or not re.fullmatch(r"opset\d{1,2}", version):
            raise BundleError(
                f"{where} holds the layer {kind[:60]!r} of {version[:60]!r}, which tenfold never writes into a model.",
                "It was not loaded.",
            )
    own = root.find("rt_info/tenfold")
    return {f"tenfold.{entry.tag}": entry.get("value", "") for entry in (own if own is not None else ())}
