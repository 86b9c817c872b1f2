"""The same recipe trained by each engine on each device: child processes in turn, one table, one plot.

records.py knows the figures and their arithmetic, child.py how one training is run and measured, work.py the order of
the runs and the folder, plot.py the picture. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "compare": "tenfold.comparison.work",
    "Comparison": "tenfold.comparison.records",
    "Contestant": "tenfold.comparison.records",
    "Ended": "tenfold.comparison.records",
    "LeftOut": "tenfold.comparison.records",
    "Row": "tenfold.comparison.records",
    "Spread": "tenfold.comparison.records",
    "Started": "tenfold.comparison.records",
    "Trial": "tenfold.comparison.records",
}

__all__ = ["Comparison", "Contestant", "Ended", "LeftOut", "Row", "Spread", "Started", "Trial", "compare"]

if TYPE_CHECKING:
    from tenfold.comparison.records import Comparison, Contestant, Ended, LeftOut, Row, Spread, Started, Trial
    from tenfold.comparison.work import compare


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tenfold.comparison' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
