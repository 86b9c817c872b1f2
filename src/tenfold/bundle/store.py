"""What a bundle looks like on disk: written whole, verified when opened, never a pickle, never code.

    model/
      manifest.json         what the bundle says of itself, with the SHA-256 and size of the others
      weights.safetensors   the weights by canonical name
      model.onnx            uint8 pixels in, calibrated probabilities out
      golden.safetensors    a few images with the probabilities that the model must give for them

Other files beside these are left alone and never read. See docs/bundle.md.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tenfold.bundle import fields, manifest, tensors
from tenfold.bundle.manifest import FILES, GOLDEN, MANIFEST, MODEL, WEIGHTS, FileEntry, Manifest
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError, CallError, nearest

# What only writing, or weights, or golden images need is imported there: predict opens a bundle on every call.
if TYPE_CHECKING:
    from tenfold.architecture.layers import Architecture

_BLOCK = 2**20
# Of the largest logit: untrained logits are too close to each other for probabilities to tell a wrong graph.
# 19 networks of timm were off by 1.1e-5 at most.
GRAPH_TOLERANCE = 1e-3


@dataclass(frozen=True)
class BundleContent:
    """What training hands over to be written.

    weights         float32 by canonical name
    temperature     logits are divided by it before softmax
    threshold       below it the highest probability counts as unknown; None where none was fitted
    metrics         plain JSON, and so is provenance (see Manifest)
    golden_images   uint8 N×H×W×3, 1 to 256 of them
    golden_logits   float32 N×classes: what the engine gives for them, before temperature
    graph           for a network of another library: its engine's ONNX graph, from ``pixels`` to logits
    """

    name: str
    classes: tuple[str, ...]
    geometry: Geometry
    architecture: Architecture
    weights: Mapping[str, np.ndarray]
    temperature: float
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    golden_images: np.ndarray
    golden_logits: np.ndarray
    graph: bytes | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Bundle:
    """An open bundle. Each reader below checks the very bytes that it then uses against the manifest."""

    path: Path
    manifest: Manifest

    def weights(self) -> dict[str, np.ndarray]:
        """float32 arrays by canonical name, in the network's order."""
        from tenfold.architecture import weights as canonical

        network = self.manifest.architecture
        # a header names each weight with its shape and place: a kilobyte apiece is far more than it takes
        most = 4 * self.manifest.parameters + 1024 * (len(canonical.specs(network)) + 10)
        if self.manifest.files[WEIGHTS].bytes > most:
            raise self._error(f"{WEIGHTS} is larger than the architecture's weights.")
        try:
            found = tensors.load(self.read(WEIGHTS), WEIGHTS)
            canonical.check(network, found)
        except BundleError as error:
            raise self._error(f"{WEIGHTS}: {error.message}", error.hint) from None
        if weights_sha256(found) != self.manifest.weights_sha256:
            raise self._error(f"{WEIGHTS} holds other values than weights_sha256 in {MANIFEST} says.")
        return {name: found[name] for name in canonical.specs(network)}

    def golden(self) -> tuple[np.ndarray, np.ndarray]:
        """(images uint8 N×H×W×3, the probabilities float32 N×classes that the model must give for them)."""
        from tenfold.bundle import golden

        try:
            return golden.from_bytes(self.read(GOLDEN), self.manifest)
        except BundleError as error:
            raise self._error(error.message, error.hint) from None

    def model(self) -> bytes:
        """The bytes of model.onnx."""
        return self.read(MODEL)

    def read(self, name: str) -> bytes:
        """The bytes of one of the bundle's files, verified."""
        entry = self.manifest.files[name]
        with self._open(name) as file:
            data = file.read(entry.bytes + 1)
        self._compare(name, len(data), hashlib.sha256(data).hexdigest(), data[:16])
        return data

    def verify(self, names: Iterable[str] = FILES) -> None:
        """Compare size and SHA-256 of the files with the manifest; BundleError names the first that differs."""
        for name in names:
            with self._open(name) as file:
                start = file.read(16)
                digest, size = hashlib.sha256(start), len(start)
                while size <= self.manifest.files[name].bytes and (block := file.read(_BLOCK)):
                    digest.update(block)
                    size += len(block)
            self._compare(name, size, digest.hexdigest(), start)

    def _open(self, name: str) -> IO[bytes]:
        """A file of the bundle, opened for reading: a plain file of the size in the manifest, and no link to one."""
        file = _open_plain(self.path / name, self.path)
        size = os.fstat(file.fileno()).st_size
        if size != (wanted := self.manifest.files[name].bytes):
            with file:
                self._compare(name, size, "", file.read(16))
            raise self._error(f"{name} has {size:,} bytes, not {wanted:,}.")
        return file

    def _compare(self, name: str, size: int, digest: str, start: bytes) -> None:
        entry = self.manifest.files[name]
        if size == entry.bytes and digest == entry.sha256:
            return
        kind = tensors.other_kind(start) if name != MODEL else None
        if kind:
            raise self._error(f"{name} is {kind}.", "It was not loaded: such a file can run code.")
        what = f"has {size:,} bytes, not {entry.bytes:,}" if size != entry.bytes else "has another SHA-256"
        raise self._error(
            f"{name} is not the file that the bundle was written with: it {what}.",
            "It is damaged or was changed; copy the bundle again, or train it again.",
        )

    def _error(self, message: str, hint: str | None = None) -> BundleError:
        return BundleError(f"{self.path}: {message}", hint)


def write(folder: Path, content: BundleContent) -> Bundle:
    """Write a bundle to ``folder``, whole or not at all; one that is there already is replaced.

    The model.onnx just written is replayed on the golden images before anything gets its final name; how far
    it was off stands in the manifest under ``provenance.parity``.

    Raises BundleError where the content doesn't fit together, the model's answers differ from the golden ones,
    or the disk fails; MissingExtraError where the package onnx isn't installed.
    """
    from tenfold import paths
    from tenfold.bundle import golden

    content = replace(content, name=_as_text(content.name), classes=tuple(map(_as_text, content.classes)))
    _check(content)
    digest = weights_sha256(content.weights)
    probabilities = golden.expected(content.golden_logits, content.temperature)
    try:
        with paths.folder_whole(folder) as temporary:
            (temporary / WEIGHTS).write_bytes(tensors.save(content.weights))
            (temporary / GOLDEN).write_bytes(golden.to_bytes(content.golden_images, probabilities))
            parity = _write_model(temporary / MODEL, content, probabilities)
            made = _manifest(temporary, content, digest, parity)
            (temporary / MANIFEST).write_bytes(made.to_json().encode("utf-8"))
    except OSError as error:
        raise BundleError(
            f"The bundle could not be written to {folder}: {error.strerror or error}.",
            "Nothing is left half-written. Make room or give another folder, then resume the run.",
        ) from error
    return Bundle(folder, made)


def _as_text(name: str) -> str:
    """A folder's name may hold bytes that are no text; they are written out, ``\\udcff``, rather than lost."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _check(content: BundleContent) -> None:
    from tenfold.architecture import weights as canonical
    from tenfold.bundle import golden

    fields.classes(list(content.classes), "classes")
    fields.temperature(content.temperature, "temperature")
    fields.threshold(content.threshold, "threshold")
    canonical.check(content.architecture, content.weights)
    if len(content.classes) != content.architecture.classes:
        raise BundleError(
            f"{len(content.classes)} class names for a network with {content.architecture.classes} logits."
        )
    size = (content.geometry.height, content.geometry.width)
    images, logits = content.golden_images, content.golden_logits
    if images.dtype != np.uint8 or images.shape[1:] != (*size, 3):
        raise BundleError(f"Golden images are {images.dtype} {images.shape}, not uint8 N×{size[0]}×{size[1]}×3.")
    if not 0 < len(images) <= golden.MAX_IMAGES:
        raise BundleError(f"A bundle holds 1 to {golden.MAX_IMAGES} golden images, not {len(images)}.")
    if logits.shape != (len(images), len(content.classes)) or not np.isfinite(logits).all():
        raise BundleError(f"Golden logits have the shape {logits.shape} or are not finite.")


def _write_model(path: Path, content: BundleContent, probabilities: np.ndarray) -> dict[str, Any]:
    """Write model.onnx and give the verdict of its replay on the golden images."""
    from tenfold.export import gate
    from tenfold.export import onnx as export
    from tenfold.runtimes import onnxruntime as runtime

    export.write(
        content.architecture,
        content.weights,
        classes=content.classes,
        geometry=content.geometry,
        temperature=content.temperature,
        threshold=content.threshold,
        name=content.name,
        path=path,
        graph=content.graph,
    )
    answers = runtime.open(path).probabilities(content.golden_images)
    verdict = gate.require(probabilities, answers, path.name)
    return {"runtime": runtime.version(), **verdict.to_dict()}


def require_graph(architecture: Architecture, graph: bytes, images: np.ndarray, logits: np.ndarray) -> None:
    """Refuses an engine's graph of another library's network where no bundle could be written from it: for what it
    holds, or because it does not give the ``logits`` (float32 N×classes) of ``images`` (uint8 N×H×W×3).

    Raises BundleError, saying what is the reason.
    """
    from tenfold.export import external
    from tenfold.runtimes import graph as reader
    from tenfold.runtimes import onnxruntime as runtime

    try:
        made = external.simplified(graph, architecture.height, architecture.width)
        data = made.SerializeToString()
        reader.inspect(data, "it")
        answers = runtime.values(data, images, [made.graph.output[0].name], "it")[0]
        off = float(np.abs(answers - logits).max() / max(np.abs(logits).max(), 1e-12))
        if not off <= GRAPH_TOLERANCE:
            raise BundleError(
                f"its graph does not give the network's answers, which are off by {off:.2g} of the largest."
            )
    except BundleError as error:
        raise BundleError(
            f"{architecture.name} can't be kept as a bundle: {error.message}", "Take another network."
        ) from None


def _manifest(folder: Path, content: BundleContent, digest: str, parity: Mapping[str, Any]) -> Manifest:
    """The manifest of the files in ``folder``, read back from its own text: what is written can be opened."""
    import datetime

    from tenfold import __version__
    from tenfold.architecture import weights as canonical

    made = Manifest(
        name=content.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        tenfold=__version__,
        classes=tuple(content.classes),
        geometry=content.geometry,
        network=content.architecture.to_dict(),
        temperature=float(content.temperature),
        threshold=None if content.threshold is None else float(content.threshold),
        parameters=canonical.count(content.architecture),
        weights_sha256=digest,
        metrics=content.metrics,
        provenance={**content.provenance, "parity": dict(parity)},
        files={name: _entry(folder / name) for name in FILES},
    )
    return manifest.parse(made.to_json().encode("utf-8"))


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def open(path: Path | str, *, verify: bool = True) -> Bundle:
    """The bundle at ``path``: its folder, or a run's folder with the bundle in ``model``.

    Every file's size and SHA-256 is compared with the manifest, unless ``verify`` is False: then the caller
    must call ``Bundle.verify``, or only use the readers, which check what they read.

    Raises CallError where there is no such folder, BundleError naming the file or field that is wrong.
    """
    folder = locate(Path(path))
    with _open_plain(folder / MANIFEST, folder) as file:
        data = file.read(manifest.MAX_BYTES + 1)
    try:
        bundle = Bundle(folder, manifest.parse(data))
    except BundleError as error:
        raise BundleError(f"{folder}: {error.message}", error.hint) from None
    if verify:
        bundle.verify()
        try:
            bundle.manifest.architecture  # noqa: B018 - asking for it checks it
        except BundleError as error:
            raise BundleError(f"{folder}: {error.message}", error.hint) from None
    return bundle


def locate(path: Path) -> Path:
    """The bundle's folder for ``path``, which may be the bundle, its manifest or the run around it."""
    try:
        return _located(path)
    except OSError as error:
        raise CallError(f"{path} can't be opened: {error.strerror}.") from None


def _located(path: Path) -> Path:
    if path.name == MANIFEST and path.is_file():
        path = path.parent
    for folder in (path, path / "model"):
        if (folder / MANIFEST).is_symlink() or (folder / MANIFEST).exists():
            return folder
    if not path.exists():
        near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else None
        raise CallError(
            f"There is no run, bundle or model at {path}.", f"Did you mean {path.parent / near}?" if near else None
        )
    if (path / "run.json").exists():
        raise BundleError(
            f"The run {path} holds no model: it was not finished.",
            f"Finish it with: tenfold train --resume {path}",
        )
    raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}.", "Give a run folder or a bundle folder.")


def _open_plain(path: Path, folder: Path) -> IO[bytes]:
    """Open a plain file, never a link, a pipe or a device. Raises BundleError naming it."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        if stat.S_ISLNK(path.lstat().st_mode):
            raise BundleError(f"{folder}: {path.name} is a link, which a bundle can't hold.")
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise BundleError(f"{folder}: {path.name} is missing.") from None
    except OSError as error:
        raise BundleError(f"{folder}: {path.name} can't be read: {error.strerror}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BundleError(f"{folder}: {path.name} is not a plain file.")
    return os.fdopen(descriptor, "rb")


def weights_sha256(weights: Mapping[str, np.ndarray]) -> str:
    """A digest of names and values, the same whatever file they are kept in.

    SHA-256 over each weight in the order of the sorted names: the name in UTF-8, a zero byte, the shape as
    ``4,3,2,2``, a zero byte, the values as little-endian float32 in C order.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = np.asarray(weights[name], dtype="<f4", order="C")
        digest.update(f"{name}\0{','.join(map(str, value.shape))}\0".encode())
        digest.update(value.data)
    return digest.hexdigest()
