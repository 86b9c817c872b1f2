"""A network's answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit

from tenfold.architecture.layers import Architecture
from tenfold.engines.base import Device
from tenfold.engines.tinygrad import build, devices

# Pixels of a batch: 64 pictures of 32×32 on a processor, whose caches hold their activations, and more on a card.
PROCESSOR_PIXELS, CARD_PIXELS = 64 * 32 * 32, 512 * 32 * 32


def logits(
    architecture: Architecture, weights: Mapping[str, Tensor], images: np.ndarray, device: Device, batch_size: int = 500
) -> np.ndarray:
    """float32 logits N×classes for uint8 images N×H×W×3. ``weights``: realized tensors by canonical name.

    Every batch has the same size, the last filled up with black, so that one compiled network answers all of them, and
    those of other calls.
    """
    if not len(images):
        return np.empty((0, architecture.classes), np.float32)
    most = PROCESSOR_PIXELS if devices.on_processor(device) else CARD_PIXELS
    size = max(1, min(batch_size, most // (images.shape[1] * images.shape[2])))
    names = tuple(weights)
    answer = _compiled(architecture, names, (size, *images.shape[1:3]), device)
    found = []
    for start in range(0, len(images), size):
        batch = np.zeros((size, *images.shape[1:]), np.uint8)
        part = images[start : start + size]
        batch[: len(part)] = part
        pixels = Tensor(batch, device=devices.place(device)).realize()
        found.append(answer(pixels, [weights[name] for name in names]).numpy()[: len(part)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=4)
def _compiled(
    architecture: Architecture, names: tuple[str, ...], shape: tuple[int, ...], device: Device
) -> Callable[..., Any]:
    """The network as one compiled function of (pixels, weights), kept for the next call with the same shapes."""

    def answer(pixels: Tensor, tensors: list[Tensor]) -> Tensor:
        return build.forward(architecture.layers, dict(zip(names, tensors, strict=True)), pixels).realize()

    jit = TinyJit(answer)
    jit.cnt = 1  # the first call is captured already: there is no state that a plain one would have to make
    return jit
