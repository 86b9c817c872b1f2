"""Golden images: a few pictures with the probabilities that the model must give for them, wherever it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tenfold.bundle import tensors
from tenfold.bundle.manifest import GOLDEN, Manifest
from tenfold.errors import BundleError
from tenfold.export import gate

if TYPE_CHECKING:
    from tenfold.bundle.store import Bundle
    from tenfold.runtimes.base import Runtime

MAX_IMAGES = 256


def expected(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature), float32 N×classes, computed in float64."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def to_bytes(images: np.ndarray, probabilities: np.ndarray) -> bytes:
    """The bytes of ``golden.safetensors``: ``images`` uint8 N×H×W×3, ``probabilities`` float32 N×classes."""
    return tensors.save({"images": images, "probabilities": probabilities})


def from_bytes(data: bytes, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """(images, probabilities) of ``to_bytes``; BundleError where they don't fit the manifest."""
    found = tensors.load(data, GOLDEN)
    if set(found) != {"images", "probabilities"}:
        raise BundleError(f"{GOLDEN} does not hold the arrays images and probabilities.")
    images, probabilities = found["images"], found["probabilities"]
    geometry = manifest.geometry
    if images.dtype != np.uint8 or images.shape[1:] != (geometry.height, geometry.width, 3):
        raise BundleError(f"{GOLDEN}: images are {images.dtype} {images.shape}, not as the manifest says.")
    shape = (len(images), len(manifest.classes))
    if probabilities.dtype != np.float32 or probabilities.shape != shape:
        raise BundleError(f"{GOLDEN}: probabilities are {probabilities.dtype} {probabilities.shape}.")
    if not 0 < len(images) <= MAX_IMAGES or not np.isfinite(probabilities).all():
        raise BundleError(f"{GOLDEN} does not hold 1 to {MAX_IMAGES} images with finite probabilities.")
    return images, probabilities


def replay(bundle: Bundle, runtime: Runtime, tolerance: float = gate.TOLERANCE) -> gate.Verdict:
    """Ask ``runtime`` for the golden images and compare; BundleError where it answers otherwise."""
    images, probabilities = bundle.golden()
    what = f"{bundle.path.name} on {runtime.name} ({runtime.device})"
    return gate.require(probabilities, runtime.probabilities(images), what, tolerance)
