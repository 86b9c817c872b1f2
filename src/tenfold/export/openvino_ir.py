"""The format ``openvino``: OpenVINO's IR, model.xml and model.bin, from the bundle's model.onnx.

What the model says of itself stands in ``rt_info`` under ``tenfold``. Weights stay in float32; ``openvino_fp16`` stores
them as float16, which OpenVINO makes float32 again when it loads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.export.source import Source
from tenfold.runtimes import openvino as runtime

MODEL = "model.xml"


def write(source: Source, folder: Path, *, half: bool = False) -> tuple[str, dict[str, Any]]:
    """Write the model into ``folder``; the file that is opened, and what to say of how it was made."""
    openvino = runtime.package()
    model = openvino.Core().read_model(model=source.bundle.model())
    for key, text in source.texts.items():
        model.set_rt_info(text, key.split("."))
    openvino.save_model(model, folder / MODEL, compress_to_fp16=half)
    return MODEL, {"weights": "float16" if half else "float32"}
