"""Small pictures as PNG with the standard library alone: thumbnails and heat maps inside pages and reports."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

_COLOR_TYPE = {3: 2, 4: 6}  # channels to PNG's color type


def encode(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels H×W×3 (RGB) or H×W×4 (RGBA): the smaller of unfiltered and Paeth-filtered."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOR_TYPE[channels], 0, 0, 0)
    plain = _compressed(pixels, 0)
    filtered = _compressed(_paeth(pixels), 4)
    data = min(plain, filtered, key=len)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def data_uri(pixels: np.ndarray) -> str:
    """The same as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(encode(pixels)).decode()


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 H×W×3 reduced by area averaging so that no side is above ``side``; unchanged if it fits."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    rows = np.linspace(0, height, max(1, round(height * scale)) + 1).round().astype(int)
    columns = np.linspace(0, width, max(1, round(width * scale)) + 1).round().astype(int)
    sums = np.add.reduceat(image.astype(np.uint32), rows[:-1], axis=0)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    area = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return (sums / area[:, :, None]).round().astype(np.uint8)


def _compressed(rows: np.ndarray, kind: int) -> bytes:
    height = rows.shape[0]
    lines = np.empty((height, 1 + rows[0].size), np.uint8)
    lines[:, 0] = kind
    lines[:, 1:] = rows.reshape(height, -1)
    return zlib.compress(lines.tobytes(), 6)


def _paeth(pixels: np.ndarray) -> np.ndarray:
    """Each byte less its neighbour (left, above or above-left) nearest to their sum, as the PNG standard has it."""
    raw = pixels.astype(np.int16)
    left, above, corner = np.zeros_like(raw), np.zeros_like(raw), np.zeros_like(raw)
    left[:, 1:], above[1:], corner[1:, 1:] = raw[:, :-1], raw[:-1], raw[:-1, :-1]
    to_left, to_above = np.abs(above - corner), np.abs(left - corner)
    to_corner = np.abs(left + above - 2 * corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    nearest = np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
    return (raw - nearest).astype(np.uint8)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
