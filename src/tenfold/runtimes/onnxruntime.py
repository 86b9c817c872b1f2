"""ONNX Runtime on the CPU, the runtime that is always there, or on an NVIDIA card. With ``tensorrt`` the only importer
of the package onnxruntime.

Nothing falls back silently: the session is asked for one provider, and ``device`` says which it has (``providers``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import hardware
from tenfold.errors import BundleError, CallError, DeviceError
from tenfold.runtimes import batches, graph, providers
from tenfold.runtimes.base import Node, Runtime
from tenfold.runtimes.batches import Sizes

# An operator whose name has one of these computes what a network is about; the rest moves and shapes.
HEAVY = ("Conv", "MatMul", "Gemm")


class OnnxRuntime(Runtime):
    """A model in ONNX Runtime. Made by :func:`open` and :func:`start`.

    ``sizes`` are the graph's own; ``provider`` is what computes (``CPUExecutionProvider``); ``metadata`` its texts,
    unchecked beyond their bounds.
    """

    name = "onnxruntime"

    def __init__(self, session: Any, where: str, metadata: dict[str, str]) -> None:
        self._session = session
        self._where = where
        self.metadata = metadata
        self.device = _device(session)
        self.provider: str = session.get_providers()[0]
        self.sizes = sizes(session, where)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches.

        Raises CallError for another dtype or shape, BundleError where the model fails or gives no finite numbers.
        """

        def answer(batch: np.ndarray) -> np.ndarray:
            found: np.ndarray = self._session.run([graph.OUTPUT], {graph.INPUT: batch})[0]
            return found

        return batches.ask(answer, images, self.sizes, self._where, "ONNX Runtime")


def open(source: Path | bytes, *, threads: int | None = None, where: str | None = None) -> OnnxRuntime:
    """The model in ``source``, a model.onnx's path or its bytes, ready to answer.

    ``threads``: how many compute one batch; None is every core this process may use. ``where`` names bytes in
    errors.

    Raises BundleError for a file that is no ONNX model or that reaches out of itself (see ``graph``).
    """
    where = where or (str(source) if isinstance(source, Path) else "model.onnx")
    data = source if isinstance(source, bytes) else read(source)
    metadata = graph.inspect(data, where)
    return start(data, metadata, threads=threads, where=where)


def start(
    data: bytes,
    metadata: dict[str, str],
    *,
    threads: int | None = None,
    quick: bool = False,
    device: str = "auto",
    where: str,
) -> OnnxRuntime:
    """A runtime for the model in ``data``, which ``graph.inspect`` has passed and read ``metadata`` from.

    ``quick``: the graph runs as it is written, on one thread. It starts in half the time and answers at half the
    speed: for a few pictures. ``device``: ``auto`` and ``cpu`` are the CPU, ``cuda`` and ``cuda:1`` a card, where
    ``quick`` means nothing. Raises CallError for a device that ONNX Runtime hasn't got here.
    """
    _check_threads(threads)
    quick = quick and providers.card_of(device) is None
    return OnnxRuntime(_session(data, 1 if quick else threads, quick, where, device), where, metadata)


def check_device(device: str) -> None:
    """CallError, before a model is read, for a device that ONNX Runtime can't compute on here."""
    if providers.card_of(device) is not None:
        import onnxruntime

        providers.require(onnxruntime, providers.CUDA)


def devices() -> list[str]:
    """Names for ``start`` of what this build of ONNX Runtime was made for, ``cpu`` last. Whether a card is there shows
    when it is asked for."""
    import onnxruntime

    return [*(["cuda"] if providers.CUDA in onnxruntime.get_available_providers() else []), "cpu"]


def placed(data: bytes, images: np.ndarray, *, device: str = "cpu", where: str) -> dict[str, dict[str, int]]:
    """On which provider each operator of the model in ``data`` runs, by ONNX Runtime's own profile of one answer to
    ``images`` (uint8 N×H×W×3): provider → operator → how many. Raises as :func:`start` does.

    DeviceError where a convolution or a product of matrices ran on another provider than the device's.
    """
    import json
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tenfold-profile-") as folder:
        session = _session(data, None, False, where, device, f"{folder}/profile")
        session.run([graph.OUTPUT], {graph.INPUT: images})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    found: dict[str, dict[str, int]] = {}
    for event in events:
        told = event.get("args", {}) if event.get("name", "").endswith("_kernel_time") else {}
        if "provider" in told:
            operators = found.setdefault(told["provider"], {})
            operators[told["op_name"]] = operators.get(told["op_name"], 0) + 1
    wanted = providers.CPU if providers.card_of(device) is None else providers.CUDA
    for provider, operators in found.items():
        heavy = sorted(name for name in operators if any(word in name for word in HEAVY))
        if provider != wanted and heavy:
            raise DeviceError(f"{where}: {', '.join(heavy)} ran on {provider}, not on {wanted}, in ONNX Runtime.")
    return found


def values(data: bytes, images: np.ndarray, names: list[str], where: str) -> list[np.ndarray]:
    """What the outputs called ``names`` of a graph of our own making come to for ``images``. BundleError where it
    does not run."""
    session = _session(data, None, True, where)
    try:
        found: list[np.ndarray] = session.run(names, {graph.INPUT: images})
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise BundleError(f"{where} failed in ONNX Runtime: {batches.first_line(error)}") from error
    return found


def nodes(data: bytes, images: np.ndarray, runs: int, *, threads: int | None = None, where: str) -> list[list[Node]]:
    """What each node took in each of ``runs`` runs over ``images``, after two that don't count, by ONNX Runtime's own
    profiler. The nodes are those of the graph as it was optimized.

    Raises BundleError where the model can't be loaded or does not run.
    """
    import json
    import tempfile

    _check_threads(threads)
    with tempfile.TemporaryDirectory(prefix="tenfold-profile-") as folder:
        session = _session(data, threads, False, where, profile=f"{folder}/profile")
        try:
            for _ in range(2 + runs):
                session.run([graph.OUTPUT], {graph.INPUT: images})
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BundleError(f"{where} failed in ONNX Runtime: {batches.first_line(error)}") from error
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return nodes_by_run(events)[2:]


def nodes_by_run(events: Sequence[dict[str, Any]]) -> list[list[Node]]:
    """The nodes of each run in the events of ONNX Runtime's profiler (microseconds)."""
    runs = sorted((e for e in events if e.get("name") == "model_run"), key=lambda e: e["ts"])
    found: list[list[Node]] = [[] for _ in runs]
    at = 0
    for event in sorted((e for e in events if e.get("cat") == "Node"), key=lambda e: e["ts"]):
        name = str(event["name"])
        if not name.endswith("_kernel_time"):
            continue
        while at < len(runs) and event["ts"] > runs[at]["ts"] + runs[at]["dur"]:
            at += 1
        if at < len(runs) and event["ts"] >= runs[at]["ts"]:
            operator = str(event.get("args", {}).get("op_name", ""))
            node = Node(name.removesuffix("_kernel_time"), operator, event["ts"] / 1e6, event["dur"] / 1e6)
            found[at].append(node)
    return found


class OnnxValues:
    """A graph that ``graph.inspect`` has passed and that ``nodes.with_outputs`` has given more outputs, all of which it
    tells. ``threads`` and ``quick`` as for :func:`start`."""

    def __init__(self, data: bytes, *, threads: int | None = None, quick: bool = False, where: str) -> None:
        _check_threads(threads)
        self._session = _session(data, 1 if quick else threads, quick, where)
        self._names = [output.name for output in self._session.get_outputs()]
        self._where = where

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Each output by its name, of uint8 images N×H×W×3, all of them at once.

        Raises BundleError where the model fails or its values are not finite."""
        try:
            found = dict(zip(self._names, self._session.run(None, {graph.INPUT: images}), strict=True))
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise BundleError(f"{self._where} failed in ONNX Runtime: {batches.first_line(error)}") from error
        if not all(np.isfinite(value).all() for value in found.values()):
            raise BundleError(f"{self._where} gives numbers that are not finite.")
        return found


def version() -> str:
    """``onnxruntime`` and its version."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def read(path: Path) -> bytes:
    """The bytes of a model.onnx; BundleError where it can't be read or is larger than such a file can be."""
    try:
        size = path.stat().st_size
        if size > graph.MAX_BYTES:
            raise BundleError(f"{path} is larger than an ONNX file can be (2 GiB).")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from None


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise CallError(f"threads must be 1 or more, not {threads}.")


def _session(
    data: bytes, threads: int | None, quick: bool, where: str, device: str = "cpu", profile: str | None = None
) -> Any:
    """``profile``: how the path of a profile begins, which the session then writes."""
    import onnxruntime

    card = providers.card_of(device)
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or hardware.cores()
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if quick else levels.ORT_ENABLE_ALL
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if card is not None:
        return providers.session(onnxruntime, data, options, providers.on_cuda(card), where)
    try:
        return onnxruntime.InferenceSession(data, options, providers=[providers.CPU])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise BundleError(f"{where} can't be loaded by ONNX Runtime: {batches.first_line(error)}") from error


def _device(session: Any) -> str:
    """What the session runs on, from the first of its providers: ``CPUExecutionProvider`` is ``cpu``."""
    provider: str = session.get_providers()[0]
    return provider.removesuffix("ExecutionProvider").lower()


def sizes(session: Any, where: str) -> Sizes:
    """The sizes of a session whose one input and one output are a tenfold model's."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [i.name for i in inputs] != [graph.INPUT] or [o.name for o in outputs] != [graph.OUTPUT]:
        raise BundleError(f"{where} does not take {graph.INPUT} and give {graph.OUTPUT}.")
    pixels, answer = inputs[0], outputs[0]
    if pixels.type != "tensor(uint8)" or answer.type != "tensor(float)":
        raise BundleError(f"{where} takes {pixels.type} and gives {answer.type}, not uint8 and float.")
    shape, (*_, classes) = pixels.shape, answer.shape or [None]
    if len(shape) != 4 or shape[3] != 3 or not all(isinstance(v, int) for v in (*shape[1:], classes)):
        raise BundleError(f"{where} takes images of the shape {shape} and gives {answer.shape}.")
    return Sizes(shape[1], shape[2], classes)
