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
from tenfold.errors import CallError
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
        opened = onnxruntime.start(data, metadata, threads=threads, device=device, precision=precision, where=where)
        return Opened(opened, geometry, _label(runtime, opened.device, device), data)
    found = base.load(runtime).open(data, threads=threads, where=where, device=device, precision=precision)
    return Opened(found, geometry, _label(runtime, found.device, device))


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
    return cards.name(int(device.partition(":")[2] or 0)) or device


def devices(runtime: str) -> dict[str, list[str]]:
    """The devices that a runtime has here, of several alike the first, each with the precisions that it computes in
    natively."""
    if runtime == "onnxruntime":
        return {name: ["fp32", "fp16"] if name == "tensorrt" else ["fp32"] for name in onnxruntime.devices()}
    if runtime == "openvino":
        from tenfold.runtimes import openvino

        return {name: native for name, (_, native) in openvino.devices().items()}
    if runtime not in ENGINES:
        return {"cpu": ["fp32"]}
    from tenfold.engines import base as engines

    engine = engines.load(runtime)
    found: dict[str, list[str]] = {}
    labels = set()
    for device in engine.devices():
        if device.label not in labels:
            labels.add(device.label)
            found[device.name] = engine.precisions(device)
    return found


def provider(opened: Opened, images: np.ndarray, device: str, precision: str) -> str:
    """What of ONNX Runtime computed, by its own profile: ``CUDAExecutionProvider``, and how many of the operators it
    had where others had some. DeviceError where the network's work was another provider's."""
    assert opened.graph is not None
    found = onnxruntime.placed(opened.graph, images, device=device, precision=precision, where=MODEL)
    wanted = onnxruntime.PROVIDERS[device.partition(":")[0]]
    count = {name: sum(operators.values()) for name, operators in found.items()}
    if set(count) == {wanted}:
        return wanted
    if wanted not in count:
        raise CallError(f"ONNX Runtime's profile does not tell of {wanted}.")
    rest = ", ".join(f"{n} on {name}" for name, n in count.items() if name != wanted)
    return f"{wanted} ({count[wanted]} of {sum(count.values())} operators; {rest})"
