"""A network's answers, in batches of one shape so that it is compiled once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tenfold.architecture.layers import Architecture
from tenfold.engines.base import Device
from tenfold.engines.keras import build
from tenfold.engines.keras.framework import chosen

# Pixels of a batch on a CPU: 64 images of 32×32
CPU_PIXELS = 64 * 32 * 32


@functools.lru_cache(maxsize=16)
def _compiled(architecture: Architecture, precision: str, device: Device) -> Any:
    framework = chosen()
    with framework.on(device):
        net = build.build(architecture, precision)
    return framework.compiled(lambda weights, images: net.forward(weights, images)[0], device)


def logits(
    architecture: Architecture, weights: Any, images: np.ndarray, device: Device, batch_size: int, precision: str
) -> np.ndarray:
    """float32 logits N×classes for uint8 images N×H×W×3 and weights in Keras's layouts on the device. On a CPU
    ``batch_size`` is the most."""
    framework = chosen()
    if device.name == "cpu":
        batch_size = max(1, min(batch_size, CPU_PIXELS // (images.shape[1] * images.shape[2])))
    batch_size = min(batch_size, len(images))
    answer = _compiled(architecture, precision, device)
    found = []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        if len(batch) < batch_size:  # the last is filled up
            batch = np.concatenate([batch, np.zeros((batch_size - len(batch), *batch.shape[1:]), np.uint8)])
        found.append(answer(weights, framework.send(batch, device)))
    return np.concatenate(framework.fetch(found))[: len(images)]
