"""What strangers send to a server on the internet. Everything is made here; after each the server answers as before,
and nothing was a 5xx."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_client import Reply, Server, b64, form, png

SECONDS = 10.0  # in which each is answered, on a busy machine


@pytest.fixture(autouse=True)
def _as_before(server: Server) -> Iterator[None]:
    """The same workers answer the same thing after each test."""
    before = server.workers()
    yield
    assert server.get("/v2/health/live").status == 200 and server.get("/v2/health/ready").status == 200
    assert server.post("/predict", png()).status == 200
    assert server.workers() == before, "a worker was lost"
    assert server.figure("tenfold_queue_bytes") == 0 and server.figure("tenfold_queue_depth") == 0


def refused(reply: Reply, *codes: str) -> None:
    """A refusal in JSON: a code, a sentence, no path and no traceback."""
    assert 400 <= reply.status < 500, (reply.status, reply.body[:300])
    assert reply.headers["content-type"] == "application/json"
    assert reply.code in codes, reply.body
    text = reply.body.decode()
    assert "/tmp" not in text and ".py" not in text and "Traceback" not in text and "site-packages" not in text
    assert len(text) < 600


def sent(server: Server, body: bytes, kind: str = "", path: str = "/predict") -> Reply:
    began = time.monotonic()
    reply = server.post(path, body, {"Content-Type": kind} if kind else {})
    assert time.monotonic() - began < SECONDS
    return reply


# ---- pictures -------------------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width: int, height: int, data: bytes, bits: int = 8, kind: int = 2, *, extra: bytes = b"") -> bytes:
    """A PNG that says what it is told to say."""
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan is told again and again: each costs a walk over the whole picture."""
    whole = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * scans + b"\xff\xd9"


def gif_of_frames(frames: int) -> bytes:
    picture = saved(Image.new("P", (8, 8), 1), "GIF")
    at = picture.index(b"\x2c")
    return picture[:at] + picture[at:-1] * frames + b";"


def tiff_in_a_circle() -> bytes:
    """A TIFF whose directory's next is itself."""
    data = bytearray(saved(Image.new("RGB", (8, 8)), "TIFF"))
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)
    return bytes(data)


PHOTO = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)

BOMBS: dict[str, Callable[[], bytes]] = {
    "png of 2^31": lambda: png_of(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
    "png of no width": lambda: png_of(0, 10, zlib.compress(b"")),
    "png of 4 gigapixels": lambda: png_of(65535, 65535, zlib.compress(bytes(10**6))),
    "png with a huge text": lambda: png_of(
        8, 8, zlib.compress(bytes(200)), extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 * 10**8)))
    ),
    "png with a huge profile": lambda: png_of(
        8, 8, zlib.compress(bytes(200)), extra=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2 * 10**8)))
    ),
    "png whose data never end": lambda: png_of(8, 8, zlib.compress(bytes(2 * 10**8))),
    "gif of 65535": lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + saved(Image.new("P", (8, 8)), "GIF")[10:],
    "bmp of 2^31": lambda: b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24) + bytes(24),
    "ppm of 10^9": lambda: b"P6 1000000000 1000000000 255\n",
    "ppm of digits": lambda: b"P6 " + b"9" * 10**6 + b" 1 255\n",
    "ppm of comments": lambda: b"P6\n" + b"#\n" * 10**6 + b"8 8 255\n" + bytes(192),
    "ppm of blanks": lambda: b"P3\n" + b" " * 10**7 + b"8 8 255\n",
    "jpeg of 65535": lambda: saved(Image.fromarray(PHOTO), "JPEG").replace(
        struct.pack(">HH", 40, 60), struct.pack(">HH", 65535, 65535), 1
    ),
    "jpeg of scans": lambda: jpeg_of_scans(4000, 3000),
    "webp of 16383": lambda: saved(Image.new("RGB", (16383, 4000)), "WEBP", lossless=True, method=0),
    "tiff in a circle": tiff_in_a_circle,
    "gif of 10,000 frames": lambda: gif_of_frames(10_000),
    "jpeg with 60,000 segments": lambda: (
        b"\xff\xd8" + b"\xff\xe1\0\x02" * 60_000 + saved(Image.fromarray(PHOTO), "JPEG")[2:]
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(server: Server, name: str) -> None:
    reply = sent(server, BOMBS[name]())
    if reply.status != 200:  # some are harmless once their frame or text is left alone
        refused(reply, "bad_picture")
    for number in server.workers():
        status = Path(f"/proc/{number}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0])  # kB
        assert peak < 1_200_000, f"a worker took {peak // 1000} MB"


FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_and_altered_files(server: Server, kind: str) -> None:
    try:
        whole = saved(Image.fromarray(PHOTO), kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    assert sent(server, whole).status == 200
    rng = np.random.default_rng(0)
    broken = [whole[:n] for n in (1, 2, 12, 30, 64, len(whole) // 2, len(whole) - 3)]
    for _ in range(30):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 400), 6):
            data[at] = rng.integers(0, 256)
        broken.append(bytes(data))
    for data in broken:
        reply = sent(server, data)
        if reply.status != 200:
            refused(reply, "bad_picture", "no_picture", "bad_json")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(server: Server, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert sent(server, saved(Image.fromarray(PHOTO), "JPEG", exif=exif.tobytes())).status == 200


def test_kinds_of_pixels(server: Server) -> None:
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    for picture in (
        saved(deep, "PNG"),
        saved(deep, "TIFF"),
        saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
        saved(Image.fromarray(PHOTO).convert("CMYK"), "TIFF"),
        saved(Image.fromarray(PHOTO).convert("1"), "PNG"),
        saved(Image.fromarray(PHOTO).convert("LA"), "PNG"),
        saved(Image.fromarray(PHOTO).convert("P"), "GIF"),
        saved(Image.fromarray(PHOTO[:, :, 0].astype(np.float32)), "TIFF"),
        saved(Image.new("RGB", (1, 1)), "PNG"),
        saved(Image.new("RGB", (20_000, 1)), "PNG"),
        saved(Image.new("RGB", (1, 20_000)), "JPEG"),
    ):
        assert sent(server, picture).status == 200
    nan = saved(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF")
    refused(sent(server, nan), "bad_picture")


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n(/etc/passwd) (r) file",
        b"<!doctype html><h1>no",
        b"PK\x03\x04" + bytes(100),
        b"\x7fELF" + bytes(100),
        b"\0" * 1000,
        bytes(range(256)) * 40,
    ],
)
def test_what_is_no_picture(server: Server, data: bytes) -> None:
    for kind in ("", "image/jpeg", "image/svg+xml", "application/pdf", "../../etc/passwd", "a" * 5000):
        refused(sent(server, data, kind), "bad_picture")


# ---- JSON and tensors -----------------------------------------------------------------------------------------------

DEEP = {
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "closed": b"[" * 100_000 + b"]" * 100_000,
    "behind a text": b'{"image": "' + b"\\" * 99_999 + b'"' + b"[" * 100_000,
    "quotes": b'{"image": ' + b'"' * 2_000_001,
    "backslashes": b'{"image": "' + b'\\"' * 5_000_000,
    "digits": b'{"image": ' + b"9" * 3_000_000 + b"}",
    "exponent": b'{"image": 1e99999999999}',
    "keys": b'{"images": {' + b",".join(b'"%d": 0' % n for n in range(300_000)) + b"}}",
    "commas": b'{"images": [' + b"0," * 3_000_000 + b"0]}",
    "surrogates": b'{"image": "' + b"\\ud800" * 500_000 + b'"}',
    "bytes": b'{"image": "\xff\xfe"}',
    "nan": b'{"image": NaN}',
    "infinity": b'{"image": -Infinity}',
    "nothing after": b'{"image": "',
    "two": b"{}{}",
    "null": b"null",
}


@pytest.mark.parametrize("name", DEEP)
def test_json(server: Server, name: str) -> None:
    for path in ("/predict", "/explain", "/invocations", "/v2/models/tiny-run/infer"):
        reply = sent(server, DEEP[name], "application/json", path)
        refused(reply, "bad_json", "bad_base64", "too_many_pictures", "bad_tensor")


def tensor(**changes: object) -> bytes:
    whole = {"name": "pixels", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": [0] * 192, **changes}
    return json.dumps({"inputs": [whole]}).encode()


TENSORS = {
    "2^60": tensor(shape=[2**60, 8, 8, 3]),
    "2^60 pixels": tensor(shape=[1, 2**60, 2**60, 3]),
    "negative": tensor(shape=[-1, 8, 8, 3]),
    "none": tensor(shape=[0, 8, 8, 3], data=[]),
    "float shape": tensor(shape=[1.0, 8, 8, 3]),
    "true": tensor(shape=[True, 8, 8, 3]),
    "text shape": tensor(shape="1,8,8,3"),
    "shapes": tensor(shape=[[1], 8, 8, 3]),
    "long shape": tensor(shape=[1] * 100_000),
    "nan": tensor(data=[0] * 191 + [float("nan")]),
    "nulls": tensor(data=[None] * 192),
    "texts": tensor(data=["0"] * 192),
    "true data": tensor(data=[True] * 192),
    "256": tensor(data=[256] * 192),
    "halves": tensor(data=[0.5] * 192),
    "few": tensor(data=[0]),
    "uneven": tensor(data=[[0] * 191, 0]),
    "object": tensor(data={"0": 0}),
    "type": tensor(datatype="FP32"),
    "type list": tensor(datatype=["UINT8"]),
    "name": tensor(name="../../etc/passwd"),
    "parameters": tensor(parameters=[]),
    "size": tensor(parameters={"binary_data_size": 2**60}),
    "no inputs": b'{"inputs": []}',
    "inputs": b'{"inputs": {}}',
    "id": b'{"inputs": [], "id": 5}',
    "outputs": tensor()[:-1] + b', "outputs": [{"name": "x"}]}',
    "outputs list": tensor()[:-1] + b', "outputs": 5}',
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors(server: Server, name: str) -> None:
    refused(sent(server, TENSORS[name], "application/json", "/v2/models/tiny-run/infer"), "bad_tensor", "bad_json")


@pytest.mark.parametrize("length", ["0", "-1", "1e3", "99999999999", "9" * 5000, "x", "5", " 7", "٣"])
def test_lengths_of_tensors_headers(server: Server, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length.encode().decode("latin-1")}
    reply = server.post("/v2/models/tiny-run/infer", tensor(), headers)
    refused(reply, "bad_tensor", "bad_json")


# ---- forms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "a\0b.png", "C:\\x.png", "%2e%2e%2f", "x" * 10**5],
)
def test_names_of_files_lead_nowhere(server: Server, name: str) -> None:
    body, headers = form((name, png()))
    reply = sent(server, body, headers["Content-Type"])
    if reply.status == 200:  # told back, cut, and nothing else
        assert len(reply.json["predictions"][0]["file"]) <= 255
    else:
        refused(reply, "bad_multipart")


def test_forms_that_are_none(server: Server) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    kind = "multipart/form-data; boundary=b"
    for body, said in (
        (b"", kind),
        (b"--b--", kind),
        (part * 100_000, kind),
        (part + b"x", kind),
        (b"--b\r\n" + b"A: b\r\n" * 100_000 + b"\r\n\r\n--b--", kind),
        (b"--b\r\n" + b"A" * 10**6 + b": b\r\n\r\n\r\n--b--", kind),
        (b"--b\r\nContent-Disposition: form-data; " + b"a;" * 500_000 + b"\r\n\r\nx\r\n--b--", kind),
        (b"--b\r\nContent-Disposition: form-data; name=" + b'"\\' * 500_000 + b"\r\n\r\nx\r\n--b--", kind),
        (b"-" * 10**7, "multipart/form-data; boundary=" + "-" * 70),
        (part, "multipart/form-data; boundary=" + "b" * 5000),
        (part, "multipart/form-data; boundary=\xff"),
        (part, "multipart/form-data; " + "a=b;" * 5000),
        (part, "multipart/form-data; boundary*=utf-8''b"),
        (part, "multipart/form-data;boundary=;"),
    ):
        reply = sent(server, body, said)
        refused(reply, "bad_multipart", "no_picture", "too_many_pictures", "bad_picture")


def test_a_form_of_a_million_near_boundaries(server: Server) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + b"\r\n--" * 2_000_000 + b"\r\n--b--\r\n"
    refused(sent(server, body, "multipart/form-data; boundary=b"), "bad_picture", "bad_multipart")


# ---- addresses and methods ------------------------------------------------------------------------------------------

PATHS = [
    *("/", "/docs", "/openapi.json", "/favicon.ico", "/static/page.js", "/predict", "/explain", "/invocations"),
    *("/ping", "/metrics", "/models", "/models/tiny-run", "/models/tiny-run/report", "/nothing"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny-run", "/v2/models/tiny-run/ready"),
    *("/v2/models/tiny-run/infer", "/v2/models/tiny-run/versions/1/infer"),
]
VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "PURGE"]


@pytest.mark.parametrize("path", PATHS)
def test_every_verb(server: Server, path: str) -> None:
    for verb in VERBS:
        for body in (None, b"", b"{}", png()):
            reply = server.ask(verb, path, body)
            if reply.status != 200 and verb != "HEAD":
                code = "unknown_model"  # the version is another
                refused(reply, "wrong_method", "not_found", "no_picture", "bad_json", "bad_tensor", "bad_http", code)


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/static/../../settings.py",
        "/static/..%2f..%2fsettings.py",
        "/static/%2e%2e/%2e%2e/settings.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/",
        "/static/\\..\\settings.py",
        "/models/..%2f..",
        "/models/%2e%2e/report",
        "/models/%00/report",
        "/models/" + "a" * 20_000,
        "/v2/models/%F0%9F/infer",
        "/predict/",
        "//predict",
        "/predict%0d%0aX:y",
        "/%ff%fe",
        "/" + "%41" * 5000,
        "/?" + "a=b&" * 5000,
        "/models/tiny-run;x=1",
    ],
)
def test_traversals(server: Server, path: str) -> None:
    for verb in ("GET", "POST"):
        reply = server.ask(verb, path)
        assert b"root:" not in reply.body and b"MIB" not in reply.body
        if reply.status != 200:
            refused(reply, "not_found", "unknown_model", "wrong_method")
        else:
            assert path.startswith("/?")


def test_queries(server: Server) -> None:
    for query in ("model=..%2f..", "model=", "model=%00", "top=NaN", "top=1e3", "top=2%5e60", f"top={2**60}", "top=-0"):
        refused(server.post(f"/predict?{query}", png()), "unknown_model", "bad_request")
    assert server.post("/predict?" + "x=1&" * 5000, png()).status == 200
    refused(server.post("/explain?class=" + "a" * 10_000, png()), "bad_request")


def test_base64(server: Server) -> None:
    for text in ("", "=", "====", "A", "a b", "\u0661", "data:", "data:,", "data:image/png;base64,?", "A" * 1001):
        body = json.dumps({"image": text}).encode()
        refused(sent(server, body), "bad_base64", "bad_picture", "no_picture")
    whole = b64(png())
    assert sent(server, json.dumps({"image": whole}).encode()).status == 200
