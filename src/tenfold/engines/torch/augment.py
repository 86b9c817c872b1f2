"""Augmentation of a whole batch on the device.

All randomness comes from the generator given, which the loop seeds with (seed, step) and, where the batch is computed
in parts, the part: the same step always sees the same pictures, whatever ran before it. None is PyTorch's default one.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

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


def gather(
    pixels: Tensor, index: Tensor, flip: Tensor | None, settings: Augment, rng: torch.Generator | None = None
) -> Tensor:
    """Images ``index`` of ``pixels`` (uint8 N×H×W×3), mirrored where ``flip`` says (by chance where the settings do),
    and shifted: uint8 B×H×W×3.

    One pass over the pixels: rows and columns are looked up where they come from, reflected at the edge.
    """
    shift = settings.translate
    if settings.flip == "random":
        flip = torch.rand(len(index), device=pixels.device, generator=rng) < 0.5
    if flip is None and not shift:
        return pixels.index_select(0, index)
    count, height, width = len(index), pixels.shape[1], pixels.shape[2]
    device = pixels.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if flip is not None:
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
    if shift:
        rows = rows + torch.randint(-shift, shift + 1, (count, 1), device=device, generator=rng)
        columns = columns + torch.randint(-shift, shift + 1, (count, 1), device=device, generator=rng)
    outside = None
    if settings.translate_fill == "zero" and shift:
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


def augment(
    images: Tensor,
    labels: Tensor,
    settings: Augment,
    mean: Tensor,
    size: int | None,
    rng: torch.Generator | None = None,
) -> Batch:
    """The rest of the augmentation on gathered images: uint8 N×H×W×3 to a Batch, at ``size`` pixels where given.

    ``mean`` is the training images' mean colour, 0 to 255: what cutout leaves.
    """
    x = images.permute(0, 3, 1, 2).float()
    if settings.rotate:
        x = _rotate(x, settings.rotate, rng)
    if settings.color_jitter:
        x = _jitter(x, settings.color_jitter, rng)
    if settings.cutout:
        x = _cutout(x, settings.cutout, mean, rng)
    other: Tensor | None = None
    share: float | Tensor = 1.0
    if settings.mixup:
        x, other, share = _mixup(x, labels, settings.mixup, rng)
    elif settings.cutmix:
        x, other, share = _cutmix(x, labels, settings.cutmix, rng)
    if size is not None and size < max(x.shape[2:]):
        x = shrink(x, size)
    return Batch(x, labels, other, share)


def _rotate(x: Tensor, degrees: float, rng: torch.Generator | None) -> Tensor:
    """Each image turned about its centre by up to ± ``degrees``, bilinear, reflected at the edges."""
    angle = (torch.rand(len(x), device=x.device, generator=rng) * 2 - 1) * math.radians(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    aspect = x.shape[2] / x.shape[3]
    theta = torch.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _jitter(x: Tensor, strength: float, rng: torch.Generator | None) -> Tensor:
    """Brightness, contrast and saturation, each by its own factor from 1 - strength to 1 + strength, in this order."""
    brightness, contrast, saturation = (
        1 + (torch.rand(3, len(x), 1, 1, 1, device=x.device, generator=rng) * 2 - 1) * strength
    )
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


def _cutout(x: Tensor, side: int, mean: Tensor, rng: torch.Generator | None) -> Tensor:
    """A square of ``side`` pixels wholly inside each image set to the mean colour (DeVries and Taylor 2017, placed as
    in airbench)."""
    height, width = min(side, x.shape[2]), min(side, x.shape[3])
    top = torch.randint(0, x.shape[2] - height + 1, (len(x),), device=x.device, generator=rng)
    left = torch.randint(0, x.shape[3] - width + 1, (len(x),), device=x.device, generator=rng)
    return torch.where(_inside(x, top, left, height, width), mean.view(1, 3, 1, 1), x)


def _beta(alpha: float, device: torch.device, rng: torch.Generator | None) -> Tensor:
    """One draw of Beta(alpha, alpha), as a tensor so that the device need not be waited for."""
    gammas = torch._standard_gamma(torch.full((2,), alpha, device=device), generator=rng)
    return gammas[0] / gammas.sum().clamp_min(1e-12)


def _mixup(x: Tensor, labels: Tensor, alpha: float, rng: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """Each image blended with another of the batch by one share for all (Zhang et al. 2018)."""
    share = _beta(alpha, x.device, rng)
    order = torch.randperm(len(x), device=x.device, generator=rng)
    return x * share + x[order] * (1 - share), labels[order], share


def _cutmix(x: Tensor, labels: Tensor, alpha: float, rng: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """A rectangle of each image replaced by another's, one rectangle for the batch (Yun et al. 2019)."""
    height, width = x.shape[2:]
    side = (1 - _beta(alpha, x.device, rng)).sqrt()
    order = torch.randperm(len(x), device=x.device, generator=rng)
    rows, columns = (side * height).round().long(), (side * width).round().long()
    top = (torch.rand(1, device=x.device, generator=rng) * (height - rows + 1)).long()
    left = (torch.rand(1, device=x.device, generator=rng) * (width - columns + 1)).long()
    mask = _inside(x[:1], top, left, rows, columns)
    share = 1 - rows * columns / (height * width)
    return torch.where(mask, x[order], x), labels[order], share


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
