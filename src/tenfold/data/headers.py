"""The files' own sizes, read from their headers alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tenfold.data.dataset import SPLITS, Dataset
from tenfold.data.progress import Progress, Report, silent
from tenfold.errors import ImageError

_BLOCK = 256


@dataclass(frozen=True)
class Header:
    """A picture's place in the dataset, splits counted through, and the upright picture's size in pixels."""

    index: int
    origin: str
    width: int
    height: int
    format: str

    @property
    def size(self) -> str:
        return f"{self.width}×{self.height}"


def headers(dataset: Dataset, report: Report = silent) -> list[Header]:
    """Of every picture that is a file of its own; none for an archive. What can't be read any more is left out."""
    root = Path(dataset.source)
    if not root.is_absolute() or not root.exists():
        return []
    folder = root if root.is_dir() else root.parent
    origins = [origin for name in SPLITS if name in dataset.splits for origin in dataset[name].origins]
    if not origins or not (folder / origins[0]).is_file():
        return []
    found: list[Header] = []
    starts = range(0, len(origins), _BLOCK)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start, block in zip(starts, pool.map(lambda s: list(_block(folder, origins, s)), starts), strict=True):
            found += block
            report(Progress("measure", min(start + _BLOCK, len(origins)), len(origins), "images"))
    return found


def _block(folder: Path, origins: list[str], start: int) -> Iterator[Header]:
    from tenfold.data.decode import probe

    for index in range(start, min(start + _BLOCK, len(origins))):
        try:
            seen = probe(folder / origins[index])
        except ImageError:
            continue
        yield Header(index, origins[index], seen.width, seen.height, seen.format)
