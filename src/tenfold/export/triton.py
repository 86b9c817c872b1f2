"""The format ``triton``: a model repository for NVIDIA's Triton Inference Server, with the bundle's model.onnx.

    triton/
      NAME/config.pbtxt    the ONNX Runtime backend, with dynamic batching
      NAME/labels.txt      the classes, a line each, for Triton's classification extension
      NAME/1/model.onnx

``tritonserver --model-repository=triton`` serves it. The verdict is of model.onnx in ONNX Runtime, which Triton's
backend is too; Triton itself is not started.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tenfold.export.source import Source
from tenfold.runtimes.graph import INPUT, OUTPUT

BATCH = 64  # of 32×32 pixels; fewer of larger ones
PIXELS = BATCH * 32 * 32
DELAY_MICROSECONDS = 500


def write(source: Source, folder: Path) -> tuple[str, dict[str, Any]]:
    """Write the repository into ``folder``; the file that is opened, and what to say of how it was made."""
    manifest = source.bundle.manifest
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", manifest.name).strip("-.") or "model"
    model = folder / name / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(source.bundle.model())
    most = max(1, PIXELS // (manifest.geometry.height * manifest.geometry.width))
    (folder / name / "config.pbtxt").write_text(_config(source, name, most), encoding="utf-8")
    # a class name on more lines than one would move all that follow
    labels = [" ".join(label.split()) or "?" for label in manifest.classes]
    (folder / name / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    return model.relative_to(folder).as_posix(), {"max_batch_size": most, "server_run": False}


def _config(source: Source, name: str, most: int) -> str:
    manifest = source.bundle.manifest
    height, width, count = manifest.geometry.height, manifest.geometry.width, len(manifest.classes)
    parameters = "".join(
        f"parameters {{ key: {_text(key)} value: {{ string_value: {_text(text)} }} }}\n"
        for key, text in source.texts.items()
    )
    return f"""\
name: {_text(name)}
backend: "onnxruntime"
max_batch_size: {most}
input [ {{ name: "{INPUT}" data_type: TYPE_UINT8 dims: [ {height}, {width}, 3 ] }} ]
output [
  {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ {count} ] label_filename: "labels.txt" }}
]
dynamic_batching {{
  preferred_batch_size: [ {max(1, most // 2)}, {most} ]
  max_queue_delay_microseconds: {DELAY_MICROSECONDS}
}}
{parameters}"""


def _text(value: str) -> str:
    """A string of protobuf's text format: what is not plain ASCII goes byte by byte in octal."""
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\{b:03o}" for b in value.encode())
    return f'"{"".join(plain)}"'
