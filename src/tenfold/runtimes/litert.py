"""LiteRT on the CPU, for the models that ``export.litert`` writes. The only importer of the package ai_edge_litert.

Its interpreter takes its own operators alone: none of them opens a file, and custom ones are refused.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import hardware
from tenfold.errors import BundleError, CallError, MissingExtraError
from tenfold.runtimes import batches
from tenfold.runtimes.base import Runtime
from tenfold.runtimes.batches import Sizes
from tenfold.runtimes.savedmodel import MAX_METADATA, texts

METADATA = "tenfold.json"
MAX_BYTES = 2**31 - 1  # a FlatBuffer's own limit


class LiteRtRuntime(Runtime):
    """A model in LiteRT. Made by :func:`open_artifact`."""

    name = "litert"
    device = "cpu"

    def __init__(self, interpreter: Any, where: str) -> None:
        self._interpreter, self._where = interpreter, where
        self.sizes = _sizes(interpreter, where)
        self._input = interpreter.get_input_details()[0]["index"]
        self._output = interpreter.get_output_details()[0]["index"]
        self._count: int | None = None  # images that memory is laid out for

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches.

        Raises CallError for another dtype or shape, BundleError where the model fails or gives no finite numbers.
        """

        def answer(batch: np.ndarray) -> np.ndarray:
            if len(batch) != self._count:
                self._interpreter.resize_tensor_input(self._input, batch.shape)
                self._interpreter.allocate_tensors()
                self._count = len(batch)
            self._interpreter.set_tensor(self._input, batch)
            self._interpreter.invoke()
            found: np.ndarray = self._interpreter.get_tensor(self._output)
            return found

        return batches.ask(answer, images, self.sizes, self._where, "LiteRT")


def metadata(path: Path, where: str) -> dict[str, str]:
    """The texts in tenfold.json of the ZIP archive at the end of the model."""
    try:
        with zipfile.ZipFile(io.BytesIO(_read(path))) as archive:
            entry = archive.getinfo(METADATA)
            if entry.file_size > MAX_METADATA:
                raise BundleError(f"{where}: {METADATA} is larger than {MAX_METADATA >> 20} MiB.")
            data = archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError):
        raise BundleError(f"{where} is damaged, or a TFLite model without tenfold's metadata.") from None
    return texts(data, f"{where}: {METADATA}")


def open_artifact(path: Path, *, threads: int | None = None, where: str) -> LiteRtRuntime:
    """The model in the file ``path``, ready to answer. ``threads``: how many compute one batch; None is every core this
    process may use. Raises MissingExtraError without LiteRT, BundleError for a file that is no such model."""
    if threads is not None and threads < 1:
        raise CallError(f"threads must be 1 or more, not {threads}.")
    try:
        from ai_edge_litert import interpreter as litert
    except ImportError:
        raise MissingExtraError("ai_edge_litert", "litert", "A LiteRT model") from None
    try:
        made = litert.Interpreter(model_content=_read(path), num_threads=threads or hardware.cores())
        return LiteRtRuntime(made, where)
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"{where} can't be loaded by LiteRT: {batches.first_line(error)}") from error


def version() -> str:
    """``ai-edge-litert`` and its version."""
    return f"ai-edge-litert {hardware.versions('ai-edge-litert').get('ai-edge-litert', '')}".strip()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BundleError(f"{path} is larger than a TFLite file can be (2 GiB).")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}.") from None


def _sizes(interpreter: Any, where: str) -> Sizes:
    """The sizes of a model whose one input and one output are a tenfold model's."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1 or (inputs[0]["dtype"], outputs[0]["dtype"]) != (np.uint8, np.float32):
        raise BundleError(f"{where} does not take uint8 pixels alone and give float32 probabilities alone.")
    shape, last = inputs[0]["shape_signature"].tolist(), outputs[0]["shape_signature"].tolist()
    if len(shape) != 4 or len(last) != 2 or shape[3] != 3 or min(*shape[1:], last[1]) < 1:
        raise BundleError(f"{where} takes images of the shape {shape} and gives {last}.")
    return Sizes(shape[1], shape[2], last[1])
