"""The format ``onnx-int8``: convolutions and products in 8 bits, statically quantised by ONNX Runtime's own tools.

Written as QDQ: QuantizeLinear and DequantizeLinear around what is quantised, which ONNX Runtime joins into integer
kernels. Kernels are quantised by output channel, activations by tensor, over the range that they had for training
images. In float32 stay normalisation, the first convolution (a whitening of three channels: quantised it cost 0.4
points of CIFAR-10 and was no faster), activation functions, and the last layer with temperature and softmax.

Kernels take 7 of the 8 bits: on processors without integer dot products (no VNNI) ONNX Runtime adds two products in 16
bits, which could overflow with 8. So the answers are the same with and without them.

Ranges are calibrated in two ways, and the one is kept whose probabilities are nearer to the bundle's on the validation
images: from the smallest to the largest value (``minmax``), or without the outermost (``percentile``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.export import fold
from tenfold.export.source import Source
from tenfold.runtimes import graph as reader
from tenfold.runtimes import onnxruntime as runtime

MODEL = "model.onnx"
METHODS = {"minmax": "MinMax", "percentile": "Percentile"}
PERCENTILE = 99.99
BATCH_BYTES = 64 * 32 * 32 * 3
_PRODUCTS = ("Conv", "Gemm", "MatMul")


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    onnx, model = fold.load(source.bundle.model(), "Exporting to onnx-int8")
    assert source.calibration is not None
    model = fold.folded(onnx, model)
    chosen = quantised(model.graph)
    candidates: dict[str, bytes] = {}
    off: dict[str, float] = {}
    for method in METHODS:
        made = _quantise(onnx, model, chosen, source.calibration, method)
        onnx.helper.set_model_props(made, source.texts)
        candidates[method] = made.SerializeToString(deterministic=True)
        off[method] = _distance(candidates[method], source)
    best = min(off, key=lambda method: off[method])
    (folder / MODEL).write_bytes(candidates[best])
    products = [node.op_type for node in model.graph.node if node.op_type in _PRODUCTS]
    said = {
        "weights": "int8, 7 bits, by channel",
        "activations": "uint8, by tensor",
        "quantised": sum(node.op_type in _PRODUCTS for node in model.graph.node if node.name in chosen),
        "products": len(products),
        "calibration": {"method": best, "images": len(source.calibration), "mean_difference": off},
    }
    return MODEL, said


def quantised(graph: Any) -> list[str]:
    """The names of the nodes that are quantised: every product with constant weights but the first and the last, and
    the max pools, which take what comes in 8 bits as it is."""
    constants = {tensor.name for tensor in graph.initializer}
    for index, node in enumerate(graph.node):
        node.name = node.name or f"node{index}"
    products = [n.name for n in graph.node if n.op_type in _PRODUCTS and n.input[1] in constants]
    pools = [n.name for n in graph.node if n.op_type == "MaxPool"]
    return [*products[1:-1], *pools] if len(products) > 2 else []


def _quantise(onnx: Any, model: Any, nodes: list[str], images: np.ndarray, method: str) -> Any:
    from onnxruntime import quantization as tools

    if not nodes:  # it would take none for all
        return onnx.ModelProto.FromString(model.SerializeToString())
    with tempfile.TemporaryDirectory(prefix="tenfold-export-") as temporary:
        before, after = Path(temporary) / "before.onnx", Path(temporary) / "after.onnx"
        before.write_bytes(model.SerializeToString())
        tools.quantize_static(
            before,
            after,
            _Reader(images),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=[*_PRODUCTS, "MaxPool"],
            nodes_to_quantize=nodes,
            per_channel=True,
            reduce_range=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=getattr(tools.CalibrationMethod, METHODS[method]),
            extra_options={"CalibPercentile": PERCENTILE},
        )
        return onnx.load_from_string(after.read_bytes())


class _Reader:
    """Calibration images as ONNX Runtime's tools ask for them, a batch at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self._size = max(1, BATCH_BYTES // max(1, images[0].size))
        self._images = images
        self._batches = self._all()

    def _all(self) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(self._images), self._size):
            yield {reader.INPUT: np.ascontiguousarray(self._images[start : start + self._size])}

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)

    def rewind(self) -> None:
        self._batches = self._all()


def _distance(data: bytes, source: Source) -> float:
    """Mean absolute difference of a probability from the bundle's on the validation images; 0 without any, so that the
    first way is taken."""
    if source.images is None or source.expected is None or not len(source.images):
        return 0.0
    answers = runtime.open(data, where="the quantised model").probabilities(source.images)
    return float(np.abs(answers - source.expected).mean())
