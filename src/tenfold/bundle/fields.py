"""Checks of single values that a stranger may have written: a manifest's fields, a model's metadata.

Each takes the value and ``where`` it stood, and gives the value in its own type or raises a BundleError that
names the place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, get_args

import numpy as np

from tenfold.data.dataset import Geometry, Interpolation, Resize
from tenfold.errors import BundleError

MAX_DEPTH = 32
MAX_DIGITS = 40
MAX_CLASSES = 65536
MAX_SIZE = 4096

# What a value may take of memory is bounded before it is there: 250 bytes a text, 250 an object, 90 a list.
MAX_TEXTS, MAX_OBJECTS, MAX_LISTS = 500_000, 200_000, 4_000_000

# A text without an end is taken up to the data's, so that nothing is walked over twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_LONG = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))


def strict_json(data: bytes, where: str) -> Any:
    """The value of a JSON text, read more strictly than Python does by itself.

    Refused are nesting deeper than 32, a key given twice, NaN and infinities (also ``1e999``), numbers of more than
    40 digits, bytes that are not UTF-8, halves of surrogate pairs, and more than 500,000 texts, 200,000 objects or
    4,000,000 lists. Takes a time that grows with the length alone.
    """
    counted = (b'"', 2 * MAX_TEXTS, "texts"), (b"{}", MAX_OBJECTS, "objects"), (b"[]", MAX_LISTS, "lists")
    for marks, most, what in counted:
        if any(data.count(mark) > most for mark in (marks[:1], marks[-1:])):
            raise BundleError(f"{where} holds too many {what}.")
    bare = _STRING.sub(b"", data)
    brackets = np.frombuffer(bare.translate(None, _OTHERS), np.uint8)
    depths = np.cumsum(np.where(np.isin(brackets, (ord("["), ord("{"))), 1, -1), dtype=np.int32)
    if depths.max(initial=0) > MAX_DEPTH:
        raise BundleError(f"{where} is nested deeper than {MAX_DEPTH}.")
    if long := _LONG.search(bare):
        raise BundleError(f"{where} holds the number {long[0][:20].decode()}…, which is out of range.")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise BundleError(f"{where} has the key {_repeated(key for key, _ in pairs)[:60]!r} twice.")
        return out

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise BundleError(f"{where} holds the number {digits[:20]}…, which is out of range.")
        return value

    def constant(name: str) -> float:
        raise BundleError(f"{where} holds {name}, which is not JSON.")

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=once,
            parse_float=number,
            parse_constant=constant,
        )
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise BundleError(f"{where} is not text in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise BundleError(f"{where} is not JSON: {error.msg} in line {error.lineno}.") from None
    except (RecursionError, ValueError):
        raise BundleError(f"{where} is not JSON that can be read.") from None
    return value


def _repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def entries(value: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    """An object with exactly these keys."""
    out = anything(value, where)
    for key in out:
        if key not in names:
            raise BundleError(f"{where} has an unknown field {key[:60]!r}.")
    for name in names:
        if name not in out:
            raise BundleError(f"{where} lacks the field {name!r}.")
    return out


def anything(value: Any, where: str) -> dict[str, Any]:
    """An object with any keys."""
    if not isinstance(value, dict):
        raise BundleError(f"{where} is not an object.")
    return value


def text(value: Any, where: str, longest: int) -> str:
    """A text of 1 to ``longest`` characters."""
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise BundleError(f"{where} is not a text of 1 to {longest} characters.")
    return value


def whole(value: Any, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BundleError(f"{where} is not a whole number from {low} to {high}.")
    return value


def temperature(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-6 <= value <= 1e6:
        raise BundleError(f"{where} is not a number from 0.000001 to 1000000.")
    return float(value)


def threshold(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise BundleError(f"{where} is not a probability from 0 to 1, nor null.")
    return float(value)


def sha256(value: Any, where: str) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise BundleError(f"{where} is not a SHA-256 in 64 small hexadecimal digits.")
    return value


def classes(value: Any, where: str) -> tuple[str, ...]:
    """A list of 1 to 65,536 different names."""
    if not isinstance(value, list) or not 0 < len(value) <= MAX_CLASSES:
        raise BundleError(f"{where} is not a list of 1 to {MAX_CLASSES} names.")
    names = tuple(text(name, f"{where}[{i}]", 1000) for i, name in enumerate(value))
    if len(set(names)) != len(names):
        raise BundleError(f"{where} has the class {_repeated(names)[:60]!r} twice.")
    return names


def geometry(value: Any, where: str) -> Geometry:
    names = ("height", "width", "resize", "background")
    interpolated = "interpolation" in anything(value, where)
    fields = entries(value, (*names, "interpolation") if interpolated else names, where)
    interpolation = fields.get("interpolation", "bilinear")
    if interpolation not in get_args(Interpolation):
        raise BundleError(f"{where}.interpolation is not one of {', '.join(get_args(Interpolation))}.")
    resize = fields["resize"]
    if resize not in get_args(Resize):
        raise BundleError(f"{where}.resize is not one of {', '.join(get_args(Resize))}.")
    background = fields["background"]
    if not isinstance(background, list) or len(background) != 3:
        raise BundleError(f"{where}.background is not a list of three numbers.")
    red, green, blue = (whole(v, f"{where}.background[{i}]", 0, 255) for i, v in enumerate(background))
    return Geometry(
        height=whole(fields["height"], f"{where}.height", 1, MAX_SIZE),
        width=whole(fields["width"], f"{where}.width", 1, MAX_SIZE),
        resize=resize,
        background=(red, green, blue),
        interpolation=interpolation,
    )
