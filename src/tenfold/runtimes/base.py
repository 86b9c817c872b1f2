"""The runtime contract: a bundle and a device in, probabilities out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.errors import MissingExtraError, UnknownNameError

if TYPE_CHECKING:
    from types import ModuleType


class Runtime(ABC):
    """A model ready to answer. Made by each runtime module's ``open(source, ...)``; holds no other state.

    ``device`` is what it really runs on (``cpu``), never what was only asked for.
    """

    name: str
    device: str

    @abstractmethod
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches."""


@dataclass(frozen=True)
class Node:
    """A node of a graph as a runtime's own profiler timed it in one run: from ``start`` on, in seconds from a zero that
    is the same for all runs, it took ``seconds``. ``operator`` is what it computes: ``Conv``."""

    name: str
    operator: str
    start: float
    seconds: float


RUNTIMES: dict[str, tuple[str, str | None]] = {
    # name: (package that must be importable, extra that brings it; None where tenfold itself does)
    "onnxruntime": ("onnxruntime", None),
    "openvino": ("openvino", "openvino"),
}

# Those that open exported artifacts alone, by ``metadata(path, where)`` → texts and ``open_artifact(path, threads=…,
# where=…)`` → Runtime; openvino does that too.
ARTIFACTS: dict[str, tuple[str, str | None]] = {
    "openvino": RUNTIMES["openvino"],
    "savedmodel": ("tensorflow", "tensorflow"),
    "litert": ("ai_edge_litert", "litert"),
    "torchexport": ("torch", "torch"),
    "tensorrt": ("onnxruntime", None),
}


def load(name: str) -> ModuleType | Any:
    """The module of the runtime called ``name``, with ``open(source, where=…)`` → Runtime where it is one of RUNTIMES,
    and ``version()``.

    Raises UnknownNameError, or MissingExtraError naming the install command.
    """
    import importlib
    import importlib.util

    known = ARTIFACTS | RUNTIMES
    if name not in known:
        raise UnknownNameError("runtime", name, RUNTIMES)
    package, extra = known[name]
    if extra is not None and importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra, f"The runtime {name}")
    return importlib.import_module(f"tenfold.runtimes.{name}")
