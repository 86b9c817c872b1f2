"""A table of pictures: a CSV with a header and the columns path, label and perhaps split.

Paths are relative to the table's folder and never lead out of it. Comma, semicolon or tab; UTF-8.
"""

# Plain strings: making a Path of each of a million files takes longer than asking the system about it.
# ruff: noqa: PTH116, PTH118, PTH120

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.data import cache
from tenfold.data.dataset import Dataset, Skipped
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

MAX_TABLE_BYTES = 1_000_000_000

EXPECTED = "Expected a first line such as path,label or path,label,split, then a line for each picture."


def load(path: Path, settings: recipe.Data, report: Report) -> Dataset:
    """The pictures that the table at ``path`` names, decoded or from the cache. Raises DataError."""
    return cache.load(listing(path), settings, report)


def listing(path: Path) -> Listing:
    """Every row's picture with its label and, where the table has that column, its split."""
    reader = _Reader(path, os.path.realpath(path.parent))
    rows = list(reader.rows())
    if not rows and not reader.skipped:
        raise DataError(f"{path} names no pictures.", EXPECTED)
    classes = in_order(row.label for row in rows)
    require_classes(classes, path, EXPECTED)
    labels = {name: label for label, name in enumerate(classes)}
    _require_trained(rows, path)
    items = [Item(row.path, row.origin, labels[row.label], row.split, row.size, row.mtime) for row in rows]
    notes = []
    if reader.repeated:
        notes.append(f"{reader.repeated:,} rows repeat an earlier one and were left out.")
    return Listing(
        name=short_name(path),
        source=str(path),
        classes=classes,
        items=tuple(sorted(items, key=lambda item: item.origin)),
        skipped=tuple(reader.skipped),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    path: str
    origin: str
    label: str
    split: str | None
    size: int
    mtime: int


@dataclass
class _Reader:
    table: Path
    root: str
    skipped: list[Skipped] = field(default_factory=list)
    repeated: int = 0
    seen: dict[str, tuple[str, str | None, int]] = field(default_factory=dict)
    inside: dict[str, bool] = field(default_factory=dict)

    def rows(self) -> Iterator[_Row]:
        """The rows whose files exist; DataError names the line of one that doesn't fit."""
        for line, (name, label, split) in self._cells():
            if not name or not label:
                raise self._wrong(line, "the path or the label is empty")
            path = os.path.normpath(os.path.join(self.root, name))
            if not self._lexically_inside(path):
                raise self._wrong(line, f"{name!r} leads out of the table's folder")
            origin = printable(os.path.relpath(path, self.root).replace(os.sep, "/"))
            if self._repeats(line, origin, label, split):
                continue
            status = self._status(path, origin)
            if status is not None:
                yield _Row(path, origin, label, split, status.st_size, status.st_mtime_ns)

    def _cells(self) -> Iterator[tuple[int, tuple[str, str, str | None]]]:
        try:
            if self.table.stat().st_size > MAX_TABLE_BYTES:
                raise DataError(f"{self.table} is larger than a table can be ({MAX_TABLE_BYTES:,} bytes).")
            with self.table.open(encoding="utf-8-sig", newline="") as file:
                header_line = file.readline(10_000)
                delimiter = max(",;\t", key=header_line.count)
                columns = self._columns(next(csv.reader([header_line], delimiter=delimiter), []))
                for row in (reader := csv.reader(file, delimiter=delimiter)):
                    if row:
                        yield reader.line_num + 1, self._pick(reader.line_num + 1, row, columns)
        except OSError as error:
            raise DataError(f"{self.table} can't be read: {error.strerror}.") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{self.table} is not text in UTF-8 (byte {error.start:,}).") from None
        except csv.Error as error:
            raise DataError(f"{self.table} is not a table: {error}.", EXPECTED) from None

    def _columns(self, header: list[str]) -> tuple[int, int, int | None]:
        names = [name.strip().casefold() for name in header]
        if "path" not in names or "label" not in names:
            raise DataError(f"{self.table}: the first line names no columns path and label.", EXPECTED)
        for name in ("path", "label", "split"):
            if names.count(name) > 1:
                raise DataError(f"{self.table}: the column {name} stands there twice.")
        return names.index("path"), names.index("label"), names.index("split") if "split" in names else None

    def _pick(self, line: int, row: list[str], columns: tuple[int, int, int | None]) -> tuple[str, str, str | None]:
        path, label, split = columns
        if len(row) <= max(path, label, split or 0):
            raise self._wrong(line, f"has {len(row)} columns, fewer than the first line")
        if split is None:
            return row[path].strip(), row[label].strip(), None
        named = row[split].strip()
        if named.casefold() not in SPLIT_NAMES:
            raise self._wrong(line, f"{named!r} is not a split; known are train, val and test")
        return row[path].strip(), row[label].strip(), SPLIT_NAMES[named.casefold()]

    def _lexically_inside(self, path: str) -> bool:
        return path.startswith(self.root.rstrip(os.sep) + os.sep) and "\0" not in path

    def _repeats(self, line: int, origin: str, label: str, split: str | None) -> bool:
        """A picture named twice would be in two places at once: refused, or left out where the row is the
        same."""
        before = self.seen.setdefault(origin, (label, split, line))
        if before[2] == line:
            return False
        if before[:2] != (label, split):
            raise self._wrong(line, f"{origin!r} already stands in line {before[2]:,} with another label or split")
        self.repeated += 1
        return True

    def _status(self, path: str, origin: str) -> os.stat_result | None:
        """Size and time of a file inside the folder; None, and listed as skipped, for any other."""
        folder = os.path.dirname(path)
        if folder not in self.inside:
            self.inside[folder] = link_inside(folder, self.root)
        try:
            status = os.lstat(path)
            reason = None if self.inside[folder] else "it lies behind a link that leads out of the folder."
            if stat.S_ISLNK(status.st_mode) and reason is None:
                reason = None if link_inside(path, self.root) else "a link that leads out of the folder; not followed."
                status = os.stat(path)
        except OSError as error:
            reason = "there is no such file." if isinstance(error, FileNotFoundError) else f"{error.strerror}."
        if reason is None:
            return status
        self.skipped.append(Skipped(origin, reason))
        return None

    def _wrong(self, line: int, what: str) -> DataError:
        return DataError(f"{self.table}, line {line:,}: {what}.")


def _require_trained(rows: list[_Row], path: Path) -> None:
    """Classes of the other splits that train lacks can't be learned."""
    trained = {row.label for row in rows if row.split == "train"}
    if trained and (unknown := in_order({row.label for row in rows if row.split is not None} - trained)):
        raise DataError(f"{path}: classes without a row in train: {several(unknown)}.")
