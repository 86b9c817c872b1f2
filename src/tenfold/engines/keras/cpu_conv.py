"""A convolution for XLA on a CPU, whose own gradient of a kernel is slow.

For 500 pictures of 31×31 and 24 → 24 channels on two cores with AVX-512, XLA took 400 ms for it, the products below
161; at 15×15 and 24 → 64 90 against 52, at 7×7 and 64 → 96 50 against 32. Of few channels (whitening 32×32×3 to 24) the
forward pass took 50 ms, as one product 13 (jaxlib 0.10.2).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

Array = Any

FEW = 8  # input channels below which the columns of all pictures are written out


def cpu_conv(x: Array, kernel: Array, padding: int) -> Array:
    """N×H×W×C by a kernel rows×columns×in×out of stride 1, ``padding`` pixels of zeros on each side."""
    return _by_columns(x, kernel, padding) if x.shape[3] < FEW else _by_taps(x, kernel, padding)


def _windows(x: Array, size: int, padding: int) -> list[Array]:
    """What each place of the kernel sees, row by row."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    return [x[:, i : i + rows, j : j + columns] for i in range(size) for j in range(size)]


def _by_columns(x: Array, kernel: Array, padding: int) -> Array:
    columns = jnp.concatenate(_windows(x, kernel.shape[0], padding), axis=3)
    out = columns.reshape(-1, columns.shape[3]) @ kernel.reshape(columns.shape[3], -1)
    return out.reshape(*columns.shape[:3], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_taps(x: Array, kernel: Array, padding: int) -> Array:
    around = [(padding, padding)] * 2
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), around, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _forward(x: Array, kernel: Array, padding: int) -> tuple[Array, tuple[Array, Array]]:
    return _by_taps(x, kernel, padding), (x, kernel)


def _backward(padding: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    size, _, before, after = kernel.shape
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    into = _by_taps(gradient, turned, size - 1 - padding)
    flat = gradient.reshape(-1, after)
    taps = [
        jax.lax.dot_general(window.reshape(-1, before), flat, (((0,), (0,)), ((), ())))
        for window in _windows(x, size, padding)
    ]
    return into, jnp.stack(taps).reshape(kernel.shape).astype(kernel.dtype)


_by_taps.defvjp(_forward, _backward)
