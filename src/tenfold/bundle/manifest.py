"""The manifest: what a bundle says of itself.

Plain dataclasses and hand-written checks, not Pydantic: ``tenfold predict`` opens a manifest on every call, and
importing Pydantic would cost it a fifth of its time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

from tenfold.architecture import weights as canonical
from tenfold.architecture.layers import Architecture
from tenfold.bundle import fields
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError

FORMAT = 1
MAX_BYTES = 8 * 2**20  # of the manifest itself
MAX_FILE_BYTES = 2**40

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

    def to_json(self) -> str:
        """The text of ``manifest.json``; ``parse`` gives the manifest again."""
        out = {f.name: getattr(self, f.name) for f in dataclass_fields(self)}
        out = {"format": out.pop("format"), **out}
        out["classes"] = list(self.classes)
        out["geometry"] = self.geometry.to_dict()
        out["architecture"] = self.architecture.to_dict()
        out["metrics"], out["provenance"] = dict(self.metrics), dict(self.provenance)
        out["files"] = {name: asdict(entry) for name, entry in self.files.items()}
        try:
            return json.dumps(out, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise BundleError(f"The bundle's metrics or provenance are not plain JSON: {error}.") from None


def parse(data: bytes) -> Manifest:
    """The manifest in ``data``, the bytes of a ``manifest.json`` by anyone.

    Every field is checked for its type and bounds and against the others. Raises BundleError naming the first
    that does not fit; a manifest of a later format says to upgrade tenfold.
    """
    if len(data) > MAX_BYTES:
        raise BundleError(f"{MANIFEST} is larger than {MAX_BYTES >> 20} MiB.")
    value = fields.anything(fields.strict_json(data, MANIFEST), MANIFEST)
    version = fields.whole(value.get("format"), f"{MANIFEST}: format", 1, 10**6)
    if version > FORMAT:
        raise BundleError(
            f"{MANIFEST} has format {version}; this tenfold reads formats up to {FORMAT}.",
            "A newer tenfold wrote it. Upgrade with: pip install --upgrade tenfold",
        )
    entries = fields.entries(value, tuple(f.name for f in dataclass_fields(Manifest)), MANIFEST)
    try:
        manifest = _checked(entries)
    except BundleError as error:
        raise BundleError(f"{MANIFEST}: {error.message}", error.hint) from None
    return manifest


def _checked(entries: Mapping[str, Any]) -> Manifest:
    manifest = Manifest(
        name=fields.text(entries["name"], "name", 200),
        created=fields.text(entries["created"], "created", 64),
        tenfold=fields.text(entries["tenfold"], "tenfold", 64),
        classes=fields.classes(entries["classes"], "classes"),
        geometry=fields.geometry(entries["geometry"], "geometry"),
        architecture=Architecture.from_dict(entries["architecture"]),
        temperature=fields.temperature(entries["temperature"], "temperature"),
        parameters=fields.whole(entries["parameters"], "parameters", 0, canonical.MAX_WEIGHTS),
        weights_sha256=fields.sha256(entries["weights_sha256"], "weights_sha256"),
        metrics=fields.anything(entries["metrics"], "metrics"),
        provenance=fields.anything(entries["provenance"], "provenance"),
        files=_files(entries["files"]),
        format=entries["format"],
    )
    network, geometry = manifest.architecture, manifest.geometry
    if network.classes != len(manifest.classes):
        raise BundleError(f"{len(manifest.classes)} classes for a network with {network.classes} logits.")
    if (network.height, network.width) != (geometry.height, geometry.width):
        raise BundleError("geometry and architecture differ in height or width.")
    if manifest.parameters != canonical.count(network):
        raise BundleError(f"parameters is not {canonical.count(network)}, what the architecture has.")
    return manifest


def _files(value: Any) -> dict[str, FileEntry]:
    entries = fields.anything(value, "files")
    for name in entries:
        if name not in FILES:
            raise BundleError(f"files names {name[:80]!r}, which is not a file of a bundle.")
    out = {}
    for name, entry in fields.entries(entries, FILES, "files").items():
        entry = fields.entries(entry, ("sha256", "bytes"), f"files.{name}")
        digest = fields.sha256(entry["sha256"], f"files.{name}.sha256")
        out[name] = FileEntry(digest, fields.whole(entry["bytes"], f"files.{name}.bytes", 0, MAX_FILE_BYTES))
    return out
