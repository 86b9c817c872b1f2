"""The seeded stratified rule that makes the splits a source lacks.

Within each class the images are ordered by the SHA-256 of ``seed:origin``. The first ones are for testing,
the last ones for validation. Since an image's place depends on its own name alone, and the two ends of the
order can't meet, adding or removing other pictures moves only the few at the borders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

RULE = "stratified-hash"

_CODES = {"train": 0, "val": 1, "test": 2}


def share(n: int, fraction: float) -> int:
    """Images of ``n`` that a ``fraction`` holds out: rounded, at least 1 of 3 or more, never all."""
    if fraction <= 0 or n < 2:
        return 0
    wanted = int(fraction * n + 0.5)
    return min(max(wanted, 1 if n >= 3 else 0), n - 1)


def val_share(wanted: float | str, images: int) -> float:
    """The ``val_fraction`` for so many images: as asked for, and for ``auto`` about 1,000 images, but no less than
    2 % and no more than 10 % of them."""
    if isinstance(wanted, str):
        return round(min(0.1, max(0.02, 1000 / max(1, images))), 4)
    return wanted


def assign(
    labels: np.ndarray, origins: Sequence[str], *, seed: int, val_fraction: float, test_fraction: float
) -> np.ndarray:
    """The split of each image by the rule: uint8, 0 train, 1 val, 2 test (indices into ``SPLITS``).

    ``test_fraction`` is of all the images given, ``val_fraction`` of those that testing leaves. A split that
    the source has already is asked for with fraction 0.
    """
    codes = np.zeros(len(labels), np.uint8)
    prefix = f"{seed}:".encode()
    digests = np.array(
        [hashlib.sha256(prefix + o.encode("utf-8", "surrogateescape")).digest()[:8] for o in origins], dtype="S8"
    ).view(">u8")
    order = np.lexsort((np.arange(len(labels)), digests, labels))
    borders = np.flatnonzero(np.diff(labels[order])) + 1
    for members in np.split(order, borders) if len(order) else []:
        test = share(len(members), test_fraction)
        val = share(len(members) - test, val_fraction)
        codes[members[:test]] = _CODES["test"]
        codes[members[len(members) - val :]] = _CODES["val"]
    return codes


def rule(seed: int, val_fraction: float, test_fraction: float) -> dict[str, Any]:
    """What ``Dataset.split_rule`` records; a fraction is left out where the source has that split."""
    made: dict[str, Any] = {"rule": RULE, "seed": seed}
    if val_fraction:
        made["val_fraction"] = val_fraction
    if test_fraction:
        made["test_fraction"] = test_fraction
    return made
