"""What the models are asked: test pictures with their labels where they are at hand, and JPEG files to decode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenfold.benchmarking.targets import Found
from tenfold.benchmarking.worker import IMAGES, LABELS, PICTURES
from tenfold.data import decode
from tenfold.data.dataset import Dataset
from tenfold.data.progress import Progress
from tenfold.errors import TenfoldError

FILES = 64  # JPEG files
DRAWN = 256  # images drawn at random where there are none


@dataclass(frozen=True)
class Pictures:
    """``folders``: of each subject, by its name; ``images``: how many test images with labels each has; ``notes``: what
    must be told."""

    folders: dict[str, Path]
    images: dict[str, int]
    notes: tuple[str, ...]


def gather(
    home: Path, found: Found, data: str | Path | Dataset | None, count: int, report: Callable[[Progress], None]
) -> Pictures:
    """Write the pictures of each subject into a folder in ``home``: at most ``count`` test images, evenly spaced over
    the split; none is left without accuracy.

    Without ``data`` they are of the data that the model was trained with; where that is not here, or would have to be
    downloaded, a note says so, and the golden images are what is asked, or else random ones. Raises the errors of
    ``data`` that was named.
    """
    folders, images, notes = {}, {}, []
    for number, subject in enumerate(found.subjects):
        folder = home / f"pictures-{number}"
        folder.mkdir()
        asked, labels = None, None
        if count:
            try:
                asked, labels, told = _test(found, subject.name, data, count, report)
                notes += told
            except TenfoldError as error:
                if data is not None:
                    raise
                notes.append(f"{subject.name}: accuracy was not measured. {error.message}")
        if asked is None:
            asked = _golden(found, subject.name)
        images[subject.name] = 0 if labels is None else len(labels)
        np.save(folder / IMAGES, asked, allow_pickle=False)
        if labels is not None:
            np.save(folder / LABELS, labels, allow_pickle=False)
        files = [np.frombuffer(decode.jpeg(image), np.uint8) for image in asked[:FILES]]
        np.savez(folder / PICTURES, *files)
        folders[subject.name] = folder
    return Pictures(folders, images, tuple(dict.fromkeys(notes)))


def _test(
    found: Found, name: str, data: str | Path | Dataset | None, count: int, report: Callable[[Progress], None]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(images, labels, notes) of the test split, by the model's classes."""
    from tenfold.data.sources import at_hand
    from tenfold.errors import DataError
    from tenfold.evaluation import stored

    manifest = found.manifests.get(name)
    if manifest is None:
        raise DataError(f"{name} is a model.onnx alone, which does not say what it was trained with.")
    source = stored.own_source(manifest)
    if data is None and source is not None and not at_hand(source):
        raise DataError(f"{source} is not here; tenfold check {source} downloads it.")
    known = stored.Known(name, manifest.classes, manifest.geometry, manifest)
    dataset = stored.in_classes_of(known, stored.load_data(known, data, "test", report))
    part = stored.part_of(dataset, "test")
    chosen = np.linspace(0, len(part) - 1, min(count, len(part))).round().astype(int)
    facts = manifest.provenance.get("dataset")
    fingerprint = facts.get("fingerprint") if isinstance(facts, Mapping) else None
    notes = []
    if data is None and fingerprint != dataset.fingerprint:
        notes.append(
            f"{dataset.source} is not the data that {name} was trained with (its fingerprint differs): training images "
            "may be among those measured."
        )
    if len(chosen) < len(part):
        notes.append(f"Accuracy of {name}: {len(chosen):,} of {len(part):,} test images, evenly spaced.")
    return np.ascontiguousarray(part.images[chosen]), np.asarray(part.labels)[chosen], notes


def _golden(found: Found, name: str) -> np.ndarray:
    """The golden images, else random ones of the model's size."""
    from tenfold.bundle import store

    golden = next((t.golden for t in found.targets if t.subject == name and t.golden), None)
    if golden is not None:
        return store.open(golden, verify=False).golden()[0]
    height, width = found.geometries[name]
    return np.random.default_rng(0).integers(0, 256, (DRAWN, height, width, 3), np.uint8)
