"""CIFAR-10 and CIFAR-100 from the official archives, binary or pickled, packed or unpacked.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenfold.data import cifar_files, fingerprint
from tenfold.data.cifar_files import Batch
from tenfold.data.progress import Progress, Report, silent
from tenfold.errors import DataError

SIDE = 32
PLANE = SIDE * SIDE

# Rows converted at a time: what is gathered, turned and hashed stays in the cores' own cache.
_ROWS = 256


@dataclass(frozen=True)
class Layout:
    """One of the official archives.

    folder   the folder in it, which is also what users unpack
    archive  its file name
    files    files of train and of test, in order; each holds ``rows`` images
    labels   binary only: bytes of labels before each image, of which the last is the class
    meta     the file with the classes' names, and (pickled only) the key they stand under
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    rows: tuple[int, int]
    meta: str
    pickled: bool
    labels: int = 0
    key: str = ""
    names_key: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, *self.test)

    def rows_of(self, file: str) -> int:
        return self.rows[0] if file in self.train else self.rows[1]

    def size_of(self, file: str) -> int | None:
        """The exact size in bytes of a binary file; None for a pickled one or the names."""
        if self.pickled or file == self.meta:
            return None
        return self.rows_of(file) * (self.labels + 3 * PLANE)


@dataclass(frozen=True)
class Variant:
    name: str
    title: str
    classes: int
    layouts: tuple[Layout, ...]


_TEN = tuple(f"data_batch_{i}" for i in range(1, 6))

VARIANTS: Mapping[str, Variant] = {
    "cifar10": Variant(
        "cifar10",
        "CIFAR-10",
        10,
        (
            Layout(
                "cifar-10-batches-bin",
                "cifar-10-binary.tar.gz",
                tuple(f"{name}.bin" for name in _TEN),
                ("test_batch.bin",),
                (10_000, 10_000),
                "batches.meta.txt",
                pickled=False,
                labels=1,
            ),
            Layout(
                "cifar-10-batches-py",
                "cifar-10-python.tar.gz",
                _TEN,
                ("test_batch",),
                (10_000, 10_000),
                "batches.meta",
                pickled=True,
                key="labels",
                names_key="label_names",
            ),
        ),
    ),
    "cifar100": Variant(
        "cifar100",
        "CIFAR-100",
        100,
        (
            Layout(
                "cifar-100-binary",
                "cifar-100-binary.tar.gz",
                ("train.bin",),
                ("test.bin",),
                (50_000, 10_000),
                "fine_label_names.txt",
                pickled=False,
                labels=2,
            ),
            Layout(
                "cifar-100-python",
                "cifar-100-python.tar.gz",
                ("train",),
                ("test",),
                (50_000, 10_000),
                "meta",
                pickled=True,
                key="fine_labels",
                names_key="fine_label_names",
            ),
        ),
    ),
}


@dataclass(frozen=True)
class Found:
    """Where an archive lies: an unpacked folder or a ``.tar.gz``."""

    path: Path
    layout: Layout

    @property
    def packed(self) -> bool:
        return self.path.name.endswith(".tar.gz")


@dataclass(frozen=True)
class Pictures:
    """All pictures of an archive, by split and in the archive's order within it.

    images   uint8 N×32×32×3: train, then val, then test
    labels   int64 N
    sizes    images in train, val and test
    indices  of each image its place in the archive's own train or test part
    digests  uint8 N×32, SHA-256 of each image
    """

    images: np.ndarray
    labels: np.ndarray
    sizes: tuple[int, int, int]
    indices: np.ndarray
    digests: np.ndarray
    classes: tuple[str, ...]


def find(variant: Variant, folders: Iterable[Path]) -> Found | None:
    """The first place of ``folders`` that holds the archive: the folder itself, an unpacked one in it, or
    packed in it."""
    for folder in folders:
        for layout in variant.layouts:
            for place in (folder, folder / layout.folder):
                if all((place / file).is_file() for file in (layout.meta, *layout.files)):
                    return Found(place, layout)
        for layout in variant.layouts:
            if (folder / layout.archive).is_file():
                return Found(folder / layout.archive, layout)
    return None


def recognize(path: Path) -> tuple[Variant, Found] | None:
    """The archive that ``path`` itself is, packed or unpacked, or None."""
    for variant in VARIANTS.values():
        for layout in variant.layouts:
            if path.is_file() and path.name == layout.archive:
                return variant, Found(path, layout)
            if path.is_dir() and all((path / file).is_file() for file in (layout.meta, *layout.files)):
                return variant, Found(path, layout)
    return None


def load(
    variant: Variant, found: Found, val_of: Callable[[np.ndarray], np.ndarray], report: Report = silent
) -> Pictures:
    """Read an archive. ``val_of`` is given the train labels and says with a bool for each which are held out
    as val.

    Raises DataError for a file of the wrong size, labels out of range, or anything but the few types in a
    pickle.
    """
    layout = found.layout
    source = cifar_files.Source(found.path, layout.folder, found.packed)
    files = source.read([layout.meta, *layout.files], layout.size_of, report)
    batches = [_batch(found, layout, name, files[name]) for name in layout.files]
    names = cifar_files.names(files[layout.meta], layout, found.path)
    _check(variant, found, batches, names)
    return _convert(_order(layout, batches, val_of), names, report)


def _batch(found: Found, layout: Layout, name: str, content: np.ndarray) -> Batch:
    rows = layout.rows_of(name)
    if layout.pickled:
        return cifar_files.unpickled_batch(content, layout.key, rows, f"{found.path}: {name}")
    table = content.reshape(rows, layout.labels + 3 * PLANE)
    return Batch(name, table[:, layout.labels - 1].astype(np.int64), table[:, layout.labels :])


def _check(variant: Variant, found: Found, batches: list[Batch], names: tuple[str, ...]) -> None:
    if len(names) != variant.classes or len(set(names)) != variant.classes:
        raise DataError(f"{found.path}: {found.layout.meta} names {len(set(names))} classes, not {variant.classes}.")
    for batch in batches:
        if batch.labels.min() < 0 or batch.labels.max() >= variant.classes:
            raise DataError(
                f"{found.path}: {batch.name} has labels outside 0 to {variant.classes - 1}; the file is damaged.",
                f"Remove {found.path} to have it downloaded anew, or unpack the archive again.",
            )


@dataclass(frozen=True)
class _Piece:
    """Rows of one batch that go, in order, to the images from ``start`` on."""

    batch: Batch
    rows: np.ndarray
    start: int


@dataclass(frozen=True)
class _Order:
    pieces: list[_Piece]
    sizes: tuple[int, int, int]
    indices: np.ndarray


def _order(layout: Layout, batches: list[Batch], val_of: Callable[[np.ndarray], np.ndarray]) -> _Order:
    trains, tests = batches[: len(layout.train)], batches[len(layout.train) :]
    held_out = val_of(np.concatenate([b.labels for b in trains]))
    pieces: list[_Piece] = []
    indices: list[np.ndarray] = []
    sizes: list[int] = []
    start = 0
    for group, chosen in ((trains, ~held_out), (trains, held_out), (tests, None)):
        before, offset = start, 0
        for batch in group:
            n = len(batch.labels)
            rows = np.arange(n) if chosen is None else np.flatnonzero(chosen[offset : offset + n])
            pieces.append(_Piece(batch, rows, start))
            indices.append(rows + offset)
            start += len(rows)
            offset += n
        sizes.append(start - before)
    return _Order(pieces, (sizes[0], sizes[1], sizes[2]), np.concatenate(indices))


def _convert(order: _Order, names: tuple[str, ...], report: Report) -> Pictures:
    """Turn planes into pixels, each row copied once, in blocks over the cores; NumPy and hashlib let the
    others run."""
    n = len(order.indices)
    images = np.empty((n, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(n, np.int64)
    digests = np.empty((n, fingerprint.DIGEST), np.uint8)
    tasks = [
        (piece, lo, min(lo + _ROWS, len(piece.rows)))
        for piece in order.pieces
        for lo in range(0, len(piece.rows), _ROWS)
    ]

    def work(task: tuple[_Piece, int, int]) -> int:
        piece, lo, hi = task
        rows = piece.rows[lo:hi]
        start = piece.start + lo
        out = images[start : start + len(rows)]
        planes = piece.batch.planes[rows].reshape(len(rows), 3, PLANE)
        flat = out.reshape(len(rows), PLANE, 3)
        for channel in range(3):
            flat[:, :, channel] = planes[:, channel]
        labels[start : start + len(rows)] = piece.batch.labels[rows]
        fingerprint.fill_digests(out, digests[start : start + len(rows)])
        return len(rows)

    done = 0
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for count in pool.map(work, tasks):
            done += count
            report(Progress("read", done, n, "images"))
    return Pictures(images, labels, order.sizes, order.indices, digests, names)
