"""The one way from a picture's bytes to RGB pixels, for the cache, predict and serve alike.

This is the only module that knows Pillow, and it holds all limits on what a picture may be. Bytes come from
strangers: the format is told from the first bytes (never from the name) and must be one of ``formats.FORMATS``, the
size is bounded before anything is parsed, the number of pixels as soon as the header is read, the time by what
``formats`` refuses of files that are slow by design, and whatever Pillow throws at a damaged file comes out as one
ImageError. A file that is cut short is refused, never filled
up.

How each kind becomes RGB:

- turned upright as its EXIF (or XMP) orientation says; an EXIF block that can't be read counts as none
- palette, gray, two-level, CMYK (inverted where Adobe wrote it so), YCbCr and Lab are converted; color
  profiles are not applied
- transparency, of every kind, is laid on ``geometry.background``
- gray of 16 bits is scaled by 255/65535 (12-bit TIFF by 255/4095). Gray of 32 bits has no fixed range:
  integers up to 65535 are taken as 16-bit, floats from 0 to 1 as such and up to 255 as bytes; anything else
  is stretched from the picture's own minimum to its maximum. Never clipped.
- of an animation or a file of several pages the first
- resizing is bilinear, or bicubic where the geometry says so, with antialiasing (Pillow's, which widens the filter
  with the reduction)
- large JPEGs are decoded at 1/2, 1/4 or 1/8 by libjpeg, which leaves out the fine detail before it is computed,
  wherever the resize that follows would blur it away: see LEAST_LEFT. The pixels differ a little from those of a
  whole decode, so this is part of what they mean: ``VERSION`` changes with it, and there is no other way to decode.
"""

from __future__ import annotations

import io
import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from PIL import Image

from tenfold.data import formats
from tenfold.data.dataset import Geometry
from tenfold.errors import ImageError

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000

# In the key of every cache: another decoder here, another Pillow or another JPEG library decodes anew. 2: JPEGs at
# the scales that LEAST_LEFT allows.
_LIBJPEG = getattr(Image.core, "libjpeg_turbo_version", None) or getattr(Image.core, "jpeglib_version", "")
VERSION = f"2+pillow{PIL.__version__}+libjpeg{_LIBJPEG}"

# By how much a JPEG that libjpeg reduced by the factor must still be larger than what is asked for, on each axis.
# Chosen so that at every factor's limit photos differ from a whole decode by the same 1.3 to 1.6 grey levels of 255 in
# the mean (single photos by up to 2.2), which is less than bilinear and bicubic differ. The factors are not alike:
# 1/8 is the plain mean of 8×8 pixels, which needs more left to the resize than 1/4 does.
LEAST_LEFT = {8: 3.0, 4: 1.4, 2: 2.0}

_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_ORIENTED = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow only warns of is either decoded all the same or refused here; a second line on stderr helps
# nobody. Not catch_warnings around each call: that isn't safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Probe:
    """What a picture's header says. ``width`` and ``height`` are those of the upright picture, in pixels."""

    width: int
    height: int
    format: str
    mode: str
    frames: int
    orientation: int


def decode(source: bytes | Path, geometry: Geometry, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture as uint8 H×W×3 (RGB) of ``geometry``; the same for a path as for its bytes. Raises
    ImageError, also for one that says to have more than ``max_pixels``."""
    return decode_sized(source, geometry, max_pixels)[0]


def decode_sized(
    source: bytes | Path, geometry: Geometry, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, tuple[int, int]]:
    """decode(), and the upright picture's own (width, height) before it was resized."""
    with _opened(source, max_pixels) as image:
        stored = image.size
        if image.format in ("JPEG", "MPO"):
            if "progressive" in image.info:
                formats.check_scans(image.fp)  # type: ignore[attr-defined]
            image.draft(None, _draft_size(image.size, geometry))
        image.load()
        turned = _UPRIGHT.get(_orientation(image))
        rgb = _to_rgb(image, geometry.background)
        if turned is not None:
            rgb = rgb.transpose(turned)
        if turned in _SWAPS or (image.format == "TIFF" and image.size == stored[::-1]):
            stored = stored[::-1]
        return np.array(_fit(rgb, geometry), np.uint8), stored


def probe(source: bytes | Path) -> Probe:
    """Read the header only. Raises ImageError as decode() would for what can be known from it."""
    with _opened(source) as image:
        orientation = _orientation(image)
        width, height = image.size
        # Pillow has swapped a TIFF's sides already.
        if _UPRIGHT.get(orientation) in _SWAPS and image.format != "TIFF":
            width, height = height, width
        frames = int(getattr(image, "n_frames", 1))
        return Probe(width, height, str(image.format), image.mode, frames, orientation)


def resize(pixels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """uint8 h×w×3 brought to H×W×3 by the same rule as decode()."""
    return np.array(_fit(Image.fromarray(pixels), geometry), np.uint8)


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    """A JPEG file's bytes for uint8 h×w×3: something to decode where there are pixels alone."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def warm_up(geometry: Geometry) -> None:
    """Imports and makes what the first picture of a common kind would wait for: 30 ms."""
    blank = Image.new("RGB", (2 * geometry.width, 2 * geometry.height))
    for kind in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        try:
            blank.save(file, kind)
        except (OSError, KeyError):  # this Pillow has no such kind
            continue
        decode(file.getvalue(), geometry)


_SWAPS = tuple(_UPRIGHT[o] for o in (5, 6, 7, 8))


@contextmanager
def _opened(source: bytes | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture with its header read and its limits checked; every failure in the block becomes an
    ImageError."""
    path = None if isinstance(source, bytes) else source
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else _open_file(source) as file:
            if path is None:
                _check_bytes(len(source))  # type: ignore[arg-type]
            format = formats.sniff(file)
            with Image.open(file, formats=[format]) as image:
                _check_pixels(*image.size, max_pixels)
                yield image
    except ImageError as error:
        raise error if path is None else ImageError(error.reason, error.hint, path=path) from None
    except FileNotFoundError:
        raise ImageError("there is no such file.", path=path) from None
    except MemoryError:
        raise ImageError("it does not fit in memory.", path=path) from None
    # Pillow answers damaged bytes with OSError, SyntaxError, ValueError, struct.error, KeyError, IndexError,
    # EOFError, zlib.error, DecompressionBombError and more; one kind of error leaves this room.
    except Exception as error:
        raise ImageError(_damage(error), path=path) from None


def _open_file(path: Path) -> IO[bytes]:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("this is a folder, not a picture.")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("this is not a regular file.")
    _check_bytes(status.st_size)
    return path.open("rb")


def _check_bytes(size: int) -> None:
    if size == 0:
        raise ImageError("the file is empty.")
    if size > MAX_BYTES:
        raise ImageError(f"the file has {size:,} bytes; at most {MAX_BYTES:,} are read.")


def _check_pixels(width: int, height: int, most: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"the picture has no pixels ({width}×{height}).")
    if width * height > most:
        raise ImageError(
            f"the picture is {width:,}×{height:,} pixels; at most {most / 1_000_000:g} megapixels are decoded."
        )


def _damage(error: Exception) -> str:
    """One line on what a failed decode means."""
    said = " ".join(str(error).split())
    said = said if len(said) <= 120 else f"{said[:119]}…"
    if isinstance(error, OSError) and error.errno is not None:
        return f"it can't be read: {error.strerror}."
    if "truncated" in said.lower() or "not enough" in said.lower() or isinstance(error, EOFError):
        return f"the file is cut short ({said or 'unexpected end'})."
    if isinstance(error, Image.UnidentifiedImageError) or not said:
        return "the file is damaged: its header can't be read."
    return f"the file is damaged ({type(error).__name__}: {said})."


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. After load() a TIFF says 1, since Pillow has turned it by then."""
    if image.format != "TIFF" and not any(key in image.info for key in _ORIENTED):
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged EXIF block on a sound picture is common, and every viewer shows the picture as stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    mode = image.mode
    if mode.startswith(("I", "F")):
        return _deep_gray_to_rgb(image, background)
    if mode in _ALPHA or "transparency" in image.info:
        above = image.convert("RGBA")
        below = Image.new("RGBA", above.size, (*background, 255))
        return Image.alpha_composite(below, above).convert("RGB")
    return image if mode == "RGB" else image.convert("RGB")


def _deep_gray_to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Gray of 16 or 32 bits (modes I;16…, I and F), scaled to 8 as the module's docstring says."""
    values = np.asarray(image)
    low, top = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(top)):
        raise ImageError("it has pixels that are not finite numbers.")
    base, full = _gray_range(image, low, top)
    exact: np.ndarray = values.astype("f8" if image.mode == "I" else "f4")
    gray = np.rint((exact - base) * (255.0 / (full - base))).clip(0, 255).astype(np.uint8)
    rgb = np.repeat(gray[:, :, None], 3, axis=2)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        rgb[values == clear] = background
    return Image.fromarray(rgb)


def _gray_range(image: Image.Image, low: float, top: float) -> tuple[float, float]:
    """The values that become 0 and 255."""
    if image.mode.startswith("I;"):
        bits = image.tag_v2.get(258, (16,)) if image.format == "TIFF" else (16,)  # type: ignore[attr-defined]
        return 0.0, 4095.0 if bits == (12,) else 65535.0
    ranges = (65535.0,) if image.mode == "I" else (1.0, 255.0, 65535.0)
    for full in ranges:
        if low >= 0 and top <= full:
            return 0.0, full
    return (low, top) if top > low else (low, low + 1)


def _draft_size(size: tuple[int, int], geometry: Geometry) -> tuple[int, int]:
    """The size to ask libjpeg for: 1/8, 1/4, 1/2 or 1 of the picture's, as LEAST_LEFT allows.

    The picture may yet be turned, so the smaller of both ways is taken.
    """
    width, height = size
    ratio = min(_ratio(width, height, geometry), _ratio(height, width, geometry))
    factor = next((f for f, left in LEAST_LEFT.items() if ratio >= left * f), 1)
    return max(1, width // factor), max(1, height // factor)


def _ratio(width: int, height: int, geometry: Geometry) -> float:
    """Source pixels for one of the target, on the axis that has fewer."""
    ratios = (width / geometry.width, height / geometry.height)
    return max(ratios) if geometry.resize == "pad" else min(ratios)


def _fit(image: Image.Image, geometry: Geometry) -> Image.Image:
    """An RGB picture brought to the geometry's size by its policy."""
    width, height = image.size
    target = (geometry.width, geometry.height)
    if image.size == target:
        return image
    if geometry.resize == "squash":
        return _resample(image, target, (0, 0, width, height), geometry)
    if geometry.resize == "crop":
        left, top, *inner = _cut(image.size, geometry)
        return _resample(image, target, (left, top, left + inner[0], top + inner[1]), geometry)
    left, top, *size = _laid(image.size, geometry)
    canvas = Image.new("RGB", target, geometry.background)
    canvas.paste(_resample(image, (size[0], size[1]), (0, 0, width, height), geometry), (left, top))
    return canvas


def _cut(size: tuple[int, int], geometry: Geometry) -> tuple[float, float, float, float]:
    """(left, top, width, height) in pixels of what ``crop`` keeps of a picture."""
    (width, height), target = size, (geometry.width, geometry.height)
    scale = min(width / target[0], height / target[1])
    inner = (min(width, target[0] * scale), min(height, target[1] * scale))
    left, top = (width - inner[0]) / 2, (height - inner[1]) / 2
    if inner == target:  # nothing to resize: cut at whole pixels, so that none is blended
        left, top = int(left), int(top)
    return left, top, *inner


def _laid(size: tuple[int, int], geometry: Geometry) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a picture within the target's pixels, where ``pad`` lays it."""
    (width, height), target = size, (geometry.width, geometry.height)
    scale = max(width / target[0], height / target[1])
    wide, high = max(1, round(width / scale)), max(1, round(height / scale))
    return (target[0] - wide) // 2, (target[1] - high) // 2, wide, high


def covered(size: tuple[int, int], geometry: Geometry) -> tuple[float, float, float, float]:
    """(left, top, width, height) of the part of an upright picture of ``size``, (width, height), that its resized
    pixels show, as shares of its width and height. Beyond 0 to 1 where it was padded."""
    if geometry.resize == "crop":
        left, top, wide, high = _cut(size, geometry)
        return left / size[0], top / size[1], wide / size[0], high / size[1]
    if geometry.resize == "pad":
        before, above, wide, high = _laid(size, geometry)
        return -before / wide, -above / high, geometry.width / wide, geometry.height / high
    return 0.0, 0.0, 1.0, 1.0


_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _resample(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float], geometry: Geometry
) -> Image.Image:
    """By the geometry's interpolation, antialiased. Reductions of 6 and more go by whole factors first, which can't be
    told apart by eye."""
    return image.resize(size, _FILTERS[geometry.interpolation], box=box, reducing_gap=3.0)
