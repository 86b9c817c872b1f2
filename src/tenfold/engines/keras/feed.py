"""What a step gets from the host: its images, their labels, and what chance decides for them.

On a card the pixels lie there whole where they fit; on the CPU they lie in memory as they are, which is the same. Those
of a memory map, and what does not fit, are read ahead in batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from tenfold.data.dataset import Split
from tenfold.engines.base import Device
from tenfold.engines.batches import Rows, flip_sides, read_ahead
from tenfold.engines.draws import draw
from tenfold.engines.keras.framework import Framework
from tenfold.engines.schedule import Plan
from tenfold.recipe import Augment


class Feed:
    """Batches of a split: ``take(step)`` gives a step's input as NumPy arrays, a function of (seed, step) alone.

    placement   ``device`` when all pixels lie there, ``stream`` when a thread reads each batch from the split
    pixels      what lies on a card, to be looked up by ``index``; None where a batch brings its ``images``
    """

    def __init__(
        self, split: Split, plan: Plan, settings: Augment, seed: int, device: Device, framework: Framework
    ) -> None:
        self.split, self.plan, self.settings, self.seed = split, plan, settings, seed
        self.placement: Literal["device", "stream"] = "device"
        self.pixels: Any = None
        if device.name == "cpu":
            if isinstance(split.images, np.memmap):
                self.placement = "stream"
        elif split.images.nbytes < framework.free_bytes(device) / 2:
            self.pixels = framework.send(np.asarray(split.images), device)
        else:
            self.placement = "stream"
        self.labels = split.labels.astype(np.int32)
        self.sides = flip_sides(seed, len(split)) if settings.flip == "alternating" else None
        self._rows = Rows(plan, seed, len(split))
        self._stream: Iterator[tuple[int, np.ndarray]] | None = None

    def take(self, step: int) -> dict[str, Any]:
        """``labels`` int32 B; ``images`` uint8 B×H×W×3 or their ``index`` int32 B; ``draws`` by name."""
        epoch = self.plan.epoch_of(step)
        index = self._rows.of(step)
        sides = self.sides[index] ^ bool(epoch % 2) if self.sides is not None else None
        height, width = self.split.images.shape[1:3]
        drawn = draw(self.settings, len(index), height, width, self.seed, step, sides)
        fields = {f.name: getattr(drawn, f.name) for f in dataclasses.fields(drawn)}
        batch = {"labels": self.labels[index], "draws": {n: a for n, a in fields.items() if a is not None}}
        if self.pixels is not None:
            return {**batch, "index": index.astype(np.int32)}
        return {**batch, "images": self.split.images[index] if self.placement == "device" else self._streamed(step)}

    def _streamed(self, step: int) -> np.ndarray:
        if self._stream is None:
            self._stream = read_ahead(self.split.images, self.plan, self.seed, step, lambda pixels: pixels)
        at, pixels = next(self._stream)
        assert at == step  # a run takes its steps in order
        return pixels
