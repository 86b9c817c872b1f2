"""A target opened in the runtime, device and precision of a configuration, and what else that runtime has here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenfold import hardware
from tenfold.benchmarking import cards
from tenfold.bundle import store
from tenfold.bundle.manifest import MODEL
from tenfold.data.dataset import Geometry
from tenfold.engines.base import ENGINES
from tenfold.errors import CallError, DeviceError, UnsupportedError
from tenfold.runtimes import base, graph, onnxruntime
from tenfold.runtimes.base import Runtime


@dataclass(frozen=True)
class Opened:
    """``runtime`` ready to answer pictures of ``geometry``; ``graph`` is the ONNX graph's bytes where ONNX Runtime
    computes it, ``label`` what the device is."""

    runtime: Runtime
    geometry: Geometry
    label: str
    graph: bytes | None = None


def open(
    path: Path, kind: str, runtime: str, *, device: str = "cpu", precision: str = "fp32", threads: int | None = None
) -> Opened:
    """``kind``: the target's format, ``bundle``, ``model.onnx`` or an artifact's. Raises as the runtimes do."""
    if runtime == "onnxruntime" and device != "cpu":
        _check_onnx(device)
    if kind not in ("bundle", MODEL):
        return _artifact(path, device, threads)
    if kind == MODEL:
        data, where = onnxruntime.read(path), str(path)
    else:
        bundle = store.open(path)
        if runtime in ENGINES:
            from tenfold.runtimes import engine

            made = engine.open(runtime, bundle, device, precision)
            return Opened(made, bundle.manifest.geometry, made.label)
        data, where = bundle.model(), f"{bundle.path}: {MODEL}"
    metadata = graph.inspect(data, where)
    geometry = graph.describe(metadata, where).geometry
    if runtime == "onnxruntime":
        opened = onnxruntime.start(data, metadata, threads=threads, device=device, where=where)
        return Opened(opened, geometry, _label(runtime, opened.device, device), data)
    found = base.load(runtime).open(data, threads=threads, where=where, device=device, precision=precision)
    return Opened(found, geometry, _label(runtime, found.device, device))


def _check_onnx(device: str) -> None:
    """UnsupportedError where ONNX Runtime was built without the device: it can't be had here, which is no failure."""
    try:
        onnxruntime.check_device(device)
    except CallError as error:
        raise UnsupportedError(error.message, error.hint) from None


def _artifact(path: Path, device: str, threads: int | None) -> Opened:
    from tenfold.export import artifact

    found = artifact.open(path, threads=threads, device=device)
    made = found.start()
    data = onnxruntime.read(path / found.artifact.model) if found.artifact.runtime == "onnxruntime" else None
    return Opened(made, found.said.geometry, _label(found.artifact.runtime, made.device, device), data)


def _label(runtime: str, ran_on: str, device: str) -> str:
    """The hardware's name."""
    if ran_on == "cpu":
        return hardware.cpu_name()
    if runtime == "openvino":
        from tenfold.runtimes import openvino

        return openvino.devices().get(device, (device, []))[0]
    from tenfold.runtimes import tensorrt

    number = int(device.partition(":")[2] or 0)
    first = tensorrt.card() if number == 0 else None
    return cards.name(number) or (first[0] if first else device)


def devices(runtime: str) -> dict[str, list[str]]:
    """The devices that a runtime has here, of several alike the first, each with the precisions that it computes in
    natively."""
    if runtime == "onnxruntime":
        return {name: ["fp32"] for name in onnxruntime.devices()}
    if runtime == "openvino":
        from tenfold.runtimes import openvino

        return {name: native for name, (_, native) in openvino.devices().items()}
    if runtime not in ENGINES:
        return {"cuda" if runtime == "tensorrt" else "cpu": ["fp32"]}
    from tenfold.engines import base as engines

    engine = engines.load(runtime)
    found: dict[str, list[str]] = {}
    labels = set()
    for device in engine.devices():
        if device.label not in labels:
            labels.add(device.label)
            found[device.name] = engine.precisions(device)
    return found


def provider(opened: Opened, images: np.ndarray, device: str) -> str:
    """What of ONNX Runtime computed, by its own profile: ``CUDAExecutionProvider``, and how many of the operators it
    had where others had some. DeviceError where the network's work was another provider's."""
    assert opened.graph is not None and isinstance(opened.runtime, onnxruntime.OnnxRuntime)
    wanted = opened.runtime.provider
    found = onnxruntime.placed(opened.graph, images, device=device, where=MODEL)
    count = {name: sum(operators.values()) for name, operators in found.items()}
    if wanted not in count:
        raise DeviceError(f"By its profile ONNX Runtime computed nothing on {wanted}.")
    if len(count) == 1:
        return wanted
    rest = ", ".join(f"{n} on {name}" for name, n in count.items() if name != wanted)
    return f"{wanted} ({count[wanted]} of {sum(count.values())} operators; {rest})"
