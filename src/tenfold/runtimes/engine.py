"""A training engine as a runtime: a bundle's own weights, computed by the framework on any of its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tenfold.bundle import golden
from tenfold.engines import base
from tenfold.recipe import Recipe
from tenfold.runtimes import batches
from tenfold.runtimes.base import Runtime

if TYPE_CHECKING:
    from tenfold.bundle.store import Bundle


class EngineRuntime(Runtime):
    """Computes in ``precision``, by default float32, as verified; ``name`` is the engine's, ``label`` what the device
    is. The network is built, and its weights are on the device, when it is made."""

    def __init__(self, engine: base.Engine, device: base.Device, bundle: Bundle, precision: str) -> None:
        self.name, self.device, self.label = engine.name, device.name, device.label
        self._logits = engine.answers(bundle.manifest.architecture, bundle.weights(), device, precision=precision)
        self._temperature, self._where = bundle.manifest.temperature, str(bundle.path)
        geometry = bundle.manifest.geometry
        self.sizes = batches.Sizes(geometry.height, geometry.width, len(bundle.manifest.classes))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches.

        Raises CallError for another dtype or shape, BundleError where the model gives no finite numbers.
        """

        def answer(batch: np.ndarray) -> np.ndarray:
            return golden.expected(self._logits(batch), self._temperature)

        return batches.ask(answer, images, self.sizes, self._where, f"the engine {self.name}")


def open(name: str, bundle: Bundle, device: str = "auto", precision: str = "fp32") -> EngineRuntime:
    """The bundle in the engine called ``name``, computed in ``precision`` (``fp32``, ``bf16``, ``fp16``).

    Raises UnknownNameError for a device that isn't there, MissingExtraError, and UnsupportedError for a network that
    the engine hasn't got or a precision that it or the device hasn't.
    """
    engine = base.load(name)
    where = engine.device(device)
    base.check(engine, bundle.manifest.architecture, Recipe.model_validate({"precision": precision}), where)
    return EngineRuntime(engine, where, bundle, precision)
