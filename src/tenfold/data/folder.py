"""A folder of pictures: ``train/ val/ test/`` with class folders in each, or class folders alone.

Inside a class folder pictures are taken from folders below it too. Names that begin with a dot are passed
over. Links to files are followed only where they stay inside the folder, links to folders never.
"""

# Plain strings: making a Path of each of a million files takes longer than asking the system about it.
# ruff: noqa: PTH110, PTH118, PTH122

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.data import cache
from tenfold.data.dataset import SPLITS, Dataset, Skipped
from tenfold.data.formats import SUFFIXES
from tenfold.data.listing import (
    SPLIT_NAMES,
    Item,
    Listing,
    in_order,
    link_inside,
    printable,
    require_classes,
    several,
    short_name,
)
from tenfold.data.progress import Report
from tenfold.errors import DataError

if TYPE_CHECKING:
    from tenfold import recipe

LAYOUT = "Expected: a folder for each class with its pictures, or train/, val/ and test/ holding such folders."

_PASSED_OVER = ("__MACOSX", "__pycache__")


def load(path: Path, settings: recipe.Data, report: Report) -> Dataset:
    """The pictures below ``path``, decoded or from the cache. Raises DataError."""
    return cache.load(listing(path), settings, report)


def listing(path: Path) -> Listing:
    """Every picture below ``path`` with its class and, where the folders say so, its split."""
    scan = _Scan(os.path.realpath(path))
    top = scan.folders(scan.root)
    splits = _split_folders(top, path)
    if splits:
        found, names = _read_splits(scan, splits, path)
        unused = sorted(printable(n) for n in top if n not in splits.values())
        if unused:
            scan.notes.append(f"Beside the splits, {several(unused)} was not read.")
    else:
        found = {(None, name): scan.pictures(os.path.join(scan.root, name)) for name in top}
        names = _with_pictures(scan, found, path)
    require_classes(names, path, _hint(scan, top, path))
    labels = {name: label for label, name in enumerate(names)}
    items = []
    for (split, name), pictures in found.items():
        label = labels.get(printable(name), 0)  # an empty folder is no class, and has no pictures either
        items += [Item(p.path, p.origin, label, split, p.size, p.mtime) for p in pictures]
    scan.note_what_was_not_taken()
    return Listing(
        name=short_name(path),
        source=str(path),
        classes=names,
        items=tuple(sorted(items, key=lambda item: item.origin)),
        skipped=tuple(scan.skipped),
        notes=tuple(scan.notes),
    )


@dataclass(frozen=True, slots=True)
class _Picture:
    path: str
    origin: str
    size: int
    mtime: int


@dataclass
class _Scan:
    """One walk over the folder: what is found, and what is passed over and must be said."""

    root: str
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    loose: int = 0

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in ``folder``, sorted; pictures that lie beside them are counted."""
        names = []
        for entry in self._entries(folder):
            if entry.is_symlink() and entry.is_dir():
                self._skip(entry.path, "a link to a folder; not followed.")
            elif entry.is_dir(follow_symlinks=False):
                names.append(entry.name)
            elif _is_picture(entry.name):
                self.loose += 1
        return sorted(names)

    def pictures(self, folder: str) -> list[_Picture]:
        """Every picture in ``folder`` and below it."""
        found = []
        waiting = [folder]
        while waiting:
            for entry in self._entries(waiting.pop()):
                if entry.is_symlink():
                    found += self._linked(entry)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not _is_picture(entry.name):
                    self.others[os.path.splitext(entry.name)[1].lower()] += 1
                elif entry.is_file(follow_symlinks=False):
                    found.append(self._picture(entry.path, entry.stat(follow_symlinks=False)))
                else:
                    self._skip(entry.path, "not a regular file.")
        return found

    def _linked(self, entry: os.DirEntry[str]) -> list[_Picture]:
        if not os.path.exists(entry.path):
            self._skip(entry.path, "a link that leads nowhere.")
        elif entry.is_dir():
            self._skip(entry.path, "a link to a folder; not followed.")
        elif not link_inside(entry.path, self.root):
            self._skip(entry.path, "a link that leads out of the folder; not followed.")
        elif _is_picture(entry.name) and entry.is_file():
            return [self._picture(entry.path, entry.stat())]
        return []

    def _picture(self, path: str, status: os.stat_result) -> _Picture:
        return _Picture(path, self.origin(path), status.st_size, status.st_mtime_ns)

    def origin(self, path: str) -> str:
        return printable(path[len(self.root) :].lstrip(os.sep).replace(os.sep, "/"))

    def _skip(self, path: str, reason: str) -> None:
        self.skipped.append(Skipped(self.origin(path), reason))

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return [e for e in entries if not e.name.startswith(".") and e.name not in _PASSED_OVER]
        except OSError as error:
            raise DataError(f"{printable(folder)} can't be read: {error.strerror}.") from None

    def note_what_was_not_taken(self) -> None:
        if self.loose:
            self.notes.append(f"{self.loose:,} pictures lie outside the class folders and were not read.")
        if self.others:
            kinds = several([suffix or "no suffix" for suffix, _ in self.others.most_common()])
            self.notes.append(f"{self.others.total():,} files are not pictures by their suffix ({kinds}).")


def _is_picture(name: str) -> bool:
    dot = name.rfind(".")
    return dot > 0 and name[dot:].lower() in SUFFIXES


def _split_folders(top: list[str], path: Path) -> dict[str, str]:
    """Split to its folder's name, where the layout has splits: train among others, or nothing but splits."""
    named = [n for n in top if n.casefold() in SPLIT_NAMES]
    if not any(SPLIT_NAMES[n.casefold()] == "train" for n in named) and len(named) < len(top):
        return {}
    splits: dict[str, str] = {}
    for name in named:
        split = SPLIT_NAMES[name.casefold()]
        if split in splits:
            raise DataError(f"{path} has two folders for the split {split}: {splits[split]} and {name}.")
        splits[split] = name
    return splits


_Found = dict[tuple[str | None, str], list[_Picture]]


def _read_splits(scan: _Scan, splits: dict[str, str], path: Path) -> tuple[_Found, tuple[str, ...]]:
    """The pictures of each (split, class folder), whose class folders must be the same in every split."""
    found: _Found = {}
    classes: dict[str, set[str]] = {}
    for split in (s for s in SPLITS if s in splits):
        folder = os.path.join(scan.root, splits[split])
        loose, scan.loose = scan.loose, 0
        inside = scan.folders(folder)
        if scan.loose and not inside:
            raise DataError(f"{path / splits[split]} has {scan.loose:,} pictures but no class folders.", LAYOUT)
        scan.loose += loose
        classes[split] = set(inside)
        found |= {(split, name): scan.pictures(os.path.join(folder, name)) for name in inside}
    _require_same(classes, splits, path)
    empty = {s for s in splits if not any(found[s, name] for name in classes[s])}
    for split in sorted(empty):
        scan.notes.append(f"{splits[split]} holds no pictures.")
    leading = next((s for s in SPLITS if s in splits and s not in empty), None)
    if leading is None:
        raise DataError(f"{path} holds no pictures.", LAYOUT)
    for name in sorted(classes[leading]):
        counts = {s: len(found[s, name]) for s in splits}
        if not any(counts.values()):
            scan.notes.append(f"The class folder {printable(name)} is empty in every split and was left out.")
        elif not counts[leading]:
            raise DataError(f"{path}: the class {printable(name)} has no picture in {splits[leading]}.")
        else:
            for split in (s for s in SPLITS if s in splits and s not in empty and not counts[s]):
                scan.notes.append(f"The class {printable(name)} has no picture in {splits[split]}.")
    names = in_order(printable(n) for n in classes[leading] if any(found[s, n] for s in splits))
    return found, names


def _require_same(classes: dict[str, set[str]], splits: dict[str, str], path: Path) -> None:
    every = set().union(*classes.values())
    missing = [
        f"{splits[split]} lacks {several(sorted(printable(n) for n in every - inside))}"
        for split, inside in classes.items()
        if inside and every - inside
    ]
    if missing:
        raise DataError(
            f"{path}: the class folders differ between the splits: {'; '.join(missing)}.",
            "Name the folders alike in every split; a class without pictures there may be an empty folder.",
        )


def _with_pictures(scan: _Scan, found: _Found, path: Path) -> tuple[str, ...]:
    """Names of the classes; folders without a picture are no classes, and said."""
    names = [name for (_, name), pictures in found.items() if pictures]
    if not names:
        links = f" ({len(scan.skipped)} links were not followed)" if scan.skipped else ""
        raise DataError(f"{path} holds no pictures in class folders{links}.", LAYOUT)
    if empty := sorted(printable(name) for (_, name), pictures in found.items() if not pictures):
        scan.notes.append(f"No picture in {several(empty)}; left out.")
    shown = [printable(name) for name in names]
    folded = Counter(name.casefold() for name in shown)
    if alike := sorted(n for n in shown if folded[n.casefold()] > 1):
        scan.notes.append(f"Classes whose names differ by case alone: {several(alike)}.")
    if len(set(shown)) < len(shown):
        raise DataError(f"{path} has class folders that can't be told apart by name: {several(sorted(shown))}.")
    return in_order(shown)


def _hint(scan: _Scan, top: list[str], path: Path) -> str:
    """Of a folder that only wraps the right one, name that."""
    if len(top) == 1 and (below := scan.folders(os.path.join(scan.root, top[0]))):
        return f"Did you mean {path / top[0]}, which holds {several([printable(n) for n in below])}?"
    return LAYOUT
