"""What a folder or a table lists before anything is decoded: files with their classes, and what was left
out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tenfold.data.dataset import Skipped
from tenfold.errors import DataError

# Names of split folders, and values of a table's split column, that are understood.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One file.

    path    as the system knows it, absolute; may hold surrogates for bytes that are not UTF-8
    origin  as people read it, relative to the source, always with ``/``
    split   ``train``, ``val`` or ``test`` where the source says so, else None
    size    bytes; with ``mtime`` (nanoseconds) it tells a changed file
    """

    path: str
    origin: str
    label: int
    split: str | None
    size: int
    mtime: int


@dataclass(frozen=True)
class Listing:
    """Everything a source lists. ``skipped`` and ``notes`` are passed on to the Dataset."""

    name: str
    source: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def printable(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 become ``\\xff``."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def short_name(path: Path) -> str:
    """A dataset's name, fit for a folder's, from the folder or file it came from."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", printable(path.stem if path.is_file() else path.name)).strip("-._")
    return name[:60] or "data"


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their labels: numbers by value, else by code points."""
    found = sorted(set(names))
    if all(n.isdecimal() and n.isascii() for n in found):
        found.sort(key=lambda n: (int(n), n))
    return tuple(found)


def require_classes(classes: tuple[str, ...], where: object, hint: str) -> None:
    if len(classes) < 2:
        only = f" ({classes[0]})" if classes else ""
        raise DataError(f"{where} has {len(classes)} class{'' if classes else 'es'}{only}; two are the least.", hint)


def letters_or_digits(classes: tuple[str, ...]) -> bool:
    """Whether the classes look like characters, which a mirror makes into others or into none."""
    return all(len(name) == 1 and name.isalnum() for name in classes)


def several(names: Iterable[str], limit: int = 5) -> str:
    """``a, b, c and 4 more``."""
    found = list(names)
    shown = ", ".join(found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit:,} more"


def link_inside(path: str, root: str) -> bool:
    """Whether a link leads to something that lies inside ``root`` (an absolute path without links)."""
    target = os.path.realpath(path)
    return target == root or target.startswith(root.rstrip(os.sep) + os.sep)
