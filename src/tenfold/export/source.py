"""What every format is written from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tenfold.bundle.store import Bundle


@dataclass(frozen=True)
class Source:
    """A bundle, and the pictures that quantisation needs.

    calibration   uint8 N×H×W×3, training images; None where the format isn't calibrated
    images, expected   validation images, uint8 N×H×W×3, and the bundle's probabilities for them, float32 N×classes;
                  None where there are none. For choices between ways of quantising
    """

    bundle: Bundle
    calibration: np.ndarray | None = None
    images: np.ndarray | None = None
    expected: np.ndarray | None = None

    @property
    def texts(self) -> dict[str, str]:
        """The metadata that every artifact carries: as in a bundle's model.onnx (``export.onnx.texts``)."""
        from tenfold.export import onnx

        manifest = self.bundle.manifest
        return onnx.texts(manifest.name, manifest.classes, manifest.geometry, manifest.temperature, manifest.threshold)

    @property
    def texts_json(self) -> bytes:
        """The metadata as one JSON object, for formats that take a file."""
        return json.dumps(self.texts, ensure_ascii=False, indent=1).encode()
