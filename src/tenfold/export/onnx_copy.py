"""The format ``onnx``: the bundle's own model.onnx, byte for byte. Its classes, geometry and calibration are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.export.source import Source

MODEL = "model.onnx"


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    (folder / MODEL).write_bytes(source.bundle.model())
    return MODEL, {}
