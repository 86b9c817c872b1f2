"""The format ``openvino-fp16``: as ``openvino``, weights stored as float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.export import openvino_ir
from tenfold.export.source import Source


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    return openvino_ir.write(source, folder, half=True)
