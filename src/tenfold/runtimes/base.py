"""The runtime contract: a bundle and a device in, probabilities out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Runtime(ABC):
    """A model ready to answer. Made by each runtime module's ``open(source, ...)``; holds no other state.

    ``device`` is what it really runs on (``cpu``), never what was only asked for.
    """

    name: str
    device: str

    @abstractmethod
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3; any N, taken in bounded batches."""
