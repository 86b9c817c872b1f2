"""Batch norm whose statistics are taken over the images of several processes.

``torch.nn.SyncBatchNorm`` is for CUDA alone; this is the same for any device and backend, in plain operations. Every
process sends the mean and variance of its own images, and from all of them each computes the same statistics (Chan,
Golub and LeVeque 1979, as PyTorch does); backward, the sums that the statistics' gradients need are added up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Gather = Callable[[Tensor], Tensor]
"""A vector of each process, stacked in the order of their ranks: K to processes×K."""


@dataclass
class Sync:
    """``mates``: the ranks whose images make up one batch. While it is not ``active``, each goes by its own."""

    gather: Gather
    mates: range
    active: bool = True

    def rows(self, vector: Tensor) -> Tensor:
        return self.gather(vector)[self.mates.start : self.mates.stop]


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    sync: Sync,
) -> Tensor:
    """As ``F.batch_norm`` in training, ``mean`` and ``variance`` (the running ones) brought up to date."""
    out, now, spread, count = _Normalize.apply(x, weight, bias, eps, sync)
    with torch.no_grad():
        mean.lerp_(now, momentum)
        variance.lerp_(spread * (count / (count - 1).clamp_min(1)), momentum)
    result: Tensor = out
    return result


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, sync: Sync) -> Any:
        axes = _axes(x)
        wide = x.float()
        own_spread, own_mean = torch.var_mean(wide, axes, correction=0)
        images = torch.full((1,), x.numel() // x.shape[1], dtype=torch.float32, device=x.device)
        own = torch.cat((own_mean, own_spread, images))
        means, spreads, counts = sync.rows(own).split([x.shape[1], x.shape[1], 1], 1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        spread = ((spreads + (means - mean) ** 2) * counts).sum(0) / count
        inverse = (spread + eps).rsqrt()
        normal = (wide - _column(mean, x)) * _column(inverse, x)
        out = normal if weight is None else normal * _column(weight, x)
        out = out if bias is None else out + _column(bias, x)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.sync = sync
        ctx.mark_non_differentiable(mean, spread, count)
        return out.to(x.dtype), mean, spread, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        x, weight, mean, inverse, count = ctx.saved_tensors
        axes, wide = _axes(x), gradient.float()
        normal = (x.float() - _column(mean, x)) * _column(inverse, x)
        by_bias, by_weight = wide.sum(axes), (wide * normal).sum(axes)
        total_bias, total_weight = ctx.sync.rows(torch.cat((by_bias, by_weight))).sum(0).chunk(2)
        scale = inverse if weight is None else inverse * weight
        back = wide - _column(total_bias / count, x) - normal * _column(total_weight / count, x)
        back = (back * _column(scale, x)).to(x.dtype)
        needed = ctx.needs_input_grad
        return back, by_weight if needed[1] else None, by_bias if needed[2] else None, None, None


def _axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _column(vector: Tensor, x: Tensor) -> Tensor:
    return vector.view(1, -1, *([1] * (x.ndim - 2)))


def attach(net: nn.Module, sync: Sync) -> None:
    """PyTorch's own batch norms in ``net`` (a network of timm has them) take their statistics over all processes."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            module.forward = _Forward(module, sync)  # type: ignore[assignment]


class _Forward:
    """The forward of a ``torch.nn`` batch norm. timm's have a dropout and an activation in one with it."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, sync: Sync) -> None:
        self.plain, self.norm, self.sync = norm.forward, norm, sync

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not (norm.training and self.sync.active):
            return self.plain(x)
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        x = batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, momentum, norm.eps, self.sync)
        for name in ("drop", "act"):
            if isinstance(after := getattr(norm, name, None), nn.Module):
                x = after(x)
        return x
