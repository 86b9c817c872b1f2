"""Where the training images lie and how a step gets its batch: whole on the device, or streamed from the memory map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tenfold.data.dataset import Split
from tenfold.engines.batches import flip_sides, order, read_ahead
from tenfold.engines.schedule import Plan
from tenfold.engines.torch.augment import Batch, augment, draw, gather
from tenfold.recipe import Augment


@dataclass(frozen=True)
class Picked:
    """The images of a step before they are gathered: rows ``index`` of ``pixels`` (uint8 N×H×W×3), their labels (int64
    B), and for ``flip: alternating`` which of them are mirrored. Of rows that another process computes the pixels may
    be missing."""

    pixels: Tensor
    index: Tensor
    labels: Tensor
    flip: Tensor | None

    def parts(self, number: int) -> list[Picked]:
        """The same in ``number`` parts of nearly equal size, in order."""
        flips = self.flip.tensor_split(number) if self.flip is not None else [None] * number
        rows = zip(self.index.tensor_split(number), self.labels.tensor_split(number), flips, strict=True)
        return [Picked(self.pixels, *row) for row in rows]

    def batch(
        self,
        settings: Augment,
        mean: Tensor,
        size: int | None,
        rng: torch.Generator | None = None,
        rows: range | None = None,
    ) -> Batch:
        """The augmented batch. With ``rows``, those alone, each as it is in the whole one: everything is drawn for all,
        and images are mixed with partners that may be none of them."""
        flip, labels, index = self.flip, self.labels, self.index
        height, width = self.pixels.shape[1:3]
        draws = draw(settings, len(index), height, width, index.device, rng)
        if rows is not None:
            at, draws = draws.of(torch.arange(rows.start, rows.stop, device=index.device))
            flip, labels, index = flip[at] if flip is not None else None, labels[at], index[at]
        return augment(gather(self.pixels, index, flip, settings, draws), labels, settings, mean, size, draws)


class Feed:
    """Batches of a split: ``take(step)`` gives what a step computes on, its pixels on the device.

    ``placement`` is ``device`` when all pixels lie there, ``stream`` when a thread reads each batch from the split. Of
    several processes each streams its own ``rows`` alone, or all where its images may be mixed with any.
    """

    def __init__(
        self,
        split: Split,
        plan: Plan,
        settings: Augment,
        seed: int,
        device: torch.device,
        rows: range | None = None,
    ) -> None:
        whole = rows is None or settings.mixup or settings.cutmix
        self.rows = range(plan.batch_size) if whole or rows is None else rows
        self.plan, self.settings, self.seed, self.device = plan, settings, seed, device
        self.split = split
        self.placement: Literal["device", "stream"] = "device" if _fits(split.images.nbytes, device) else "stream"
        if isinstance(split.images, np.memmap) and device.type == "cpu":
            self.placement = "stream"
        self.labels = torch.from_numpy(np.ascontiguousarray(split.labels)).to(device)
        self.sides = torch.from_numpy(flip_sides(seed, len(split))).to(device)
        self._epoch = -1
        self._order: Tensor | None = None
        self._stream: Iterator[tuple[int, Tensor]] | None = None
        if self.placement == "device":
            self.pixels = _as_tensor(split.images).to(device)

    def take(self, step: int) -> Picked:
        """The images of a step, a function of (seed, step) alone."""
        epoch = self.plan.epoch_of(step)
        index = self._index(step, epoch)
        flip = None
        if self.settings.flip == "alternating":
            flip = self.sides.index_select(0, index) ^ bool(epoch % 2)
        labels = self.labels.index_select(0, index)
        if self.placement == "device":
            return Picked(self.pixels, index, labels, flip)
        pixels = self._streamed(step)
        index = torch.arange(len(labels), device=self.device) - self.rows.start
        return Picked(pixels, index, labels, flip)

    def _index(self, step: int, epoch: int) -> Tensor:
        if self._order is None or epoch != self._epoch:
            self._order = torch.from_numpy(order(self.seed, epoch, len(self.split))).to(self.device)
            self._epoch = epoch
        start = step % self.plan.steps_per_epoch * self.plan.batch_size
        return self._order[start : start + self.plan.batch_size]

    def _streamed(self, step: int) -> Tensor:
        if self._stream is None:
            self._stream = self._read_ahead(step)
        at, pixels = next(self._stream)
        if at != step:  # a step taken again after memory ran out reads on from where it stands
            self._stream = self._read_ahead(step)
            _, pixels = next(self._stream)
        return pixels.to(self.device, non_blocking=True)

    def _read_ahead(self, step: int) -> Iterator[tuple[int, Tensor]]:
        def finish(pixels: np.ndarray) -> Tensor:
            tensor = torch.from_numpy(pixels)
            return tensor.pin_memory() if self.device.type == "cuda" else tensor

        return read_ahead(self.split.images, self.plan, self.seed, step, finish, slice(self.rows.start, self.rows.stop))


def resident(images: np.ndarray, device: torch.device) -> Tensor | None:
    """``images`` on a device other than the CPU, where they have room; None where they are sent in batches."""
    if device.type == "cpu" or not _fits(images.nbytes, device):
        return None
    return _as_tensor(images).to(device)


def _as_tensor(images: np.ndarray) -> Tensor:
    if not images.flags.writeable or not images.flags.c_contiguous:
        images = np.array(images, copy=True, order="C")  # PyTorch has no read-only tensors
    return torch.from_numpy(images)


def _fits(size: int, device: torch.device) -> bool:
    """Whether ``size`` bytes of pixels may lie on the device: at most half of what is free there now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return size < free / 2
    if device.type == "cpu":
        return True
    return size < 2 << 30
