"""The Dataset contract: what every source of pictures becomes before anything else sees it.

Nothing downstream knows whether the pixels came from CIFAR's archive, a folder of photos or a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tenfold.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    from tenfold import recipe

SPLITS = ("train", "val", "test")

Resize = Literal["squash", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Geometry:
    """How a picture of any size becomes the model's pixels.

    ``resize``: ``squash`` changes the aspect, ``crop`` keeps it and cuts the longer side about the centre, ``pad``
    keeps it and fills the rest with ``background`` (RGB, 0 to 255), on which transparent pictures are laid too.
    ``interpolation`` is how pixels are made of others.
    """

    height: int
    width: int
    resize: Resize = "squash"
    background: tuple[int, int, int] = (0, 0, 0)
    interpolation: Interpolation = "bilinear"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; ``interpolation`` is in it where it is not bilinear."""
        out: dict[str, Any] = {
            "height": self.height,
            "width": self.width,
            "resize": self.resize,
            "background": list(self.background),
        }
        return out if self.interpolation == "bilinear" else {**out, "interpolation": self.interpolation}


def square(size: int, settings: recipe.Data) -> Geometry:
    """``size`` × ``size`` pixels by a recipe's settings."""
    interpolation = "bilinear" if settings.interpolation == "auto" else settings.interpolation
    return Geometry(size, size, settings.resize, settings.background, interpolation)


@dataclass(frozen=True)
class Split:
    """One split of a dataset, images in a fixed order.

    images   uint8, N×H×W×3 (RGB), in memory or a read-only memory map
    labels   int64, N, indices into the dataset's classes
    origins  N strings: the file's path relative to its source, or ``train/17`` for image 17 of an archive's split
    """

    images: np.ndarray
    labels: np.ndarray
    origins: Sequence[str]

    def __post_init__(self) -> None:
        n = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise DataError(f"images must be uint8 N×H×W×3, not {self.images.dtype} {self.images.shape}.")
        if self.labels.dtype != np.int64 or self.labels.shape != (n,):
            raise DataError(f"labels must be int64 of length {n}, not {self.labels.dtype} {self.labels.shape}.")
        if len(self.origins) != n:
            raise DataError(f"{n} images but {len(self.origins)} origins.")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Skipped:
    """A picture that was left out, and why. Never replaced by another; listed and counted."""

    path: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Splits of pictures with their classes.

    name         short, fit for a folder's name: ``cifar10``, ``flowers``
    source       what the user gave: ``cifar10``, an absolute path …; loading it again gives the dataset again
    classes      class names; a label is an index into them
    splits       ``train``, ``val`` and ``test``, each possibly empty
    geometry     how the pictures were brought to H×W
    mirror       False where a mirrored picture may be of another class (digits, letters)
    fingerprint  SHA-256 over pixels, labels and classes of the source, whatever the splits
    split_rule   how splits that the source does not have were made, e.g.
                 ``{"rule": "stratified-hash", "seed": 0, "val_fraction": 0.1, "test_fraction": 0.15}``; None if it has
    skipped      the pictures left out
    notes        sentences the user must be told
    """

    name: str
    source: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    geometry: Geometry
    mirror: bool = True
    fingerprint: str = ""
    split_rule: Mapping[str, Any] | None = None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", MappingProxyType(dict(self.splits)))
        if len(set(self.classes)) != len(self.classes) or not all(0 < len(c) <= 1000 for c in self.classes):
            raise DataError(f"{self.name} has class names that are empty, over 1,000 characters long or there twice.")
        for name, split in self.splits.items():
            if name not in SPLITS:
                raise UnknownNameError("split", name, SPLITS)
            if split.images.shape[1:3] != (self.geometry.height, self.geometry.width):
                raise DataError(
                    f"Split {name} has {split.images.shape[1]}×{split.images.shape[2]} pixels, "
                    f"not {self.geometry.height}×{self.geometry.width}."
                )
            if len(split) and not (split.labels.min() >= 0 and split.labels.max() < len(self.classes)):
                raise DataError(f"Split {name} has labels outside 0 to {len(self.classes) - 1}.")

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            raise UnknownNameError("split", split, self.splits, where=f" in {self.name}")
        return self.splits[split]

    def counts(self, split: str) -> np.ndarray:
        """Images of each class in a split: int64, one for each class."""
        return np.bincount(self[split].labels, minlength=len(self.classes)).astype(np.int64)
