"""The manifest: what a bundle says of itself.

Plain dataclasses and hand-written checks, not Pydantic: ``tenfold predict`` opens a manifest on every call, and
importing Pydantic would cost it a fifth of its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.architecture.layers import Architecture
from tenfold.data.dataset import Geometry

FORMAT = 1

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
MODEL = "model.onnx"
GOLDEN = "golden.safetensors"
FILES = (WEIGHTS, MODEL, GOLDEN)


@dataclass(frozen=True)
class FileEntry:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """``manifest.json`` of a bundle.

    name          the run's name
    classes       class names in the order of the probabilities
    geometry      how a picture becomes the model's pixels (the same rule in training, predict and serve)
    architecture  the network as plain data
    temperature   logits are divided by it before softmax; fitted on validation data, 1 where there was none
    metrics       plain JSON: ``{"test": {"accuracy", "n", "loss", "ece"}, "val": {...}}``
    provenance    plain JSON: recipe, dataset (source, fingerprint, split_rule), engine, device, versions, created
    files         each file of the bundle with its SHA-256 and size
    weights_sha256  SHA-256 over names and values of the weights in canonical order, independent of the file's layout
    """

    name: str
    created: str
    tenfold: str
    classes: tuple[str, ...]
    geometry: Geometry
    architecture: Architecture
    temperature: float
    parameters: int
    weights_sha256: str
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    format: int = FORMAT
