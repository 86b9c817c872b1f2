"""The same images through every engine and runtime, each in a process of its own, and their answers compared."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tenfold import children
from tenfold.bundle import store
from tenfold.data.dataset import SPLITS, Dataset
from tenfold.data.progress import Progress, silent
from tenfold.errors import CallError, DataError, TenfoldError, UnknownNameError
from tenfold.export import gate
from tenfold.verification import backends, child
from tenfold.verification.backends import Backend
from tenfold.verification.compare import GOLDEN, Asked, Compared
from tenfold.verification.verdicts import ImageSet, Verification
from tenfold.verification.worker import Job

if TYPE_CHECKING:
    from tenfold.bundle.manifest import Manifest

ALL = "all"
Report = Callable[[Progress], None]


def verify(
    model: str | Path,
    data: str | Path | Dataset | None = None,
    split: str = "test",
    *,
    engines: Iterable[str] | None = None,
    runtimes: Iterable[str] | None = None,
    golden_only: bool = False,
    device: str = "auto",
    report: Report | None = None,
) -> Verification:
    """Ask every installed engine and runtime for a trained model's answers, and compare them.

    model        a run's folder or a bundle's
    data         other data than the model was trained with: a dataset's name, a folder, a CSV or a Dataset. Only its
                 pixels are used, so its classes may be any
    split        whose images are asked for beside the golden ones: ``train``, ``val``, ``test``, or ``all``
    engines, runtimes   names; None is every one that is installed
    golden_only  leaves the split out
    device       asked of each engine; ``auto`` is its fastest
    report       told of the progress

    Golden images are compared with the probabilities stored in the bundle; a split with what the bundle's model.onnx
    gives in ONNX Runtime, which is therefore asked then in any case. The model's own data is left out, with a note,
    where it can't be loaded without a download.

    Raises CallError for what can't be asked (UnknownNameError, MissingExtraError for a named engine that isn't there),
    BundleError for a damaged bundle, DataError for ``data`` that can't be used. What an engine answers raises nothing:
    it is in the rows.
    """
    started = time.monotonic()
    if split not in (*SPLITS, ALL):
        raise UnknownNameError("split", split, (*SPLITS, ALL))
    if golden_only and data is not None:
        raise CallError("Only the golden images and other data can't both be asked for.", "Leave one of them out.")
    chosen = backends.choose(engines, runtimes)
    bundle = store.open(model)
    report = report or silent
    with children.terminated_as_interrupted(), tempfile.TemporaryDirectory(prefix="tenfold-verify-") as temporary:
        folder = Path(temporary)
        images, stored = bundle.golden()
        _save(folder, GOLDEN, images)
        sets, notes = [ImageSet(GOLDEN, None, len(images), "the probabilities stored in the bundle")], []
        if not golden_only:
            try:
                sets.append(_split(folder, bundle.manifest, data, split, report))
            except TenfoldError as error:
                if data is not None:
                    raise
                notes.append(f"Only the golden images were replayed. {error.message}")
        if len(sets) > 1 and backends.reference() not in chosen:
            chosen.append(backends.reference())
            notes.append(f"{backends.REFERENCE} was asked too: the split's reference is its answers.")
        asked = [_ask(b, bundle, folder, sets, device, report) for b in chosen if b.missing() is None]
        compared = Compared(bundle.manifest.temperature, bundle.manifest.provenance.get("engine"), asked, sets, stored)
        rows = [row for b in chosen for row in compared.rows(b)]
    return Verification(
        model=bundle.manifest.name,
        tolerance=gate.TOLERANCE,
        logits_reference=compared.first.backend.name if compared.first else None,
        sets=tuple(sets),
        rows=tuple(rows),
        notes=(*notes, *compared.notes),
        seconds=round(time.monotonic() - started, 3),
    )


# ---- the images ------------------------------------------------------------------------------------------------------


def _split(folder: Path, manifest: Manifest, data: str | Path | Dataset | None, split: str, report: Report) -> ImageSet:
    """Write the split's images into ``folder``."""
    from tenfold.data.sources import at_hand
    from tenfold.evaluation import stored

    if data is None and (source := stored.own_source(manifest)) and not at_hand(source):
        raise DataError(f"{source}, which the model was trained with, is not here; --data {source} downloads it.")
    known = stored.Known(manifest.name, manifest.classes, manifest.geometry, manifest)
    dataset = stored.load_data(known, data, split, report)
    images = stored.part_of(dataset, split).images
    _save(folder, split, images)
    return ImageSet(split, dataset.name, len(images), "the bundle's model.onnx in ONNX Runtime")


def _save(folder: Path, part: str, images: np.ndarray) -> None:
    try:
        np.save(folder / f"{part}.npy", images, allow_pickle=False)
    except OSError as error:
        raise DataError(
            f"{len(images):,} images can't be written to {folder}: {error.strerror}.",
            "Name a folder with more room: export TMPDIR=/a/folder/of/yours",
        ) from None


# ---- the answers -----------------------------------------------------------------------------------------------------


def _ask(
    backend: Backend, bundle: store.Bundle, folder: Path, sets: list[ImageSet], device: str, report: Report
) -> Asked:
    total = sum(part.images for part in sets)
    report(Progress(backend.name, 0, total, "images"))
    names = [part.name for part in sets]
    job = Job(backend.kind, backend.name, str(bundle.path.resolve()), str(folder), names, device)
    outcome, seconds = child.ask(job)
    report(Progress(backend.name, total, total, "images"))
    return Asked(backend, job, outcome, seconds)
