"""From a name, a folder or a table to a Dataset. Each name is loaded when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "load_dataset": "tenfold.data.sources",
    "Dataset": "tenfold.data.dataset",
    "Geometry": "tenfold.data.dataset",
    "Skipped": "tenfold.data.dataset",
    "Split": "tenfold.data.dataset",
    "SPLITS": "tenfold.data.dataset",
    "Progress": "tenfold.data.progress",
}

__all__ = ["SPLITS", "Dataset", "Geometry", "Progress", "Skipped", "Split", "load_dataset"]

if TYPE_CHECKING:
    from tenfold.data.dataset import SPLITS, Dataset, Geometry, Skipped, Split
    from tenfold.data.progress import Progress
    from tenfold.data.sources import load_dataset


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tenfold.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
