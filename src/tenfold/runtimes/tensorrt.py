"""TensorRT on an NVIDIA card, through ONNX Runtime's provider, for what ``export.tensorrt`` writes.

An artifact holds two graphs: ``model.onnx``, which says what is computed, and ``engine.onnx``, one node with the engine
that TensorRT built from it. An engine is machine code for one card and one version, so a stranger's is never run: this
module opens those alone that were built here. ``build`` leaves a note of each in tenfold's cache folder, under the
engine's SHA-256, with the card and the versions that it is for.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import hashlib
import importlib
import importlib.util
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import hardware, paths
from tenfold.errors import BundleError, CallError, UnsupportedError
from tenfold.runtimes import batches, graph, onnxruntime, providers
from tenfold.runtimes.batches import Sizes
from tenfold.runtimes.onnxruntime import OnnxRuntime
from tenfold.runtimes.savedmodel import texts

ENGINE = "engine.onnx"
BUILT_FOR = "tenfold.built_for"  # among model.onnx's metadata
HINT = providers.INSTALL.format(" tensorrt") + "; the versions that fit each other are in ONNX Runtime's documentation."
_AGAIN = "Export its run again on the machine that is to compute it: tenfold export RUN --format tensorrt"
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h


@dataclass(frozen=True)
class Place:
    """What an engine is for: a card by its name and compute capability (``9.0``), and the versions that built it."""

    card: str
    capability: str
    tensorrt: str
    onnxruntime: str

    def __str__(self) -> str:
        versions = f"TensorRT {self.tensorrt}, ONNX Runtime {self.onnxruntime}"
        return f"{self.card} (compute capability {self.capability}), {versions}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))


# ---- what is here ----------------------------------------------------------------------------------------------------


def missing(package: Any = None) -> str | None:
    """What TensorRT lacks here, in a sentence; None where all is there. ``package``: ONNX Runtime's."""
    package = package or _package()
    found = package.get_available_providers()
    if providers.TENSORRT not in found:
        return f"ONNX Runtime has no TensorRT here; it has {providers.listed(found)}."
    if card() is None:
        return "There is no NVIDIA card here, or its driver is not loaded."
    if importlib.util.find_spec("tensorrt") is None and ctypes.util.find_library("nvinfer") is None:
        return "The package tensorrt is not installed."
    return None


def require(package: Any = None) -> None:
    """UnsupportedError, saying what is missing and how to get it, where TensorRT can't be had here."""
    if (lacking := missing(package)) is not None:
        raise UnsupportedError(lacking, HINT)


def card() -> tuple[str, str] | None:
    """Name and compute capability of the first card, by its driver; None where there is none."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(name, 256, device):
        return None
    numbers = []
    for attribute in _CAPABILITY:
        number = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return None
        numbers.append(str(number.value))
    return name.value.decode(errors="replace"), ".".join(numbers)


def here(package: Any = None) -> Place:
    """The first card, and the versions installed."""
    name, capability = card() or ("no card", "")
    return Place(name, capability, _version(), str((package or _package()).__version__))


def version() -> str:
    """``onnxruntime`` and its version, and TensorRT's."""
    return f"onnxruntime {_package().__version__}, TensorRT {_version()}"


def _version() -> str:
    found = hardware.versions("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
    return next((found[name] for name in ("tensorrt", "tensorrt-cu12", "tensorrt-cu13") if name in found), "unknown")


def _package() -> Any:
    import onnxruntime as package

    return package


def _libraries() -> None:
    """TensorRT's libraries, from its package where there is one: ONNX Runtime finds them once they are loaded."""
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # float32 is float32: TensorRT would take TF32, of 10 bits
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt")


# ---- building --------------------------------------------------------------------------------------------------------


def options(sizes: Sizes, *, half: bool, engine: Path | None = None) -> dict[str, str]:
    """The provider's options. The batch runs from 1 to what ``batches.ask`` gives at once, which it is fastest for.

    ``half``: TensorRT may compute in float16. ``engine``: where the graph with the engine inside is written.
    """
    most = batches.most(sizes)
    found = {"device_id": "0", "trt_fp16_enable": "1" if half else "0"}
    for name, count in (("min", 1), ("opt", most), ("max", most)):
        found[f"trt_profile_{name}_shapes"] = f"{graph.INPUT}:{count}x{sizes.height}x{sizes.width}x3"
    if engine is not None:
        found |= {
            "trt_dump_ep_context_model": "1",
            "trt_ep_context_file_path": str(engine),
            "trt_ep_context_embed_mode": "1",
        }
    return found


def build(model: Path, sizes: Sizes, *, half: bool) -> Path:
    """Build the engine of the graph in the file ``model``, beside it, and note that it was built here; its file.

    Raises UnsupportedError where TensorRT can't hold all of the graph.
    """
    engine = model.with_name(ENGINE)
    _libraries()
    package, where = _package(), model.name
    try:
        session = providers.session(
            package,
            str(model),
            _options(package),
            (providers.TENSORRT, options(sizes, half=half, engine=engine)),
            where,
        )
        pixels = np.zeros((batches.most(sizes), sizes.height, sizes.width, 3), np.uint8)
        session.run([graph.OUTPUT], {graph.INPUT: pixels})
    except BundleError as error:
        raise UnsupportedError(error.message) from error
    except CallError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise UnsupportedError(f"TensorRT can't compute it: {batches.first_line(error)}") from error
    if not engine.is_file():
        raise UnsupportedError("TensorRT holds no part of the network, or this ONNX Runtime writes no engine.")
    whole(engine)
    note(engine, here(package))
    return engine


def whole(engine: Path) -> None:
    """UnsupportedError unless the graph is one node, TensorRT's: what stood beside it would be computed elsewhere."""
    import onnx

    nodes = onnx.load(str(engine)).graph.node
    beside = sorted({node.op_type for node in nodes if node.op_type != "EPContext"})
    if beside or len(nodes) != 1:
        parts = f"; outside stay {', '.join(beside)}" if beside else f", but {len(nodes)} parts of it"
        raise UnsupportedError(f"TensorRT can't hold the whole network{parts}.")


def note(engine: Path, place: Place) -> None:
    """Keep in the cache folder that ``engine`` was built here, and for what."""
    path = _note(engine.read_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    paths.write_whole(path, place.to_json() + "\n")


def _note(engine: bytes) -> Path:
    return paths.cache_folder() / "tensorrt" / f"{hashlib.sha256(engine).hexdigest()}.json"


def _options(package: Any) -> Any:
    made = package.SessionOptions()
    made.log_severity_level = 4
    return made


# ---- opening ---------------------------------------------------------------------------------------------------------


def metadata(path: Path, where: str) -> dict[str, str]:
    """The texts of model.onnx, which is read through as every ONNX model."""
    return graph.inspect(onnxruntime.read(path), where)


def open_artifact(path: Path, *, threads: int | None = None, where: str) -> OnnxRuntime:
    """The engine beside the model.onnx ``path``, ready to answer. ``threads`` means nothing on a card.

    Raises UnsupportedError where TensorRT can't be had, for an engine of another card or other versions, and for one
    that was not built here; BundleError where it does not load.
    """
    said = metadata(path, where)
    if (lacking := missing()) is not None:
        raise UnsupportedError(f"{where} is computed by TensorRT. {lacking}", HINT)
    engine = onnxruntime.read(path.with_name(ENGINE))
    admit(engine, said, here(), where)
    _libraries()
    package = _package()
    settings = {"device_id": "0"}
    session = providers.session(package, engine, _options(package), (providers.TENSORRT, settings), where)
    return OnnxRuntime(session, where, said)


def admit(engine: bytes, said: dict[str, str], now: Place, where: str) -> None:
    """Refuses an engine that was built for another place than ``now``, or elsewhere: UnsupportedError."""
    built_for = texts(said.get(BUILT_FOR, "{}").encode(), f"{where}: {BUILT_FOR}")
    if built_for != asdict(now):
        try:
            then = str(Place(**built_for))
        except TypeError:
            raise BundleError(f"{where}: {BUILT_FOR} does not say which card its engine is for.") from None
        raise UnsupportedError(f"{where} holds an engine for {then}; here is {now}.", _AGAIN)
    path = _note(engine)
    if not path.is_file() or path.read_text().strip() != now.to_json():
        raise UnsupportedError(
            f"{where} holds an engine that was not built here, and tenfold runs no machine code of others.",
            _AGAIN,
        )
