"""The format ``tensorrt-fp16``: as ``tensorrt``, and TensorRT may compute in float16 where that is faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.export import tensorrt
from tenfold.export.source import Source


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write graph and engine into ``folder``; the file that is opened, and what to say of how they were made."""
    return tensorrt.write(source, folder, half=True)
