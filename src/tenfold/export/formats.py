"""The formats of ``tenfold export``: what writes each, what opens it again, and how far its answers may be off."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

from tenfold.errors import CallError, MissingExtraError, UnknownNameError, UnsupportedError
from tenfold.export.gate import EXACT, FP16, INT8, Tolerance
from tenfold.runtimes import base as runtimes

ALL = "all"
NOT_HERE = "{} can't be exported here. "


@dataclass(frozen=True)
class Format:
    """One format.

    line         what it is, for a list
    writer       the module of ``tenfold.export`` with ``write``
    runtime      the module of ``tenfold.runtimes`` that opens it
    tolerance    how far its answers may be off
    needs        (package, extra that brings it) for writing and opening
    calibrated   whether it is quantised, for which training images are needed
    hardware     whether its runtime, which has ``missing()``, is to be had on some machines only
    """

    line: str
    writer: str
    runtime: str
    tolerance: Tolerance
    needs: tuple[tuple[str, str], ...] = ()
    calibrated: bool = False
    hardware: bool = False

    def missing(self) -> tuple[str, str] | None:
        """The first package that is not installed, and its extra."""
        return next(((p, extra) for p, extra in self.needs if importlib.util.find_spec(p) is None), None)

    def require(self, name: str) -> None:
        """Refuses the format, called ``name``, where it can't be had: UnsupportedError where this machine hasn't got
        what its runtime is for, MissingExtraError where a package is not installed."""
        if self.hardware:
            try:
                runtimes.load(self.runtime).require()
            except UnsupportedError as error:
                raise UnsupportedError(NOT_HERE.format(name) + error.message, error.hint) from None
        if (missing := self.missing()) is not None:
            raise MissingExtraError(*missing, f"Exporting to {name}")


_ONNX = (("onnx", "torch"),)
_SAVED = (("tensorflow", "tensorflow"), ("keras", "tensorflow"))
_LITE = (*_SAVED, ("ai_edge_litert", "litert"))

FORMATS: dict[str, Format] = {
    "onnx": Format("ONNX in float32: the bundle's own graph", "onnx_copy", "onnxruntime", EXACT),
    "onnx-fp16": Format("ONNX, weights and activations in float16", "fp16", "onnxruntime", FP16, _ONNX),
    "onnx-int8": Format(
        "ONNX, convolutions and products quantised to 8 bits", "int8", "onnxruntime", INT8, _ONNX, calibrated=True
    ),
    "openvino": Format(
        "OpenVINO's IR, weights in float32", "openvino_ir", "openvino", EXACT, (("openvino", "openvino"),)
    ),
    "openvino-fp16": Format(
        "OpenVINO's IR, weights stored as float16", "openvino_fp16", "openvino", FP16, (("openvino", "openvino"),)
    ),
    "saved-model": Format("TensorFlow's SavedModel", "saved_model", "savedmodel", EXACT, _SAVED),
    "litert": Format("LiteRT (TensorFlow Lite)", "litert", "litert", EXACT, _LITE),
    "litert-int8": Format("LiteRT, quantised to 8 bits", "litert_int8", "litert", INT8, _LITE, calibrated=True),
    "torch-export": Format("PyTorch's torch.export, .pt2", "torch_export", "torchexport", EXACT, (("torch", "torch"),)),
    "triton": Format("a model repository for NVIDIA Triton, with model.onnx", "triton", "onnxruntime", EXACT),
    "tensorrt": Format(
        "NVIDIA's TensorRT, an engine for the card that is here", "tensorrt", "tensorrt", EXACT, _ONNX, hardware=True
    ),
    "tensorrt-fp16": Format(
        "the same, in float16 where that is faster", "tensorrt_fp16", "tensorrt", FP16, _ONNX, hardware=True
    ),
}


def choose(names: Iterable[str]) -> list[str]:
    """The formats named, each once; ``all`` is every one, installed or not.

    Raises CallError where none is named, UnknownNameError, MissingExtraError for a named one whose packages are not
    installed, or UnsupportedError for one that this machine can't have.
    """
    given = list(dict.fromkeys(names))
    if not given:
        raise CallError("No format is named.", f"Give --format {ALL}, or one or more of: {', '.join(FORMATS)}.")
    if ALL in given:
        return list(FORMATS)
    for name in given:
        if name not in FORMATS:
            raise UnknownNameError("format", name, [*FORMATS, ALL], limit=20)
        FORMATS[name].require(name)
    return given
