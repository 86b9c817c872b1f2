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
    """Computes in float32, as verified; ``name`` is the engine's."""

    def __init__(self, engine: base.Engine, device: base.Device, bundle: Bundle) -> None:
        self.name, self.device = engine.name, device.name
        self._engine, self._on = engine, device
        self._architecture, self._weights = bundle.manifest.architecture, bundle.weights()
        self._temperature, self._where = bundle.manifest.temperature, str(bundle.path)
        geometry = bundle.manifest.geometry
        self.sizes = batches.Sizes(geometry.height, geometry.width, len(bundle.manifest.classes))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches.

        Raises CallError for another dtype or shape, BundleError where the model gives no finite numbers.
        """

        def answer(batch: np.ndarray) -> np.ndarray:
            logits = self._engine.logits(self._architecture, self._weights, batch, self._on, precision="fp32")
            return golden.expected(logits, self._temperature)

        return batches.ask(answer, images, self.sizes, self._where, f"the engine {self.name}")


def open(name: str, bundle: Bundle, device: str = "auto") -> EngineRuntime:
    """The bundle in the engine called ``name``.

    Raises UnknownNameError for a device that isn't there, MissingExtraError, and UnsupportedError for a network that
    the engine hasn't got.
    """
    engine = base.load(name)
    where = engine.device(device)
    base.check(engine, bundle.manifest.architecture, Recipe(precision="fp32"), where)
    return EngineRuntime(engine, where, bundle)
