"""What every runtime does with images: refuse what are none, and ask for a bounded batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tenfold.errors import BundleError, CallError

# A batch holds at most so many images and so many pixels: 256 at 32×32, 20 at 224×224. Larger ones are no faster.
BATCH_IMAGES = 256
BATCH_PIXELS = 2**20


@dataclass(frozen=True)
class Sizes:
    """What a model's graph takes and gives: uint8 N×height×width×3 in, float32 N×classes out."""

    height: int
    width: int
    classes: int

    def check(self, images: np.ndarray) -> None:
        """CallError for images of another dtype or shape."""
        wanted = f"uint8 N×{self.height}×{self.width}×3"
        if not isinstance(images, np.ndarray):
            raise CallError(f"images must be a NumPy array, {wanted}, not {type(images).__name__}.")
        if images.dtype != np.uint8 or images.shape[1:] != (self.height, self.width, 3):
            got = f"{images.dtype} {'×'.join(map(str, images.shape))}"
            hint = "Give pixels from 0 to 255 as they are; the model normalizes them itself."
            if images.shape == (self.height, self.width, 3):
                hint = "For one image add the first axis: images[None]."
            raise CallError(f"images must be {wanted}, not {got}.", hint)


def most(sizes: Sizes) -> int:
    """How many images a model is asked for at once, at most."""
    return max(1, min(BATCH_IMAGES, BATCH_PIXELS // (sizes.height * sizes.width)))


def ask(
    model: Callable[[np.ndarray], np.ndarray], images: np.ndarray, sizes: Sizes, where: str, runtime: str
) -> np.ndarray:
    """float32 N×classes, what ``model`` gives for each batch of ``images``; any N.

    ``where`` names the model in errors, ``runtime`` what computes it. Raises CallError for another dtype or shape,
    BundleError where the model fails or gives no finite numbers.
    """
    sizes.check(images)
    size = most(sizes)
    out = np.empty((len(images), sizes.classes), np.float32)
    for start in range(0, len(images), size):
        batch = np.ascontiguousarray(images[start : start + size])
        try:
            answer = model(batch)
        except Exception as error:  # whatever the runtime throws, the model is what failed
            raise BundleError(f"{where} failed in {runtime}: {first_line(error)}") from error
        if answer.shape != (len(batch), sizes.classes) or not np.isfinite(answer).all():
            raise BundleError(f"{where} gives answers that are no probabilities.")
        out[start : start + len(batch)] = answer
    return out


def first_line(error: BaseException) -> str:
    """An error's first line, cut to a length that can be shown; its class where it says nothing."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if len(line) <= 300 else line[:300] + " …"
