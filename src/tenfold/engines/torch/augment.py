"""Augmentation of a whole batch on the device.

All randomness comes from the generator given, which the loop seeds with (seed, step) and, where the batch is computed
in parts, the part: the same step always sees the same pictures, whatever ran before it. None is PyTorch's default one.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold.engines.batches import area, shrunk
from tenfold.recipe import Augment


@dataclass(frozen=True)
class Batch:
    """``images`` float32 N×3×H×W on the scale 0 to 255, channels last. Labels int64 N; where images were mixed, the
    loss is ``share`` of that for ``labels`` and the rest of that for ``other``."""

    images: Tensor
    labels: Tensor
    other: Tensor | None = None
    share: float | Tensor = 1.0


@dataclass(frozen=True)
class Draws:
    """What chance decides for the B images of a batch; None where the settings don't ask for it.

    flip          bool B: which are mirrored
    down, right   int64 B×1: pixels by which rows and columns are looked up further on
    angle         B, radians
    color         3×B×1×1×1: factors of brightness, contrast and saturation
    top, left     int64 B: corners of the cutout's squares
    other         int64, one for each image that the batch becomes: where its partner lies among those given
    share, box    the share of the image's own label; cutmix's rectangle, four int64: top, left, height, width
    """

    flip: Tensor | None = None
    down: Tensor | None = None
    right: Tensor | None = None
    angle: Tensor | None = None
    color: Tensor | None = None
    top: Tensor | None = None
    left: Tensor | None = None
    other: Tensor | None = None
    share: Tensor | None = None
    box: tuple[Tensor, ...] | None = None

    def of(self, rows: Tensor) -> tuple[Tensor, Draws]:
        """For a batch of the images ``rows`` (int64) alone, each as it is in the whole one: all images that takes, the
        partners of those that are mixed after them, and what was drawn for these."""
        other = None
        if self.other is not None:
            other = torch.arange(len(rows), 2 * len(rows), device=rows.device)
            rows = torch.cat((rows, self.other[rows]))
        first = {
            n: t[rows] for n in ("flip", "down", "right", "angle", "top", "left") if (t := getattr(self, n)) is not None
        }
        color = None if self.color is None else self.color[:, rows]
        return rows, Draws(**first, color=color, other=other, share=self.share, box=self.box)


def draw(
    settings: Augment, count: int, height: int, width: int, device: torch.device, rng: torch.Generator | None = None
) -> Draws:
    """The draws for ``count`` images of height × width pixels."""
    found: dict[str, Any] = {}

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device, generator=rng)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, device=device, generator=rng)

    if settings.flip == "random":
        found["flip"] = uniform(count) < 0.5
    if shift := settings.translate:
        found["down"], found["right"] = (whole(-shift, shift + 1, count, 1) for _ in range(2))
    if settings.rotate:
        found["angle"] = (uniform(count) * 2 - 1) * math.radians(settings.rotate)
    if settings.color_jitter:
        found["color"] = 1 + (uniform(3, count, 1, 1, 1) * 2 - 1) * settings.color_jitter
    if side := settings.cutout:
        found["top"], found["left"] = (whole(0, d - min(side, d) + 1, count) for d in (height, width))
    if settings.mixup:
        found["share"] = _beta(settings.mixup, device, rng)
        found["other"] = torch.randperm(count, device=device, generator=rng)
    elif settings.cutmix:
        side_share = (1 - _beta(settings.cutmix, device, rng)).sqrt()
        found["other"] = torch.randperm(count, device=device, generator=rng)
        rows, columns = (side_share * height).round().long(), (side_share * width).round().long()
        top, left = (uniform(1) * (height - rows + 1)).long(), (uniform(1) * (width - columns + 1)).long()
        found["box"] = (top, left, rows, columns)
        found["share"] = 1 - rows * columns / (height * width)
    return Draws(**found)


def gather(pixels: Tensor, index: Tensor, flip: Tensor | None, settings: Augment, draws: Draws) -> Tensor:
    """Images ``index`` of ``pixels`` (uint8 N×H×W×3), mirrored where ``flip`` says (by chance where the settings do),
    and shifted: uint8 B×H×W×3.

    One pass over the pixels: rows and columns are looked up where they come from, reflected at the edge.
    """
    if draws.flip is not None:
        flip = draws.flip
    if flip is None and draws.down is None:
        return pixels.index_select(0, index)
    count, height, width = len(index), pixels.shape[1], pixels.shape[2]
    device = pixels.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if flip is not None:
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
    outside = None
    if draws.down is not None and draws.right is not None:
        rows, columns = rows + draws.down, columns + draws.right
        if settings.translate_fill == "zero":
            outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
    rows, columns = _reflect(rows, height), _reflect(columns, width)
    flat = ((index[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]).reshape(-1)
    out = pixels.reshape(-1, 3).index_select(0, flat).view(count, height, width, 3)
    return out if outside is None else out.masked_fill(outside[..., None], 0)


def _reflect(at: Tensor, size: int) -> Tensor:
    """Positions outside 0 to size-1 mirrored about the edge pixel, as NumPy's ``reflect`` padding does."""
    if size == 1:
        return torch.zeros_like(at)
    at = at.abs() % (2 * size - 2)
    return torch.minimum(at, 2 * size - 2 - at)


def augment(images: Tensor, labels: Tensor, settings: Augment, mean: Tensor, size: int | None, draws: Draws) -> Batch:
    """The rest of the augmentation on gathered images: uint8 N×H×W×3 to a Batch, at ``size`` pixels where given.

    ``mean`` is the training images' mean colour, 0 to 255: what cutout leaves.
    """
    x = images.permute(0, 3, 1, 2).float()
    if draws.angle is not None:
        x = _rotate(x, draws.angle)
    if draws.color is not None:
        x = _jitter(x, draws.color)
    if draws.top is not None and draws.left is not None:
        x = _cutout(x, settings.cutout, mean, draws.top, draws.left)
    other: Tensor | None = None
    share: float | Tensor = 1.0
    if draws.other is not None and draws.share is not None:
        x, share = _mix(x, draws.other, draws.share, draws.box), draws.share
        labels, other = labels[: len(draws.other)], labels[draws.other]
    if size is not None and size < max(x.shape[2:]):
        x = shrink(x, size)
    return Batch(x, labels, other, share)


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Each image turned about its centre by its ``angle``, bilinear, reflected at the edges."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    aspect = x.shape[2] / x.shape[3]
    theta = torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _jitter(x: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast and saturation, each by its own factor from 1 - strength to 1 + strength, in this order."""
    brightness, contrast, saturation = factors
    x = x * brightness
    weights = _luma(x.device)
    mean = (x * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    gray = (x * weights).sum(1, keepdim=True)
    return (gray + (x - gray) * saturation).clamp(0, 255)


@functools.cache
def _luma(device: torch.device) -> Tensor:
    """Weights of red, green and blue, ITU-R BT.601; kept, as no step may wait for numbers from the host."""
    return torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1)


def _inside(x: Tensor, top: Tensor, left: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """bool N×1×H×W, true in each image's rectangle."""
    rows = torch.arange(x.shape[2], device=x.device)[None, :] - top[:, None]
    columns = torch.arange(x.shape[3], device=x.device)[None, :] - left[:, None]
    in_rows = (rows >= 0) & (rows < height)
    in_columns = (columns >= 0) & (columns < width)
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]


def _cutout(x: Tensor, side: int, mean: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """A square of ``side`` pixels wholly inside each image set to the mean colour (DeVries and Taylor 2017, placed as
    in airbench)."""
    height, width = min(side, x.shape[2]), min(side, x.shape[3])
    return torch.where(_inside(x, top, left, height, width), mean.view(1, 3, 1, 1), x)


def _beta(alpha: float, device: torch.device, rng: torch.Generator | None) -> Tensor:
    """One draw of Beta(alpha, alpha), as a tensor so that the device need not be waited for."""
    gammas = torch._standard_gamma(torch.full((2,), alpha, device=device), generator=rng)
    return gammas[0] / gammas.sum().clamp_min(1e-12)


def _mix(x: Tensor, other: Tensor, share: Tensor, box: tuple[Tensor, ...] | None) -> Tensor:
    """The first images, each blended with its partner by one share for all (mixup: Zhang et al. 2018), or one rectangle
    of each replaced by its partner's (cutmix: Yun et al. 2019)."""
    own = x[: len(other)]
    if box is None:
        return own * share + x[other] * (1 - share)
    return torch.where(_inside(x[:1], *box), x[other], own)


def shrink(x: Tensor, size: int) -> Tensor:
    """Pictures N×3×H×W brought to a longer side of ``size`` by averaging areas, as two matrix products."""
    height, width = x.shape[2:]
    rows, columns = (_area(a, b, x.device) for a, b in zip((height, width), shrunk(height, width, size), strict=True))
    # a column of pixels at a time, channels last all the way
    y = torch.einsum("oh,nhwc->nowc", rows, x.permute(0, 2, 3, 1))
    y = torch.einsum("pw,nowc->nopc", columns, y)
    return y.permute(0, 3, 1, 2)


@functools.cache
def _area(before: int, after: int, device: torch.device) -> Tensor:
    """after×before weights: the share of each source pixel in each target pixel's area. Kept, as no step may wait for
    numbers from the host."""
    return torch.from_numpy(area(before, after)).to(device)
