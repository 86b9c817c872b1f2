"""Which kinds of picture are read, told from their first bytes, and what of them would take a decoder too long."""

from __future__ import annotations

import importlib
import io
import re
from typing import IO

from tenfold.errors import ImageError

MAX_SCANS = 100  # of a progressive JPEG; encoders write about 10. A scan takes 1.2 ms a megapixel
MAX_PPM_HEADER = 4096  # bytes; Pillow reads them one by one
MAX_PLAIN_PPM = 2**20  # bytes of one in text, which Pillow reads in Python: half a second a megabyte

_SUFFIXES = ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .webp .avif .tif .tiff .ppm .pgm .pbm .pnm .pfm"
SUFFIXES = frozenset(_SUFFIXES.split())

# Pillow's names, and the module to import where Pillow doesn't by itself. Nothing that runs a program (EPS,
# PDF, …).
FORMATS = {
    "JPEG": None,
    "PNG": None,
    "GIF": None,
    "BMP": None,
    "PPM": None,
    "WEBP": "PIL.WebPImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
}

# Two numbers (a bitmap's) or three, each after blanks and comments.
_NUMBER = rb"(?:\s|#[^\r\n]*[\r\n])++[^\s#]++"
_PPM_HEADER = re.compile(rb"P(?:[14](?:%b){2}|[2356f](?:%b){3})[\s#]" % (_NUMBER, _NUMBER))


def sniff(file: IO[bytes]) -> str:
    """Pillow's name of the format that a file at its start has, where it is left; imports its plugin. Raises ImageError
    for any other, and for a PPM whose header Pillow would take seconds to read."""
    head = file.read(MAX_PPM_HEADER)
    file.seek(0)
    format = _format_of(head)
    if format is None:
        raise ImageError(f"{_not_a_picture(head[:64])}.", f"Formats read: {', '.join(FORMATS)}.")
    if module := FORMATS[format]:
        try:
            importlib.import_module(module)
        except ImportError:
            raise ImageError(f"{format} can't be read by the Pillow that is installed.") from None
    if format == "PPM":
        _check_ppm(head, file)
    return format


def _check_ppm(head: bytes, file: IO[bytes]) -> None:
    if _PPM_HEADER.match(head) is None:
        raise ImageError("the file is damaged: its header can't be read.")
    if head[1:2] in b"123" and file.seek(0, io.SEEK_END) > MAX_PLAIN_PPM:
        raise ImageError(f"a PPM in text is read up to {MAX_PLAIN_PPM:,} bytes.", "Save it as binary PPM, or as PNG.")
    file.seek(0)


def check_scans(file: IO[bytes]) -> None:
    """Raises ImageError for a progressive JPEG of too many scans; leaves the file where it was. Each costs a walk over
    all pixels, of a few hundred bytes."""
    at = file.tell()
    file.seek(0)
    # In a scan's own bytes FF is never followed by DA; a thumbnail's scans may be counted along.
    scans = file.read().count(b"\xff\xda")
    file.seek(at)
    if scans > MAX_SCANS:
        raise ImageError(f"the picture is a JPEG of {scans:,} scans; at most {MAX_SCANS} are decoded.")


def _format_of(head: bytes) -> str | None:
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:2] == b"BM":
        return "BMP"
    if head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf") and head[2:3] in (b" ", b"\t", b"\n", b"\r", b"#"):
        return "PPM"
    if head[4:8] == b"ftyp" and (b"avif" in head[8:40] or b"avis" in head[8:40]):
        return "AVIF"
    return None


def _not_a_picture(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "this is a drawing (SVG or XML), not a picture of pixels"
    if start.startswith(b"<"):
        return "this is a web page, not a picture"
    if head.startswith(b"%PDF"):
        return "this is a PDF, not a picture"
    if head[4:8] == b"ftyp":
        return "this is HEIC or a film, which is not read; convert it to JPEG"
    if head and all(byte in b"\t\n\r\x1b" or byte >= 32 for byte in head) and head.isascii():
        return "this is text, not a picture"
    return "this is not a picture of a kind that is read"
