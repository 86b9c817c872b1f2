"""Convolution, cut into kernels that compute one thing each.

tinygrad fuses what goes before a sum into each of its terms. Around a convolution that computes activations again for
every place of a kernel, and gradients too: pictures, their gradients and products lie in memory of their own instead.
"""

from __future__ import annotations

from tinygrad import Tensor

PARTS = 32  # of a batch, whose kernel gradients are summed up by themselves first


def conv(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """N×C×H×W with a kernel out×in×rows×columns, ``padding`` zeros on each side."""
    x = x.contiguous().contiguous_backward()
    count = int(x.shape[0])
    parts = next(p for p in range(min(PARTS, count), 0, -1) if count % p == 0)
    if parts == 1:
        y = x.conv2d(kernel, stride=stride, padding=padding)
    else:
        y = _in_parts(x, kernel, parts, stride, padding)
    y = y.contiguous().contiguous_backward()
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def _in_parts(x: Tensor, kernel: Tensor, parts: int, stride: int, padding: int) -> Tensor:
    """The same convolution with the kernel repeated for parts of the batch, which costs nothing going forward. Its
    gradient is then summed within each part, whose pictures a cache holds, and the parts' at the end."""
    count, channels, height, width = (int(d) for d in x.shape)
    filters = int(kernel.shape[0])
    repeated = kernel.unsqueeze(0).expand(parts, *kernel.shape).contiguous_backward()
    grouped = x.reshape(parts, count // parts, channels, height, width).permute(1, 0, 2, 3, 4)
    y = grouped.reshape(count // parts, parts * channels, height, width).conv2d(
        repeated.reshape(parts * filters, *kernel.shape[1:]), groups=parts, stride=stride, padding=padding
    )
    rows, columns = (int(d) for d in y.shape[2:])
    y = y.reshape(count // parts, parts, filters, rows, columns).permute(1, 0, 2, 3, 4)
    return y.reshape(count, filters, rows, columns)
