from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tenfold.png import data_uri, encode, thumbnail


def _read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (32, 32), (1, 50)])
def test_every_byte_comes_back(shape: tuple[int, int], channels: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, channels), dtype=np.uint8)
    assert np.array_equal(_read(encode(noise)), noise)


def test_smooth_pictures_are_filtered_and_small() -> None:
    y, x = np.mgrid[:64, :64]
    smooth = np.stack([2 * x + y, 3 * y - x, x + 2 * y], axis=2).astype(np.uint8)
    assert np.array_equal(_read(encode(smooth)), smooth)
    assert len(encode(smooth)) < smooth.nbytes / 10


def test_data_uri_is_the_file() -> None:
    picture = np.full((4, 4, 3), 9, np.uint8)
    head, body = data_uri(picture).split(",")
    assert head == "data:image/png;base64" and base64.b64decode(body) == encode(picture)


def test_thumbnail_averages_and_keeps_the_aspect() -> None:
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 40:] = 200
    small = thumbnail(picture, 20)
    assert small.shape == (10, 20, 3) and small.dtype == np.uint8
    assert small[:, :10].max() == 0 and small[:, 10:].min() == 200
    odd = np.random.default_rng(0).integers(0, 256, (101, 37, 3), dtype=np.uint8)
    assert thumbnail(odd, 48).shape == (48, 18, 3)
    assert thumbnail(odd, 48).mean() == pytest.approx(odd.mean(), abs=1)
    assert thumbnail(odd, 200) is odd
    assert thumbnail(np.ones((1000, 1, 3), np.uint8), 10).shape == (10, 1, 3)
