"""Convolution."""

from __future__ import annotations

from tinygrad import Tensor


def conv(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """N×C×H×W with a kernel out×in×rows×columns, ``padding`` zeros on each side."""
    return x.conv2d(kernel, bias, stride=stride, padding=padding)
