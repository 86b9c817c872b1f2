"""The format ``litert-int8``: as ``litert``, with convolutions and products in 8 bits, statically quantised by
TensorFlow's converter: kernels by output channel, activations by tensor. What has no kernel in 8 bits stays in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.export import litert
from tenfold.export.source import Source


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    assert source.calibration is not None
    (folder / litert.MODEL).write_bytes(litert.converted(source, source.calibration))
    said = {"weights": "int8, by channel", "activations": "int8, by tensor"}
    return litert.MODEL, {**said, "calibration": {"method": "minmax", "images": len(source.calibration)}}
