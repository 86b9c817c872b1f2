"""From a request's body to pictures' bytes: raw, as a form's files, or in JSON as base64. Runs in a worker."""

from __future__ import annotations

import base64
import binascii
import logging
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tenfold.bundle import fields
from tenfold.errors import BundleError
from tenfold.serving.refusal import Refusal

MAX_NAME = 255
MAX_BOUNDARY = 200  # RFC 2046 allows 70
FORM, JSON = "multipart/form-data", "application/json"

# It warns of each damaged form, which is a client's affair and answered as such.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Picture:
    """``name`` is what the client calls the file, None where it didn't say."""

    name: str | None
    data: bytes


def pictures(kind: str, body: bytes, most: int) -> list[Picture]:
    """The pictures in a body of the content type ``kind``, at least one and ``most`` at most.

    ``multipart/form-data`` holds files, ``application/json`` base64; whatever else is said, the body is one picture,
    unless it begins with a brace, which no picture does: that is JSON whose client named no type.
    """
    plain = kind.partition(";")[0].strip().lower()
    if plain == FORM:
        found = _form(kind, body, most)
    elif plain == JSON or plain.endswith("+json") or body[:64].lstrip()[:1] == b"{":
        found = _of_json(json(body), most)
    else:
        found = [Picture(None, body)] if body else []
    if not found:
        raise Refusal(
            400, "no_picture", "The request holds no picture. Send its bytes as the body, or a form's file part."
        )
    return found


def json(body: bytes) -> dict[str, Any]:
    """A JSON object, read as strictly as a bundle's: bounded in depth, no key twice, no NaN."""
    try:
        value = fields.strict_json(bytes(body), "The body")
    except BundleError as error:
        raise Refusal(400, "bad_json", error.message) from None
    if not isinstance(value, dict):
        raise Refusal(400, "bad_json", "The body is JSON, but not an object.")
    return value


def _of_json(value: dict[str, Any], most: int) -> list[Picture]:
    unknown = [key for key in value if key not in ("image", "images")]
    if unknown or len(value) != 1:
        what = f"not {unknown[0][:60]!r}" if unknown else "and one of them"
        raise Refusal(400, "bad_json", f'The JSON body takes "image" or "images", {what}.')
    given = [value["image"]] if "image" in value else value["images"]
    if not isinstance(given, list):
        raise Refusal(400, "bad_json", '"images" is not a list of base64 texts.')
    bounded(len(given), most)
    return [Picture(None, decoded(text, f'"images"[{i}]')) for i, text in enumerate(given)]


def bounded(count: int, most: int) -> None:
    if count > most:
        raise Refusal(413, "too_many_pictures", f"The request holds {count:,} pictures; at most {most} are taken.")


def decoded(text: Any, where: str) -> bytes:
    """Base64, plain or as a data URL."""
    if not isinstance(text, str):
        raise Refusal(400, "bad_base64", f"{where} is not a text in base64.")
    if text[:5] == "data:":
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "bad_base64", f"{where} is not base64.") from None


# ---- forms ----------------------------------------------------------------------------------------------------------


class _Parts:
    """Collects the files of a form as python-multipart walks it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: list[Picture] = []
        self.headers: dict[str, bytes] = {}
        self.field, self.value, self.data = b"", b"", bytearray()
        self.count, self.ended = 0, False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self.begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_part_data": self.part_data,
            "on_part_end": self.part_end,
            "on_end": self.end,
        }

    def begin(self) -> None:
        self.count += 1
        bounded(self.count, self.most)
        self.headers, self.data = {}, bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        self.headers[self.field.decode("latin-1").lower()] = self.value
        self.field, self.value = b"", b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self.data += data[start:end]

    def end(self) -> None:
        self.ended = True

    def part_end(self) -> None:
        _, options = parse_options_header(self.headers.get("content-disposition", b""))
        name = options.get(b"filename")
        if name is not None or options.get(b"name") == b"file":
            said = name.decode("utf-8", "replace")[-MAX_NAME:] if name else None
            self.found.append(Picture(said, bytes(self.data)))


def _form(kind: str, body: bytes, most: int) -> list[Picture]:
    boundary = parse_options_header(kind)[1].get(b"boundary")
    if not boundary or len(boundary) > MAX_BOUNDARY:
        raise Refusal(400, "bad_multipart", "The form's content type names no boundary.")
    parts = _Parts(most)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
    except (FormParserError, ValueError) as error:
        said = " ".join(str(error).split())[:120] or "it is damaged"
        raise Refusal(400, "bad_multipart", f"The form can't be read: {said.rstrip('.')}.") from None
    if not parts.ended:
        raise Refusal(400, "bad_multipart", "The form can't be read: it ends before its last boundary.")
    if not parts.found and parts.count:
        raise Refusal(400, "no_picture", 'The form has no file: name the part "file", as curl -F file=@cat.jpg does.')
    return parts.found
