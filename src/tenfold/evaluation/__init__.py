"""Evaluation: probabilities and labels in, figures with their uncertainty, plots and a report out.

Everything is NumPy; matplotlib is imported only by ``plots``. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Evaluation": "tenfold.evaluation.metrics",
    "measure": "tenfold.evaluation.metrics",
    "fit_temperature": "tenfold.evaluation.calibration",
    "evaluate": "tenfold.evaluation.stored",
    "ReportContent": "tenfold.evaluation.content",
}

__all__ = ["Evaluation", "ReportContent", "evaluate", "fit_temperature", "measure"]

if TYPE_CHECKING:
    from tenfold.evaluation.calibration import fit_temperature
    from tenfold.evaluation.content import ReportContent
    from tenfold.evaluation.metrics import Evaluation, measure
    from tenfold.evaluation.stored import evaluate


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tenfold.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
