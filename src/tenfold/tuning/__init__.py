"""A search for a better recipe, on Optuna: many trainings, judged on validation images, the best ones confirmed.

space.py knows the fields that are searched, storage.py Optuna's storages, training.py a training without a run folder,
cost.py what it computes, worker.py and pool.py the processes, search.py the order, work.py the call, folder.py what is
left, records.py what was found, page.py, charts.py and importance.py how it is shown. Names are loaded when they are
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "tune": "tenfold.tuning.work",
    "Confirmed": "tenfold.tuning.records",
    "Trial": "tenfold.tuning.records",
    "Tuning": "tenfold.tuning.records",
    "Update": "tenfold.tuning.records",
}

__all__ = ["Confirmed", "Trial", "Tuning", "Update", "tune"]

if TYPE_CHECKING:
    from tenfold.tuning.records import Confirmed, Trial, Tuning, Update
    from tenfold.tuning.work import tune


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tenfold.tuning' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
