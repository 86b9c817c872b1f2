"""OpenVINO on the CPU, or on its other devices: a second runtime for model.onnx, by other authors, and the one for its
own IR, which ``export.openvino_ir`` writes. The only importer of the package openvino.

It computes in float32 unless asked otherwise: left alone, OpenVINO takes bfloat16 on a processor that has it, which
moved the probabilities of a model of digits by 3e-4 where float32 moves them by 2e-7.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import hardware
from tenfold.errors import BundleError, CallError, DeviceError, MissingExtraError, UnknownNameError, UnsupportedError
from tenfold.runtimes import batches, graph, ir
from tenfold.runtimes.base import Node, Runtime
from tenfold.runtimes.batches import Sizes
from tenfold.runtimes.onnxruntime import read

_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoRuntime(Runtime):
    """A model in OpenVINO. Made by :func:`open`."""

    name = "openvino"

    def __init__(self, compiled: Any, where: str) -> None:
        self._compiled = compiled
        self._where = where
        self.device = ", ".join(compiled.get_property("EXECUTION_DEVICES")).lower()
        self.sizes = _sizes(compiled, where)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches.

        Raises CallError for another dtype or shape, BundleError where the model fails or gives no finite numbers.
        """

        def answer(batch: np.ndarray) -> np.ndarray:
            return np.asarray(self._compiled({graph.INPUT: batch})[graph.OUTPUT])

        return batches.ask(answer, images, self.sizes, self._where, "OpenVINO")


def open(
    source: Path | bytes,
    *,
    threads: int | None = None,
    where: str | None = None,
    device: str = "cpu",
    precision: str = "fp32",
) -> OpenVinoRuntime:
    """The model in ``source``, a model.onnx's path or its bytes, ready to answer.

    ``threads``: how many compute one batch on the CPU; None is every core this process may use. ``where`` names bytes
    in errors. ``device``: one of :func:`devices`; ``precision``: ``fp32``, ``bf16``, ``fp16``.

    Raises MissingExtraError without the package openvino, BundleError for a file that is no ONNX model or that
    reaches out of itself (see ``graph``), UnknownNameError and UnsupportedError for a device or a precision that isn't
    to be had here, DeviceError where another device computes.
    """
    if threads is not None and threads < 1:
        raise CallError(f"threads must be 1 or more, not {threads}.")
    where = where or (str(source) if isinstance(source, Path) else "model.onnx")
    data = source if isinstance(source, bytes) else read(source)
    graph.inspect(data, where)
    core = package().Core()
    return _compiled(core, lambda: core.read_model(model=data), threads, where, device, precision)


def devices() -> dict[str, tuple[str, list[str]]]:
    """OpenVINO's devices here (``cpu``, ``gpu``, ``npu``): the hardware's name, and the precisions that it computes in
    natively."""
    core = package().Core()
    found = {}
    for name in core.available_devices:
        able = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
        native = [word for word in _TYPES if word == "fp32" or word.upper() in able]
        found[name.lower()] = (str(core.get_property(name, "FULL_DEVICE_NAME")), native)
    return found


def nodes(
    source: bytes | Path, images: np.ndarray, runs: int, *, threads: int | None = None, where: str
) -> list[list[Node]]:
    """What each node took in each of ``runs`` runs over ``images``, after two that don't count, by OpenVINO's own
    counters. The nodes are those of the graph as it was compiled; its counters tell how long and not when, so nodes
    follow one another from the run's start.

    ``source``: a model.onnx's bytes, or the path of an IR's XML with its weights beside it; both have been inspected.
    Raises BundleError where the model can't be loaded or does not run.
    """
    openvino = package()
    core = openvino.Core()

    def read() -> Any:
        if isinstance(source, bytes):
            return core.read_model(model=source)
        weights = np.frombuffer(_bytes(source.with_suffix(".bin")), np.uint8)
        return core.read_model(_bytes(source), openvino.Tensor(weights))

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads or hardware.cores(),
        "PERF_COUNT": True,
    }
    found, zero = [], time.perf_counter()
    try:
        request = core.compile_model(read(), "CPU", settings).create_infer_request()
        for _ in range(2 + runs):
            at = time.perf_counter() - zero
            request.infer({graph.INPUT: images})
            found.append(_executed(request.profiling_info, at))
    except RuntimeError as error:
        raise BundleError(f"{where} failed in OpenVINO: {_reason(error)}") from error
    return found[2:]


def _executed(counters: Any, at: float) -> list[Node]:
    found = []
    for counter in counters:
        seconds = counter.real_time.total_seconds()
        if seconds > 0:  # what was merged into another node took nothing
            found.append(Node(counter.node_name, counter.node_type, at, seconds))
            at += seconds
    return found


def metadata(path: Path, where: str) -> dict[str, str]:
    """The texts under ``tenfold`` in the ``rt_info`` of an IR's XML, refusing layers that tenfold never writes. See
    ``ir.inspect``."""
    return ir.inspect(_bytes(path), where)


def open_artifact(
    path: Path, *, threads: int | None = None, where: str, device: str = "cpu", precision: str = "fp32"
) -> OpenVinoRuntime:
    """The IR whose XML is ``path``, its weights beside it, ready to answer. As :func:`open` otherwise."""
    text = _bytes(path)
    ir.inspect(text, where)
    weights = np.frombuffer(_bytes(path.with_suffix(".bin")), np.uint8)
    openvino = package()
    core = openvino.Core()
    return _compiled(core, lambda: core.read_model(text, openvino.Tensor(weights)), threads, where, device, precision)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from None


def _compiled(
    core: Any, read: Callable[[], Any], threads: int | None, where: str, device: str, precision: str
) -> OpenVinoRuntime:
    name = device.upper()
    if name != "CPU" and name not in core.available_devices:
        raise UnknownNameError(
            "device", device, [d.lower() for d in core.available_devices], where=" for OpenVINO here"
        )
    if precision not in _TYPES:
        raise UnknownNameError("precision", precision, _TYPES)
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _TYPES[precision]}
    if name == "CPU":
        settings["INFERENCE_NUM_THREADS"] = threads or hardware.cores()
    try:
        compiled = core.compile_model(read(), name, settings)
    except RuntimeError as error:
        raise BundleError(f"{where} can't be loaded by OpenVINO: {_reason(error)}") from error
    if precision != "fp32" and precision.upper() not in core.get_property(name, "OPTIMIZATION_CAPABILITIES"):
        raise UnsupportedError(f"OpenVINO does not compute in {precision} on {device} here.", "Take fp32.")
    runtime = OpenVinoRuntime(compiled, where)
    if runtime.device.partition(".")[0] != device.partition(".")[0]:
        raise DeviceError(f"{device} was asked for, but OpenVINO took {runtime.device}.")
    return runtime


def version() -> str:
    """``openvino`` and its version."""
    return f"openvino {hardware.versions('openvino').get('openvino', '')}".strip()


def package() -> Any:
    """The package, without its telemetry: importing it tells its makers so over the network, unless the package that
    does it can't be imported."""
    hidden = "openvino_telemetry"
    keep = hidden in sys.modules
    if not keep:
        sys.modules[hidden] = None  # type: ignore[assignment]
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise MissingExtraError("openvino", "openvino", "The runtime openvino") from None
    finally:
        if not keep:
            del sys.modules[hidden]
    return openvino


def _sizes(compiled: Any, where: str) -> Sizes:
    """The sizes of a model whose one input and one output are a tenfold model's."""
    inputs, outputs = compiled.inputs, compiled.outputs
    if [i.any_name for i in inputs] != [graph.INPUT] or [o.any_name for o in outputs] != [graph.OUTPUT]:
        raise BundleError(f"{where} does not take {graph.INPUT} and give {graph.OUTPUT}.")
    kinds = inputs[0].element_type.get_type_name(), outputs[0].element_type.get_type_name()
    if kinds != ("u8", "f32"):
        raise BundleError(f"{where} takes {kinds[0]} and gives {kinds[1]}, not uint8 and float.")
    taken, given = list(inputs[0].partial_shape), list(outputs[0].partial_shape)
    fixed = [*taken[1:], *given[1:]]
    if len(taken) != 4 or len(given) != 2 or any(d.is_dynamic for d in fixed) or fixed[2].get_length() != 3:
        raise BundleError(f"{where} takes images of the shape {taken} and gives {given}.")
    return Sizes(fixed[0].get_length(), fixed[1].get_length(), fixed[3].get_length())


def _reason(error: RuntimeError) -> str:
    """OpenVINO's errors begin with the places in its source that they passed."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from ")]
    return batches.first_line(RuntimeError(lines[0] if lines else str(error)))
