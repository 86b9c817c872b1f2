"""A bundle in, artifacts out: each format is written, reopened in its own runtime, kept if its answers are right."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import __version__, children, paths
from tenfold.bundle import store
from tenfold.bundle.manifest import ARTIFACT, MANIFEST
from tenfold.bundle.store import Bundle
from tenfold.data.dataset import Dataset
from tenfold.data.progress import Progress, silent
from tenfold.errors import BundleError, CallError, DataError, MissingExtraError, TenfoldError, UnsupportedError
from tenfold.export import artifact, formats, gate, worker
from tenfold.export.artifact import Artifact
from tenfold.export.verdicts import Exported, Result, Verdict
from tenfold.runtimes import onnxruntime

GOLDEN, SPLIT = "golden", "val"
CALIBRATION_IMAGES = 512
FOLDER = "exports"

Report = Callable[[Progress], None]


def export_model(
    run: str | Path,
    names: Iterable[str] | str,
    *,
    out: str | Path | None = None,
    data: str | Path | Dataset | None = None,
    allow_drift: bool = False,
    report: Report | None = None,
) -> Exported:
    """Export a trained model to other formats, each held to the bundle's answers.

    run          a run's folder or a bundle's
    names     names of ``formats.FORMATS``, or ``all``
    out          the folder in which each format gets a folder of its name; None is ``exports`` beside the bundle. An
                 artifact of that format which is there already is replaced, unless the new one is refused
    data         other data than the model was trained with, for calibration (its training images) and for the verdict
                 (its validation images): a dataset's name, a folder, a CSV or a Dataset
    allow_drift  keeps what the gate refuses; artifact.json says so
    report       told of the progress

    Raises CallError for what can't be asked (UnknownNameError, MissingExtraError for a named format whose packages are
    not installed, UnsupportedError for one that this machine can't have), BundleError for a damaged bundle, DataError
    for ``data`` that can't be used, and where a format has to be calibrated and there are no images. What becomes of a
    format raises nothing: it is in the results.
    """
    started = time.monotonic()
    named = [names] if isinstance(names, str) else list(names)
    chosen = formats.choose(named)
    bundle = store.open(run)
    base = Path(out) if out is not None else bundle.path.absolute().parent / FOLDER
    _check_places(base, chosen)
    report = report or silent
    with children.terminated_as_interrupted(), tempfile.TemporaryDirectory(prefix="tenfold-export-") as temporary:
        pictures = _gather(Path(temporary), bundle, data, chosen, formats.ALL in named, report)
        base.mkdir(parents=True, exist_ok=True)
        results = [_one(name, bundle, base / name, pictures, allow_drift, report) for name in chosen]
    seconds = round(time.monotonic() - started, 3)
    return Exported(bundle.manifest.name, tuple(results), tuple(pictures.notes), seconds, formats.ALL in named)


def _check_places(base: Path, chosen: list[str]) -> None:
    """Refuses, before any work, a folder that holds something else."""
    if base.exists() and not base.is_dir():
        raise CallError(f"--out {base} is a file.", "Name a folder; it is made if it isn't there.")
    for place in (base / name for name in chosen):
        if place.is_symlink() or (place.exists() and not (place / ARTIFACT).is_file()):
            raise CallError(f"{place} is there and is no exported artifact.", "Move it, or name another folder: --out.")


# ---- the pictures ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pictures:
    """Sets of images in ``work``, with the answers expected and the split's labels.

    missing   why there are no images to calibrate with; None where there are
    """

    work: Path
    expected: dict[str, np.ndarray]
    labels: np.ndarray | None
    notes: list[str]
    missing: str | None = None


def _gather(
    work: Path,
    bundle: Bundle,
    data: str | Path | Dataset | None,
    chosen: list[str],
    every: bool,
    report: Report,
) -> _Pictures:
    """Write images into ``work``: the golden ones, the validation split's, those for calibration."""
    images, expected = bundle.golden()
    _save(work, GOLDEN, images, expected)
    answers: dict[str, np.ndarray] = {GOLDEN: expected}
    calibrated = [name for name in chosen if formats.FORMATS[name].calibrated]
    try:
        dataset = _dataset(bundle, data, report)
        if calibrated:
            _save(work, worker.CALIBRATION, _calibration(dataset))
    except TenfoldError as error:
        if data is not None or (calibrated and not every):
            raise
        return _Pictures(work, answers, None, [f"Only the golden images were replayed. {error.message}"], error.message)
    split = dataset.splits.get(SPLIT)
    if split is None or not len(split):
        return _Pictures(work, answers, None, [f"{dataset.name} has no validation split: golden images only."])
    runtime = onnxruntime.open(bundle.model(), where=f"{bundle.path}: model.onnx")
    answers[SPLIT] = runtime.probabilities(split.images)
    _save(work, SPLIT, split.images, answers[SPLIT])
    return _Pictures(work, answers, np.asarray(split.labels), [])


def _dataset(bundle: Bundle, data: str | Path | Dataset | None, report: Report) -> Dataset:
    """The data, its labels indices into the model's classes."""
    from tenfold.data.sources import at_hand
    from tenfold.evaluation import stored

    manifest = bundle.manifest
    if data is None and (source := stored.own_source(manifest)) and not at_hand(source):
        raise DataError(f"{source}, which the model was trained with, is not here.", f"--data {source} downloads it.")
    known = stored.Known(manifest.name, manifest.classes, manifest.geometry, manifest)
    return stored.in_classes_of(known, stored.load_data(known, data, SPLIT, report))


def _calibration(dataset: Dataset) -> np.ndarray:
    """Training images, evenly spaced over the split: of every class, whatever their order."""
    split = dataset.splits.get("train")
    if split is None or not len(split):
        raise DataError(f"{dataset.name} has no training images to calibrate with.")
    rows = np.unique(np.linspace(0, len(split) - 1, CALIBRATION_IMAGES).round().astype(np.int64))
    return np.asarray(split.images[rows])


def _save(work: Path, name: str, images: np.ndarray, expected: np.ndarray | None = None) -> None:
    try:
        np.save(work / f"{name}.npy", images, allow_pickle=False)
        if expected is not None:
            np.save(work / f"{name}.expected.npy", expected, allow_pickle=False)
    except OSError as error:
        raise DataError(
            f"{len(images):,} images can't be written to {work}: {error.strerror}.",
            "Name a folder with more room: export TMPDIR=/a/folder/of/yours",
        ) from None


# ---- one format ------------------------------------------------------------------------------------------------------


class _Out(Exception):
    """A format that leaves no artifact; ends the folder's block, so that nothing of it stays."""

    def __init__(self, result: Result) -> None:
        self.result = result


def _one(name: str, bundle: Bundle, place: Path, pictures: _Pictures, allow_drift: bool, report: Report) -> Result:
    began = time.monotonic()
    entry = formats.FORMATS[name]
    try:
        entry.require(name)
    except MissingExtraError as error:
        return Result(name, "not installed", message=f"pip install 'tenfold[{error.extra}]'")
    except UnsupportedError as error:
        lacking = error.message.removeprefix(formats.NOT_HERE.format(name))
        return Result(name, "unavailable", message=f"{lacking} {error.hint}")
    if entry.calibrated and pictures.missing is not None:
        return Result(name, "unavailable", message=f"It is calibrated on training images. {pictures.missing}")
    total = sum(map(len, pictures.expected.values()))
    report(Progress(name, 0, total, "images"))
    try:
        with paths.folder_whole(place) as folder:
            result = _written(name, bundle, folder, pictures, allow_drift)
    except _Out as out:
        result = out.result
    except OSError as error:
        raise BundleError(f"{place} could not be written: {error.strerror or error}.") from error
    report(Progress(name, total, total, "images"))
    kept = result.state in ("exported", "kept")
    return replace(result, path=str(place) if kept else None, seconds=round(time.monotonic() - began, 3))


def _written(name: str, bundle: Bundle, folder: Path, pictures: _Pictures, allow_drift: bool) -> Result:
    entry = formats.FORMATS[name]
    made = _ask("write", name, bundle, folder, pictures)
    (folder / artifact.BUNDLE).write_bytes((bundle.path / MANIFEST).read_bytes())
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    sealed = artifact.seal(
        folder, Artifact(name, entry.runtime, made["model"], now, __version__, made["details"], None, {})
    )
    asked = _ask("open", name, bundle, folder, pictures)
    verdict = Verdict(
        tolerance=entry.tolerance,
        runtime=asked["version"],
        device=asked["device"],
        bytes=sealed.size,
        load_seconds=asked["load_seconds"],
        sets=tuple(_replayed(name, part, pictures) for part in pictures.expected),
        seconds=asked["seconds"],
    )
    state: Any = "exported" if verdict.passed else "kept" if allow_drift else "refused"
    result = Result(name, state, details=made["details"], verdict=verdict)
    if state == "refused":
        raise _Out(replace(result, message="; ".join(verdict.reasons)))
    artifact.seal(folder, replace(sealed, verdict=verdict.to_dict()))
    return result


def _replayed(name: str, part: str, pictures: _Pictures) -> gate.Replay:
    answers = np.load(pictures.work / f"{part}.{name}.npy", allow_pickle=False)
    return gate.replay(part, pictures.expected[part], answers, pictures.labels if part == SPLIT else None)


def _ask(task: Any, name: str, bundle: Bundle, folder: Path, pictures: _Pictures) -> dict[str, Any]:
    """What a worker found; ends the format where it didn't get there."""
    job = worker.Job(
        task, name, str(bundle.path.resolve()), str(folder.resolve()), str(pictures.work), list(pictures.expected)
    )
    found = children.outcome("tenfold.export.worker", job.line(), job.log, job.outcome)
    if isinstance(found, str):
        raise _Out(Result(name, "failed", message=found))
    if found["state"] == worker.NOT_INSTALLED:
        raise _Out(Result(name, "not installed", message=f"pip install 'tenfold[{found['extra']}]'"))
    if found["state"] != worker.DONE:
        # where it was written, the message names the temporary folder
        message = str(found["message"]).replace(f"{folder.resolve()}: ", "").replace(str(folder.resolve()), name)
        raise _Out(Result(name, found["state"], message=message))
    return found
