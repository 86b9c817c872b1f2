"""A convolution around two weaknesses of oneDNN's: its weights' gradient is a matrix product where that is faster, and
a 1×1 kernel with a stride takes pixels that were picked out before where its own way writes past its memory.

oneDNN's bfloat16 kernel for the gradient of a 3×3 kernel is slow where pictures are small and channels are many: for
100 images of 3×3 and 256 → 256 channels it took 10.2 ms on one core with AMX, the product below 1.6 ms with all its
copies; at 7×7 15.4 against 8.7; at 15×15 the kernel wins (PyTorch 2.13, oneDNN 3.12).

The gradient of a 1×1 kernel with a stride and fewer input channels than oneDNN's block of 8 or 16, in channels last,
corrupts the heap (oneDNN issue 6035, open; seen with 4 and 6 channels in PyTorch 2.11 and 2.13).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 16  # input channels: oneDNN's largest block
SMALL, MANY = 64, 96  # at most so many pixels, at least so many channels: where the product won


class Conv(nn.Conv2d):
    """As ``nn.Conv2d``; the same numbers up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        if _worthwhile(self, x):
            return _ByProduct.apply(x.bfloat16(), self.weight.bfloat16(), self.padding[0])
        if _overflows(self, x):
            down, across = self.stride
            return F.conv2d(x[:, :, ::down, ::across], self.weight, self.bias)
        return super().forward(x)


def _worthwhile(conv: nn.Conv2d, x: Tensor) -> bool:
    return (
        conv.weight.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and conv.stride == (1, 1)
        and conv.bias is None
        and min(conv.in_channels, conv.out_channels) >= MANY
        and x.shape[2] * x.shape[3] <= SMALL
    )


def _overflows(conv: nn.Conv2d, x: Tensor) -> bool:
    return (
        conv.kernel_size == (1, 1)
        and conv.stride != (1, 1)
        and conv.in_channels < FEW
        and conv.padding == (0, 0)
        and x.device.type == "cpu"
    )


class _ByProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        around = [ctx.padding] * 2
        back = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [1, 1], around, [1, 1], False, [0, 0], 1, [True, False, False]
        )[0]
        return back, weight_gradient(gradient, x, weight.shape[2], ctx.padding), None


def weight_gradient(gradient: Tensor, x: Tensor, kernel: int, padding: int) -> Tensor:
    """The gradient O×I×k×k of a kernel of stride 1 from that of its output N×O×H×W and its input N×I×H×W."""
    count, out, height, width = gradient.shape
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4)).contiguous()
    a, b, c, d = rows.stride()
    windows = rows.as_strided((count, height, width, kernel, kernel, x.shape[1]), (a, b, c, b, c, d))
    windows = windows.reshape(count * height * width, -1)
    by_filter = gradient.permute(1, 0, 2, 3).reshape(out, -1)  # copied: oneDNN's product is slow on a transposed view
    return (by_filter @ windows).view(out, kernel, kernel, -1).permute(0, 3, 1, 2)
