"""decode(): every kind of picture, every limit, and nothing but ImageError for damaged bytes."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tenfold.data import decode as decoder
from tenfold.data.dataset import Geometry
from tenfold.data.decode import covered, decode, decode_sized, probe, resize
from tenfold.errors import ImageError

RNG = np.random.default_rng(0)
PHOTO = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).resize((48, 36), Image.Resampling.BICUBIC)
)
OWN = Geometry(36, 48)
RED = (255, 0, 0)


def saved(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, format, **options)
    return file.getvalue()


def png16(values: np.ndarray, clear: int | None = None) -> bytes:
    """A gray PNG of 16 bits, with tRNS for ``clear``; Pillow can't write that chunk for it."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    extra = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_very_pixels(format, options):
    np.testing.assert_array_equal(decode(saved(PHOTO, format, **options), OWN), PHOTO)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_give_nearly_the_pixels(format):
    pytest.importorskip(f"PIL.{format.title().replace('Webp', 'WebP')}ImagePlugin")
    if format == "AVIF":
        from PIL import features

        if not features.check("avif"):
            pytest.skip("this Pillow is built without AVIF")
    result = decode(saved(PHOTO, format, quality=95), OWN)
    assert np.abs(result.astype(int) - PHOTO).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(PHOTO, format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    height, width = expected.shape[:2]
    assert (width, height) == ((48, 36) if orientation < 5 else (36, 48))
    result, size = decode_sized(data, Geometry(height, width))
    np.testing.assert_array_equal(result, expected)
    assert size == (width, height)
    found = probe(data)
    assert (found.width, found.height, found.orientation) == (width, height, orientation)


def test_orientation_in_xmp_counts():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    result, size = decode_sized(saved(PHOTO, "JPEG", xmp=xmp, quality=95), Geometry(48, 36))
    assert size == (36, 48)
    assert np.abs(result.astype(int) - np.rot90(PHOTO, -1)).mean() < 4


def test_damaged_exif_leaves_the_picture_as_stored():
    data = saved(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff\xff\xff")
    assert decode(data, OWN).shape == (36, 48, 3)
    assert probe(data).orientation == 1


def test_gray_and_two_level():
    gray = PHOTO[:, :, 0]
    np.testing.assert_array_equal(decode(saved(gray, "PNG"), OWN), np.repeat(gray[:, :, None], 3, 2))
    bits = Image.fromarray(((gray > 128) * 255).astype(np.uint8)).convert("1")
    result = decode(saved(bits, "PNG"), OWN)
    np.testing.assert_array_equal(result[:, :, 0], (gray > 128) * 255)


def test_palette_with_and_without_transparency():
    palette = Image.fromarray(PHOTO).quantize(16)
    plain = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(decode(saved(palette, "PNG"), OWN), plain)
    clear = np.asarray(palette) == 3
    assert clear.any()
    expected = np.where(clear[:, :, None], RED, plain)
    ground = Geometry(36, 48, background=RED)
    np.testing.assert_array_equal(decode(saved(palette, "PNG", transparency=3), ground), expected)
    np.testing.assert_array_equal(decode(saved(palette, "GIF", transparency=3), ground), expected)
    half = bytes([255] * 3 + [128] + [255] * 12)
    blended = decode(saved(palette, "PNG", transparency=half), ground)
    np.testing.assert_allclose(blended[clear], plain[clear] * 0.5 + np.array(RED) * 0.5, atol=2)


def test_alpha_is_laid_on_the_background():
    alpha = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (36, 1))
    weight = alpha[:, :, None] / 255
    ground = Geometry(36, 48, background=(10, 200, 30))
    rgba = np.dstack([PHOTO, alpha])
    expected = PHOTO * weight + np.array([10, 200, 30]) * (1 - weight)
    np.testing.assert_allclose(decode(saved(rgba, "PNG"), ground), expected, atol=1.01)
    la = Image.fromarray(np.dstack([PHOTO[:, :, 0], alpha]), "LA")
    expected = PHOTO[:, :, :1] * weight + np.array([10, 200, 30]) * (1 - weight)
    np.testing.assert_allclose(decode(saved(la, "PNG"), ground), expected, atol=1.01)
    keyed = PHOTO.copy()
    keyed[:5] = (1, 2, 3)
    result = decode(saved(keyed, "PNG", transparency=(1, 2, 3)), ground)
    np.testing.assert_array_equal(result[:5], np.broadcast_to([10, 200, 30], (5, 48, 3)))
    np.testing.assert_array_equal(result[5:], keyed[5:])


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 36 * 48).reshape(36, 48).astype(np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for data in (png16(values), saved(Image.fromarray(values), "TIFF"), saved(Image.fromarray(values), "PPM")):
        np.testing.assert_array_equal(decode(data, OWN)[:, :, 0], expected)


def test_sixteen_bits_with_a_transparent_value():
    values = np.full((36, 48), 40_000, np.uint16)
    values[:, :10] = 7
    result = decode(png16(values, clear=7), Geometry(36, 48, background=RED))
    assert (result[:, :10] == RED).all()
    assert (result[:, 10:] == 156).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 30_000, 65_535]], np.int32), [0, 117, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[1, 1_000_000, 2_000_001]], np.int32), [0, 127, 255]),
        (np.array([[0, 0.25, 1]], np.float32), [0, 64, 255]),
        (np.array([[0, 100.4, 255]], np.float32), [0, 100, 255]),
        (np.array([[0, 65535 / 2, 65535]], np.float32), [0, 128, 255]),
        (np.array([[-4, 0, 4]], np.float32), [0, 128, 255]),
        (np.array([[-5, -5, -5]], np.float32), [0, 0, 0]),
    ],
)
def test_thirty_two_bits(values, expected):
    result = decode(saved(Image.fromarray(values), "TIFF"), Geometry(1, 3))
    np.testing.assert_allclose(result[0, :, 0], expected, atol=1)
    assert (result == result[:, :, :1]).all()


def test_pixels_that_are_no_numbers_are_refused():
    values = np.array([[0, np.nan, np.inf]], np.float32)
    with pytest.raises(ImageError, match="finite"):
        decode(saved(Image.fromarray(values), "TIFF"), Geometry(1, 3))


def test_cmyk_as_pillow_inverts_it():
    cmyk = Image.fromarray(PHOTO).convert("CMYK")
    for data in (saved(cmyk, "JPEG", quality=98), saved(cmyk, "TIFF")):
        assert probe(data).mode == "CMYK"
        assert np.abs(decode(data, OWN).astype(int) - PHOTO).mean() < 4


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(format):
    first = Image.new("RGB", (48, 36), (255, 0, 0))
    second = Image.new("RGB", (48, 36), (0, 255, 0))
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(first, format, save_all=True, append_images=[second], **options)
    assert probe(data).frames == 2
    assert (decode(data, OWN) == (255, 0, 0)).all()


def test_path_and_bytes_give_the_same(tmp_path):
    for format in ("JPEG", "PNG", "TIFF", "WEBP", "GIF"):
        data = saved(PHOTO, format)
        path = tmp_path / "picture.xyz"
        path.write_bytes(data)
        np.testing.assert_array_equal(decode(path, Geometry(20, 20)), decode(data, Geometry(20, 20)))
        assert probe(path) == probe(data)


def test_squash_crop_and_pad():
    halves = np.zeros((20, 40, 3), np.uint8)
    halves[:, 20:] = 255
    data = saved(halves, "PNG")
    squashed = decode(data, Geometry(20, 20, "squash"))
    assert (squashed[:, :9] == 0).all() and (squashed[:, 11:] == 255).all()
    np.testing.assert_array_equal(decode(data, Geometry(20, 20, "crop")), halves[:, 10:30])
    padded = decode(data, Geometry(20, 20, "pad", RED))
    assert (padded[:5] == RED).all() and (padded[15:] == RED).all()
    assert (padded[5:15, :9] == 0).all() and (padded[5:15, 11:] == 255).all()


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (7, 90), (32, 24), (31, 33)])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_covered_is_the_part_of_the_picture_that_the_pixels_show(size, resize):
    """In a picture whose colours say where they are, each pixel's place is where ``covered`` lays it."""
    geometry = Geometry(24, 32, resize)
    width, height = size
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    pixels = decode(saved((np.stack([across, down, 0 * down + 1], 2) * 255).astype(np.uint8), "PNG"), geometry) / 255
    left, top, wide, high = covered(size, geometry)
    x, y = left + wide * (np.arange(32) + 0.5) / 32, top + high * (np.arange(24) + 0.5) / 24
    shown = pixels[..., 2] > 0.99
    inside = (x > 0) & (x < 1) & ((y > 0) & (y < 1))[:, None]
    assert (shown == inside).all()
    # the outermost pixels see no further than the edge
    step = [max(0.75 * pixel, 0.5 / own) for pixel, own in ((wide / 32, width), (high / 24, height))]
    assert np.abs(pixels[..., 0] - x)[shown].max() <= step[0]
    assert np.abs(pixels[..., 1] - y[:, None])[shown].max() <= step[1]
    if resize == "squash":
        assert (left, top, wide, high) == (0, 0, 1, 1)


def test_crop_at_own_scale_blends_no_pixels():
    tall = RNG.integers(0, 256, (33, 32, 3), np.uint8)
    np.testing.assert_array_equal(resize(tall, Geometry(32, 32, "crop")), tall[:32])


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    policy=st.sampled_from(["squash", "crop", "pad"]),
)
@settings(max_examples=60, deadline=None)
def test_any_size_comes_out_at_the_target(width, height, target, policy):
    image = np.full((height, width, 3), 77, np.uint8)
    result = resize(image, Geometry(*target, policy, (77, 77, 77)))
    assert result.shape == (*target, 3)
    assert (result == 77).all()


def test_large_jpegs_are_reduced_as_if_wholly_decoded():
    big = Image.fromarray(PHOTO).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = saved(big, "JPEG", quality=90)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    geometry = Geometry(64, 64)
    expected = np.asarray(Image.fromarray(whole).resize((64, 64), Image.Resampling.BILINEAR))
    difference = np.abs(decode(data, geometry).astype(int) - expected)
    assert difference.mean() < 1
    assert difference.max() <= 8


def textured(width: int, height: int) -> Image.Image:
    """Forms of every size, the finer the fainter, as in photos."""
    rng = np.random.default_rng(5)
    whole = np.zeros((height, width, 3), np.float32)
    for cells in (3, 6, 12, 24, 48, 96, 192, 384):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        whole += (np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128) / cells**0.6
    return Image.fromarray((whole / whole.std() * 55 + 128).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "factor"), [(15, 8), (16, 4), (64, 4), (66, 4), (67, 2), (93, 2), (94, 1), (200, 1)]
)  # a JPEG of 500×375; each factor at its limit, where the whole decode is furthest off, and beyond it
def test_scaled_decoding_stays_close_to_the_whole_decode(size, factor):
    data = saved(textured(500, 375), "JPEG", quality=90)
    geometry = Geometry(size, size)
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    assert decoder._draft_size(whole.size, geometry) == (500 // factor, 375 // factor)
    expected = resize(np.asarray(whole), geometry)
    difference = np.abs(decode(data, geometry).astype(int) - expected)
    assert (difference.max() == 0) == (factor == 1)
    assert difference.mean() < 2
    assert difference.max() <= 32


@pytest.mark.parametrize("kind", ["plain", "progressive", "gray", "CMYK", "turned"])
def test_scaled_decoding_knows_every_kind_of_jpeg(kind):
    image = textured(500, 375)
    options = {"quality": 95}
    if kind in ("gray", "CMYK"):
        image = image.convert("L" if kind == "gray" else "CMYK")
    elif kind == "progressive":
        options["progressive"] = True
    elif kind == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    data = saved(image, "JPEG", **options)
    whole = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    result, size = decode_sized(data, Geometry(64, 64))
    assert size == whole.size == ((375, 500) if kind == "turned" else (500, 375))
    difference = np.abs(result.astype(int) - resize(np.asarray(whole), Geometry(64, 64)))
    assert 0 < difference.mean() < 2


def test_the_version_names_the_libraries_that_decide_the_pixels():
    from PIL import __version__, features

    library = features.version("libjpeg_turbo") or features.version("jpg")
    assert f"2+pillow{__version__}+libjpeg{library}" == decoder.VERSION


def test_reduction_is_antialiased():
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    result = decode(saved(checks.astype(np.uint8), "PNG"), Geometry(32, 32))
    assert abs(result.astype(int) - 127.5).max() < 3


# What is refused.


def bomb() -> bytes:
    """A valid PNG of 13,370×13,370 zeros: 536 MB of pixels in half a megabyte."""
    side = 13_370

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze = zlib.compressobj(1)
    body = b"".join(squeeze.compress(bytes(1 + 3 * side)) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


REFUSED = {
    "empty.png": (b"", "empty"),
    "drawing.jpg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "page.jpg": (b"<html><body>404 not found</body></html>", "web page"),
    "words.png": (b"path,label\na.png,cat\n", "text"),
    "paper.jpg": (b"%PDF-1.7\n", "PDF"),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "text"),
    "noise.jpg": (bytes(range(128, 256)), "not a picture"),
    "start.jpg": (b"\xff\xd8\xff", "damaged|short"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(name, tmp_path):
    content, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    for work in (lambda: decode(path, OWN), lambda: probe(path)):
        with pytest.raises(ImageError, match=reason) as caught:
            work()
        assert caught.value.message.startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert not caught.value.reason.startswith(str(path))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_a_picture_cut_in_half_is_refused(format):
    data = saved(RNG.integers(0, 256, (64, 64, 3), np.uint8), format)
    with pytest.raises(ImageError, match=r"cut short|damaged"):
        decode(data[: len(data) // 2], Geometry(64, 64))


def test_folder_missing_file_and_pipe_are_refused(tmp_path):
    with pytest.raises(ImageError, match="folder"):
        decode(tmp_path, OWN)
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "none.png", OWN)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match="regular"):
            decode(tmp_path / "pipe.png", OWN)


def test_too_many_bytes_are_refused_unread(tmp_path):
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.truncate(decoder.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="bytes; at most"):
        decode(path, OWN)


def test_header_alone_refuses_a_bomb_in_a_second_and_100_mb(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb())
    started = time.perf_counter()
    with pytest.raises(ImageError, match="13,370×13,370"):
        decode(path, OWN)
    assert time.perf_counter() - started < 1
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process's own peak")  # ru_maxrss is inherited from the process that started it
    code = (
        "import sys; from pathlib import Path; from tenfold.data.decode import decode\n"
        "from tenfold.data.dataset import Geometry; from tenfold.errors import ImageError\n"
        "try: decode(Path(sys.argv[1]), Geometry(64, 64))\n"
        "except ImageError as error: print(error)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    message, peak = done.stdout.splitlines()
    assert "megapixels" in message
    assert done.stderr == ""
    assert int(peak) < 100_000  # kB


SEEDS = [
    saved(PHOTO, "JPEG"),
    saved(PHOTO, "JPEG", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    saved(PHOTO, "PNG"),
    saved(Image.fromarray(PHOTO).quantize(16), "GIF", transparency=3),
    saved(PHOTO, "BMP"),
    saved(PHOTO, "WEBP"),
    saved(PHOTO, "TIFF", compression="tiff_lzw"),
    saved(PHOTO, "TIFF"),
    saved(Image.fromarray(PHOTO[:, :, 0].astype(np.float32)), "TIFF"),
    saved(PHOTO, "PPM"),
    png16(PHOTO[:, :, 0].astype(np.uint16) * 257, clear=0),
]


def never_worse_than_image_error(data: bytes) -> None:
    for work in (lambda: decode(data, Geometry(16, 16)), lambda: probe(data)):
        try:
            result = work()
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert not isinstance(result, np.ndarray) or result.shape == (16, 16, 3)


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_flipped_bytes_raise_nothing_but_image_error(data):
    broken = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, min(len(broken) - 1, 400)))] = data.draw(st.integers(0, 255))
    never_worse_than_image_error(bytes(broken))


@given(seed=st.sampled_from(SEEDS), share=st.floats(0, 1), tail=st.binary(max_size=32))
@settings(max_examples=150, deadline=None)
def test_cut_files_raise_nothing_but_image_error(seed, share, tail):
    never_worse_than_image_error(seed[: int(share * len(seed))] + tail)


def test_importing_decode_brings_only_the_core_of_pillow():
    code = "import sys, tenfold.data.decode; print(*sorted(m for m in sys.modules if m.startswith('PIL.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ImagePlugin" not in done.stdout
    heavy = {"torch", "pydantic", "rich", "yaml", "onnxruntime"}
    code = "import sys, tenfold.data.decode; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_only_decode_imports_pillow():
    package = Path(decoder.__file__).parents[1]
    importers = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(line.split()[:1] in (["import"], ["from"]) and "PIL" in line for line in path.read_text().splitlines())
    ]
    assert importers == [str(Path("data") / "decode.py")]


@pytest.mark.parametrize("policy", ["squash", "crop", "pad"])
def test_the_interpolation_is_the_geometry_s(policy):
    linear = decode(saved(PHOTO, "PNG"), Geometry(20, 20, policy))
    cubic = decode(saved(PHOTO, "PNG"), Geometry(20, 20, policy, interpolation="bicubic"))
    np.testing.assert_array_equal(linear, decode(saved(PHOTO, "PNG"), Geometry(20, 20, policy, (0, 0, 0), "bilinear")))
    assert np.abs(linear.astype(int) - cubic).max() > 3
    if policy == "squash":
        expected = Image.fromarray(PHOTO).resize((20, 20), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(cubic, np.asarray(expected))
