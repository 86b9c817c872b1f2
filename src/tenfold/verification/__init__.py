"""Verification: one bundle, the same images, every engine and runtime that is installed, each in its own process.

Names are loaded when they are first used; no framework is imported in this process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Verification": "tenfold.verification.verdicts",
    "Row": "tenfold.verification.verdicts",
    "ImageSet": "tenfold.verification.verdicts",
    "verify": "tenfold.verification.replay",
}

__all__ = ["ImageSet", "Row", "Verification", "verify"]

if TYPE_CHECKING:
    from tenfold.verification.replay import verify
    from tenfold.verification.verdicts import ImageSet, Row, Verification


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tenfold.verification' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
