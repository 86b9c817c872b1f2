"""Files that are slow by design, told before a decoder opens them."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data import formats
from tenfold.data.dataset import Geometry
from tenfold.data.decode import decode
from tenfold.errors import ImageError

OWN = Geometry(8, 8)
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def refusal(data: bytes) -> str:
    began = time.perf_counter()
    with pytest.raises(ImageError) as refused:
        decode(data, OWN)
    assert time.perf_counter() - began < 0.5
    return refused.value.reason


def test_a_jpeg_of_many_scans_is_refused_and_one_of_a_few_is_not(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (2000, 2000), 99).save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    last = whole.rindex(b"\xff\xda")
    few, many = (whole[:-2] + whole[last:-2] * n + b"\xff\xd9" for n in (20, formats.MAX_SCANS))
    assert np.array_equal(decode(few, OWN), decode(whole, OWN))
    assert "scans; at most 100" in refusal(many)
    path = tmp_path / "many.jpg"
    path.write_bytes(many)
    with pytest.raises(ImageError, match="scans"):
        decode(path, OWN)


def test_a_ppm_with_comments_is_read_and_one_of_comments_is_not() -> None:
    for head in (b"P6 8 8 255\n", b"P6\n# by hand\n8 #wide\n8\n# \n#\n255\n", b"P6\t8\r8\n255 "):
        assert np.array_equal(decode(head + PIXELS.tobytes(), OWN), PIXELS)
    assert decode(b"P4\n# bits\n8 8\n" + b"\xaa" * 8, OWN).shape == (8, 8, 3)
    for head in (b"P6\n" + b"#\n" * 10**6 + b"8 8 255\n", b"P6 8 8" + b" " * 10**7 + b"255\n", b"P6 8 " + b"9" * 10**6):
        assert "header can't be read" in refusal(head + PIXELS.tobytes())


def test_a_ppm_in_text_is_read_up_to_a_size() -> None:
    text = b"P3 8 8 255\n" + b" ".join(b"%d" % value for value in PIXELS.ravel())
    assert np.array_equal(decode(text, OWN), PIXELS)
    assert "in text" in refusal(text + b" " * formats.MAX_PLAIN_PPM)


def test_the_file_is_left_at_its_start() -> None:
    for data in (b"P6 8 8 255\n", b"\xff\xd8\xff\xe0", b"BM"):
        file = io.BytesIO(data)
        formats.sniff(file)
        assert file.tell() == 0
