"""Processes of this same package beside this one: ``python -m tenfold.<module>``.

Plain children rather than ``multiprocessing``, which would import the user's own script again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tenfold


def command(module: str) -> list[str]:
    """What runs ``module``. -P keeps modules that lie in the working folder from being imported."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """This process's environment, in which the child finds the same tenfold."""
    package = str(Path(tenfold.__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{inherited}" if inherited else package}
