"""The manifest: what a bundle says of itself.

Plain dataclasses and hand-written checks, not Pydantic: ``tenfold predict`` opens a manifest on every call, and
importing Pydantic would cost it a fifth of its time.

The manifest holds the SHA-256 of every other file and, as its last field, its own: ``checksum`` is the SHA-256 of the
file's bytes with the checksum's 64 digits replaced by zeros. So any damage to a bundle is seen. It is no signature:
whoever wants to change a bundle on purpose can compute it again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenfold.bundle import fields
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError

if TYPE_CHECKING:
    from tenfold.architecture.layers import Architecture

FORMAT = 2  # 2: threshold
MAX_BYTES = 8 * 2**20  # of the manifest itself
MAX_FILE_BYTES = 2**40
MAX_PARAMETERS = 2_000_000_000

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
MODEL = "model.onnx"
GOLDEN = "golden.safetensors"
ARTIFACT = "artifact.json"  # stands in an exported artifact's folder, where a bundle has its manifest
FILES = (WEIGHTS, MODEL, GOLDEN)

_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{64})"\s*}\s*\Z')
_ZEROS = b"0" * 64


@dataclass(frozen=True)
class FileEntry:
    """A file's SHA-256 in hexadecimal digits, and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """``manifest.json`` of a bundle.

    name          the run's name
    created       when the bundle was written, ISO 8601 in UTC
    tenfold       the version that wrote it
    classes       class names in the order of the probabilities
    geometry      how a picture becomes the model's pixels (the same rule in training, predict and serve)
    network       the architecture as plain data, as it stands in the file; ``architecture`` is its checked value
    temperature   logits are divided by it before softmax; fitted on validation data, 1 where there was none
    threshold     an answer whose highest probability is below it counts as unknown; fitted on validation data, None
                  where there was none and in bundles of format 1
    parameters    how many the network has, batch norm's statistics counted
    weights_sha256  SHA-256 over names and values of the weights in canonical order, independent of the file's layout
    metrics       plain JSON: ``{"test": {"accuracy", "n", "loss", "ece"}, "val": {...}}``
    provenance    plain JSON: recipe, dataset (source, fingerprint, split_rule), engine, device, versions, created
    files         each file of the bundle with its SHA-256 and size
    """

    name: str
    created: str
    tenfold: str
    classes: tuple[str, ...]
    geometry: Geometry
    network: Mapping[str, Any]
    temperature: float
    parameters: int
    weights_sha256: str
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    threshold: float | None = None
    format: int = FORMAT

    @functools.cached_property
    def architecture(self) -> Architecture:
        """The network. Made and checked when it is first asked for: predict has no need of it, and half its modules
        would be loaded for it. Raises BundleError where it doesn't fit itself or the manifest."""
        from tenfold.architecture.layers import Architecture
        from tenfold.architecture.weights import count

        try:
            architecture = Architecture.from_dict(self.network)
        except BundleError as error:
            raise BundleError(f"{MANIFEST}: {error.message}", error.hint) from None
        if self.parameters != count(architecture):
            raise BundleError(f"{MANIFEST}: parameters is not {count(architecture)}, what the architecture has.")
        return architecture

    def to_json(self) -> str:
        """The text of ``manifest.json``; ``parse`` gives the manifest again."""
        value = {
            "format": self.format,
            "name": self.name,
            "created": self.created,
            "tenfold": self.tenfold,
            "classes": list(self.classes),
            "geometry": self.geometry.to_dict(),
            "architecture": self.network,
            "temperature": self.temperature,
            **({"threshold": self.threshold} if self.format > 1 else {}),
            "parameters": self.parameters,
            "weights_sha256": self.weights_sha256,
            "metrics": self.metrics,
            "provenance": self.provenance,
            "files": {name: {"sha256": e.sha256, "bytes": e.bytes} for name, e in self.files.items()},
        }
        return seal(value)


FIELDS = (
    "format", "name", "created", "tenfold", "classes", "geometry", "architecture", "temperature", "threshold",
    "parameters", "weights_sha256", "metrics", "provenance", "files", "checksum",
)  # fmt: skip
_FIELDS_1 = tuple(name for name in FIELDS if name != "threshold")


def seal(value: Mapping[str, Any]) -> str:
    """``value`` as JSON text, with its checksum as the last field."""
    try:
        text = json.dumps({**value, "checksum": _ZEROS.decode()}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        data = text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise BundleError(f"The bundle's metrics or provenance are not plain JSON: {error}.") from None
    digest = hashlib.sha256(data).hexdigest()
    start, _, end = text.rpartition(_ZEROS.decode())
    return f"{start}{digest}{end}"


def parse(data: bytes) -> Manifest:
    """The manifest in ``data``, the bytes of a ``manifest.json`` by anyone.

    Every field is checked for its type and bounds and against the others; the architecture when it is first used.
    Raises BundleError naming the first that does not fit; a manifest of a later format says to upgrade tenfold.
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
    entries = fields.entries(value, FIELDS if version > 1 else _FIELDS_1, MANIFEST)
    _check_sum(data)
    try:
        return _checked(entries)
    except BundleError as error:
        raise BundleError(f"{MANIFEST}: {error.message}", error.hint) from None


def _check_sum(data: bytes) -> None:
    found = _CHECKSUM.search(data, max(0, len(data) - 200))
    if found:
        start, end = found.span(1)
        digest = hashlib.sha256(data[:start] + _ZEROS + data[end:]).hexdigest()
        if digest.encode() == found[1]:
            return
    raise BundleError(
        f"{MANIFEST} is not as it was written: its checksum is another.",
        "It is damaged or was changed; copy the bundle again, or train it again.",
    )


def _checked(entries: Mapping[str, Any]) -> Manifest:
    manifest = Manifest(
        name=fields.text(entries["name"], "name", 1000),
        created=fields.text(entries["created"], "created", 64),
        tenfold=fields.text(entries["tenfold"], "tenfold", 64),
        classes=fields.classes(entries["classes"], "classes"),
        geometry=fields.geometry(entries["geometry"], "geometry"),
        network=fields.anything(entries["architecture"], "architecture"),
        temperature=fields.temperature(entries["temperature"], "temperature"),
        threshold=fields.threshold(entries.get("threshold"), "threshold"),
        parameters=fields.whole(entries["parameters"], "parameters", 0, MAX_PARAMETERS),
        weights_sha256=fields.sha256(entries["weights_sha256"], "weights_sha256"),
        metrics=fields.anything(entries["metrics"], "metrics"),
        provenance=fields.anything(entries["provenance"], "provenance"),
        files=_files(entries["files"]),
        format=entries["format"],
    )
    network, geometry = manifest.network, manifest.geometry
    told = tuple(network.get(key) for key in ("height", "width", "classes"))
    if told != (geometry.height, geometry.width, len(manifest.classes)):
        raise BundleError("architecture differs from geometry or classes in height, width or classes.")
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
