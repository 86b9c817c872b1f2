"""What an exported artifact looks like on disk, and how one is opened again.

    onnx-int8/
      artifact.json   the format, the verdict, the SHA-256 and size of every other file
      bundle.json     the manifest of the bundle that it was made from, byte for byte
      model.onnx      the model, in the files that its own runtime takes; classes, geometry, temperature and threshold
                      stand in its own metadata

Files that artifact.json doesn't name are left alone and never read. Opening needs this folder and its runtime only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tenfold import paths
from tenfold.bundle import fields, manifest
from tenfold.bundle.manifest import ARTIFACT, FileEntry, Manifest
from tenfold.errors import BundleError, CallError, UnsupportedError
from tenfold.runtimes import base as runtimes
from tenfold.runtimes import graph, onnxruntime

if TYPE_CHECKING:
    from tenfold.explanation import Explainer
    from tenfold.runtimes.base import Runtime

FORMAT = 1  # of artifact.json
BUNDLE = "bundle.json"
MAX_BYTES = 8 * 2**20
MAX_FILES = 10_000
QUANTISED = ("onnx-int8",)  # kinds whose graph gives other answers when it is not optimised
_BLOCK = 2**20
_FIELDS = ("format", "kind", "runtime", "model", "created", "tenfold", "details", "verdict", "files")


@dataclass(frozen=True)
class Artifact:
    """``artifact.json``.

    kind      the format's name: ``onnx-int8`` …
    runtime   the module of ``tenfold.runtimes`` that opens it
    model     what that opens: a file's path within the folder, ``.`` for the folder itself
    created   when it was written, ISO 8601 in UTC
    tenfold   the version that wrote it
    details   plain JSON: how it was made
    verdict   plain JSON: see ``export.verdicts.Verdict``; None while it is being made
    files     every file with its SHA-256 and size, by its path within the folder
    """

    kind: str
    runtime: str
    model: str
    created: str
    tenfold: str
    details: Mapping[str, Any]
    verdict: Mapping[str, Any] | None
    files: Mapping[str, FileEntry]

    @property
    def size(self) -> int:
        """Bytes of the model's files."""
        return sum(entry.bytes for name, entry in self.files.items() if name != BUNDLE)

    def to_json(self) -> str:
        value = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps({key: value[key] for key in _FIELDS}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Opened:
    """An artifact whose files were verified, with what its model says of itself."""

    folder: Path
    artifact: Artifact
    manifest: Manifest
    said: graph.Description
    start: Callable[[], Runtime]
    look: Callable[[], Explainer]

    @property
    def note(self) -> str | None:
        """What must be told of an artifact that the gate refused and that was kept all the same."""
        verdict = self.artifact.verdict
        if verdict is None or verdict.get("passed") is True:
            return None
        return f"{self.folder} is further from its bundle than {self.artifact.kind} may be (kept with --allow-drift)."


# ---- writing ---------------------------------------------------------------------------------------------------------


def seal(folder: Path, artifact: Artifact) -> Artifact:
    """Write artifact.json for the files that are in ``folder``; what was written."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != ARTIFACT:
            with path.open("rb") as file:
                files[name] = FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
    made = dataclasses.replace(artifact, files=files)
    paths.write_whole(folder / ARTIFACT, made.to_json())
    return made


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Artifact:
    """What artifact.json in ``folder`` says, checked. Raises BundleError naming the field that is wrong."""
    where = f"{folder}: {ARTIFACT}"
    path = folder / ARTIFACT
    if path.stat().st_size > MAX_BYTES:
        raise BundleError(f"{where} is larger than {MAX_BYTES >> 20} MiB.")
    value = fields.anything(fields.strict_json(path.read_bytes(), where), where)
    version = fields.whole(value.get("format"), f"{where}.format", 1, 10**6)
    if version > FORMAT:
        raise BundleError(
            f"{where} has the format {version}; this tenfold reads formats up to {FORMAT}.",
            "A newer tenfold wrote it. Upgrade with: pip install --upgrade tenfold",
        )
    value = fields.entries(value, _FIELDS, where)
    listed = fields.anything(value["files"], f"{where}.files")
    if not 0 < len(listed) <= MAX_FILES:
        raise BundleError(f"{where}.files does not name 1 to {MAX_FILES:,} files.")
    texts = {key: fields.text(value[key], f"{where}.{key}", 1000) for key in _FIELDS[1:6]}
    made = Artifact(
        **texts,
        details=fields.anything(value["details"], f"{where}.details"),
        verdict=None if value["verdict"] is None else fields.anything(value["verdict"], f"{where}.verdict"),
        files={_inside(name, where): _entry(entry, f"{where}.files[{name!r}]") for name, entry in listed.items()},
    )
    if made.model != "." and made.model not in made.files:
        raise BundleError(f"{where}.model is not one of its files.")
    if BUNDLE not in made.files:
        raise BundleError(f"{where}.files lacks {BUNDLE}.")
    return made


def _inside(name: str, where: str) -> str:
    """A path that stays in the folder."""
    parts = PurePosixPath(name).parts
    plain = 0 < len(name) <= 1000 and "\\" not in name and ":" not in name and "\0" not in name
    if not plain or not parts or name.startswith("/") or ".." in parts or name != "/".join(parts):
        raise BundleError(f"{where}.files names {name[:60]!r}, which is no file of the folder.")
    return name


def _entry(value: Any, where: str) -> FileEntry:
    found = fields.entries(value, ("sha256", "bytes"), where)
    size = fields.whole(found["bytes"], f"{where}.bytes", 0, manifest.MAX_FILE_BYTES)
    return FileEntry(fields.sha256(found["sha256"], f"{where}.sha256"), size)


def verify(folder: Path, artifact: Artifact) -> None:
    """Compare size and SHA-256 of every file with artifact.json; BundleError names the first that differs."""
    for name, entry in artifact.files.items():
        path = folder / name
        for part in (path, *list(path.parents)[: len(PurePosixPath(name).parts) - 1]):
            if part.is_symlink():
                raise BundleError(f"{folder}: {name} is a link, which an artifact can't hold.")
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            raise BundleError(f"{folder}: {name} is missing.") from None
        except OSError as error:
            raise BundleError(f"{folder}: {name} can't be read: {error.strerror}.") from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{folder}: {name} is not a plain file.")
            digest = hashlib.sha256()
            if status.st_size == entry.bytes:
                for block in iter(functools.partial(file.read, _BLOCK), b""):
                    digest.update(block)
        if status.st_size != entry.bytes or digest.hexdigest() != entry.sha256:
            raise BundleError(
                f"{folder}: {name} is not the file that was exported: its size or SHA-256 is another.",
                "It is damaged or was changed; copy the artifact again, or export it again.",
            )


# ---- opening ---------------------------------------------------------------------------------------------------------


def _check_device(artifact: Artifact, device: str, folder: Path) -> None:
    if artifact.runtime == "onnxruntime":
        return onnxruntime.check_device(device)
    where = "cuda" if artifact.runtime == "tensorrt" else "cpu"
    if device not in ("auto", where):
        raise CallError(
            f"{folder} is computed on {where} alone, as every {artifact.kind}, not on {device}.",
            f"Leave --device out, or export to {'onnx' if where == 'cpu' else 'another format'}.",
        )
    return None


def open(path: Path, *, threads: int | None = None, quick: bool = False, device: str = "auto") -> Opened:
    """The artifact in the folder ``path``, verified. ``threads``, ``quick`` and ``device`` as for ``predict.load``.

    Raises BundleError for what is damaged or doesn't fit together, MissingExtraError where its runtime isn't
    installed, CallError for a device that its runtime doesn't compute on.
    """
    folder = path.parent if path.name == ARTIFACT else path
    try:
        artifact = read(folder)
        _check_device(artifact, device, folder)
        verify(folder, artifact)
        made_from = manifest.parse((folder / BUNDLE).read_bytes())
    except OSError as error:
        raise CallError(f"{folder} can't be opened: {error.strerror}.") from None
    except BundleError as error:
        message = error.message if error.message.startswith(str(folder)) else f"{folder}: {error.message}"
        raise BundleError(message, error.hint) from None
    model, where = folder / artifact.model, f"{folder}: {artifact.model}"
    # The gate judged the kernels in 8 bits that ONNX Runtime joins the graph into; as written it computes in float32.
    quick = quick and artifact.kind not in QUANTISED
    if artifact.runtime == "onnxruntime":
        data = onnxruntime.read(model)
        metadata = graph.inspect(data, where)
        start = functools.partial(
            onnxruntime.start, data, metadata, threads=threads, quick=quick, device=device, where=where
        )
    elif artifact.runtime in runtimes.ARTIFACTS:
        module = runtimes.load(artifact.runtime)
        metadata = module.metadata(model, where)
        start = functools.partial(module.open_artifact, model, threads=threads, where=where)
    else:
        raise BundleError(f"{folder}: {ARTIFACT}.runtime {artifact.runtime[:60]!r} is not known.")
    said = graph.describe(metadata, where)
    for name in ("classes", "geometry", "temperature", "threshold"):
        if getattr(said, name) != getattr(made_from, name):
            raise BundleError(f"{where}: its metadata give other {name} than the bundle that it was made from.")

    def look() -> Explainer:
        from tenfold.explanation import Explainer

        if artifact.kind != "onnx":
            raise UnsupportedError(f"The format {artifact.kind} has no heat maps.", "Ask the run or the bundle.")
        return Explainer(data, said, threads=threads, quick=quick, where=where)

    return Opened(folder, artifact, made_from, said, start, look)
