"""The figures of a stored model: a bundle and labelled pictures in, through ONNX Runtime, an Evaluation out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tenfold.data.dataset import SPLITS, Dataset, Geometry, Split
from tenfold.data.progress import Progress, silent
from tenfold.errors import CallError, DataError, UnknownNameError, UnsupportedError, nearest
from tenfold.evaluation import tta as augmentation
from tenfold.evaluation.metrics import Evaluation, measure, with_threshold
from tenfold.evaluation.svg import shorten

if TYPE_CHECKING:
    from tenfold.bundle.manifest import Manifest
    from tenfold.predict import Model
    from tenfold.recipe import Data

ALL = "all"
BATCH = 500  # images between two reports of progress
MAX_METRICS_BYTES = 64_000_000


@dataclass(frozen=True)
class Measured:
    """``evaluation`` with what it was made of: ``probabilities`` (float32 N×K) for ``split``, of ``dataset``. The
    labels of both are indices into the model's classes."""

    evaluation: Evaluation
    probabilities: np.ndarray
    split: Split
    dataset: Dataset
    model: Model


def evaluate(
    run: str | Path,
    data: str | Path | Dataset | None = None,
    split: str = "test",
    tta: str = "none",
    report: Callable[[Progress], None] | None = None,
) -> Evaluation:
    """Measure a trained model.

    run     the folder of a run, a bundle or an exported artifact, or a model.onnx alone (then ``data`` must be given)
    data    other data than the model was trained with: a dataset's name, a folder, a CSV or a Dataset. Its classes
            are matched with the model's by name
    split   ``train``, ``val``, ``test``, or ``all`` for every picture of the data
    tta     test-time augmentation: ``none``, ``flip`` or ``flip+shift``
    report  told of the progress

    Without ``data`` it is loaded as it was for training, with the same splits; where it is no longer the same, the
    evaluation's notes say so.

    Raises CallError for what can't be asked, BundleError for a damaged bundle, DataError for data whose classes the
    model doesn't know or whose split is empty.
    """
    return evaluate_fully(run, data, split, tta, report).evaluation


def evaluate_fully(
    run: str | Path,
    data: str | Path | Dataset | None = None,
    split: str = "test",
    tta: str = "none",
    report: Callable[[Progress], None] | None = None,
) -> Measured:
    """As :func:`evaluate`, with the probabilities and the pictures."""
    from tenfold.predict import load

    augmentation.views(tta)
    if split not in (*SPLITS, ALL):
        raise UnknownNameError("split", split, (*SPLITS, ALL))
    model = load(run)
    dataset = in_classes_of(model, load_data(model, data, split, report or silent))
    part = part_of(dataset, split)
    probabilities = _ask(model, part.images, tta, report or silent)
    evaluation = dataclasses.replace(
        with_threshold(measure(probabilities, part.labels, model.classes), probabilities, part.labels, model.threshold),
        split=split,
        data=dataset.source,
        tta=tta,
        notes=tuple(_notes(model, dataset, data, split, tta)),
    )
    return Measured(evaluation, probabilities, part, dataset, model)


def history(run: Path) -> list[dict[str, Any]]:
    """The epochs in a run folder's metrics.jsonl; none where there is no such file. A line cut by a kill is skipped."""
    path = run / "metrics.jsonl"
    if not path.is_file() or path.stat().st_size > MAX_METRICS_BYTES:
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("event") == "epoch":
            found.append(row)
    return found


def recipe_text(model: Model) -> str:
    """The recipe in the bundle as YAML; empty where there is none."""
    import yaml

    stored = model.manifest.provenance.get("recipe") if model.manifest else None
    return yaml.safe_dump(stored, sort_keys=False, allow_unicode=True) if isinstance(stored, Mapping) else ""


# ---- the data --------------------------------------------------------------------------------------------------------


class Described(Protocol):
    """What must be known of a model to load data for it; a Model is one."""

    @property
    def name(self) -> str: ...

    @property
    def geometry(self) -> Geometry: ...

    @property
    def manifest(self) -> Manifest | None: ...


@dataclass(frozen=True)
class Known:
    """What is known of a bundle's model where only data is loaded for it."""

    name: str
    classes: tuple[str, ...]
    geometry: Geometry
    manifest: Manifest | None


def load_data(
    model: Described, data: str | Path | Dataset | None, split: str, report: Callable[[Progress], None]
) -> Dataset:
    """``data`` at the model's geometry; without it the data the model was trained with, as it was for training.

    ``split`` is the one that will be asked for: with ``all`` none is drawn by chance. Raises CallError where the
    model's own data is not known or not there, DataError where its pictures are of another size.
    """
    from tenfold.data import load_dataset

    if isinstance(data, Dataset):
        return _of_geometry(data, model.geometry)
    settings = _settings(model, split)
    if data is not None:
        return _of_geometry(load_dataset(data, settings, report=report), model.geometry)
    source = own_source(model.manifest)
    if source is None:
        raise CallError(
            f"{model.name} does not say which data it was trained with.",
            "Name the data with --data.",
        )
    try:
        return _of_geometry(load_dataset(source, settings, report=report), model.geometry)
    except CallError as error:
        raise CallError(
            f"The data {model.name} was trained with can't be loaded: {error.message}",
            "Bring it back, or name other data with --data.",
        ) from None


def own_source(manifest: Manifest | None) -> str | None:
    """What names the data a model was trained with; None where its manifest doesn't say."""
    source = _dataset_facts(manifest).get("source")
    return source if isinstance(source, str) and source else None


def _settings(model: Described, split: str) -> Data:
    """The ``data`` part of the run's recipe with the model's geometry: the same pixels and the same splits again."""
    from tenfold import recipe

    geometry = model.geometry
    if geometry.height != geometry.width or not 4 <= geometry.height <= 1024:
        raise UnsupportedError(
            f"{model.name} takes {geometry.width}×{geometry.height} pixels; datasets are read as squares of 4 to 1024.",
            "Give a Dataset of that size to tenfold.evaluate in Python.",
        )
    kept: dict[str, Any] = {}
    if model.manifest:
        stored = model.manifest.provenance.get("recipe")
        part = stored.get("data") if isinstance(stored, Mapping) else None
        if isinstance(part, Mapping):
            kept = {k: part[k] for k in ("val_fraction", "test_fraction", "seed") if k in part}
    if split == ALL:
        kept |= {"val_fraction": 0.0, "test_fraction": 0.0}
    kept |= {"size": geometry.height, "resize": geometry.resize, "background": list(geometry.background)}
    kept["interpolation"] = geometry.interpolation
    return recipe.from_mapping({"data": kept}, f"the recipe in {model.name}").data


def _of_geometry(dataset: Dataset, wanted: Geometry) -> Dataset:
    if (dataset.geometry.height, dataset.geometry.width) != (wanted.height, wanted.width):
        raise DataError(
            f"{dataset.name} has {dataset.geometry.width}×{dataset.geometry.height} pixels; "
            f"the model takes {wanted.width}×{wanted.height}."
        )
    return dataset


def in_classes_of(model: Model | Known, dataset: Dataset) -> Dataset:
    """``dataset`` with the model's classes, matched by name. DataError names those the model doesn't know."""
    if dataset.classes == model.classes:
        return dataset
    index = {name: i for i, name in enumerate(model.classes)}
    unknown = [name for name in dataset.classes if name not in index]
    if unknown:
        shown = ", ".join(repr(shorten(name, 40)) for name in unknown[:8]) + (" …" if len(unknown) > 8 else "")
        near = nearest(unknown[0], model.classes)
        known = ", ".join(shorten(name, 40) for name in model.classes[:12]) + (" …" if len(model.classes) > 12 else "")
        raise DataError(
            f"{dataset.name} has {len(unknown)} of {len(dataset.classes)} classes that {model.name} does not know: "
            f"{shown}.",
            (f"Did you mean {near!r} by {unknown[0]!r}? " if near and len(near) <= 40 else "")
            + f"The model's classes: {known}.",
        )
    to = np.array([index[name] for name in dataset.classes], np.int64)
    splits = {name: Split(s.images, to[s.labels], s.origins) for name, s in dataset.splits.items()}
    return dataclasses.replace(dataset, classes=model.classes, splits=splits)


def part_of(dataset: Dataset, split: str) -> Split:
    """The split, or with ``all`` every picture. DataError where there are none."""
    full = [name for name in SPLITS if name in dataset.splits and len(dataset[name])]
    parts = [dataset[name] for name in (full if split == ALL else [split]) if name in full]
    if not parts:
        there = ", ".join(f"{name} ({len(dataset[name]):,})" for name in full) or "none"
        raise DataError(
            f"{dataset.name} has no images in the split {split}.", f"Splits with images: {there}; or --split all."
        )
    if len(parts) == 1:  # stays a memory map
        return parts[0]
    return Split(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.labels for p in parts]),
        [origin for p in parts for origin in p.origins],
    )


# ---- the model -------------------------------------------------------------------------------------------------------


def _ask(model: Model, images: np.ndarray, tta: str, report: Callable[[Progress], None]) -> np.ndarray:
    """float32 N×K probabilities, a bounded batch at a time."""
    n = len(images)
    out = np.empty((n, len(model.classes)), np.float32)
    report(Progress("evaluate", 0, n, "images"))
    for start in range(0, n, BATCH):
        part = np.ascontiguousarray(images[start : start + BATCH])
        out[start : start + len(part)] = augmentation.probabilities(model.probabilities, part, tta)
        report(Progress("evaluate", start + len(part), n, "images"))
    return out


def _notes(model: Model, dataset: Dataset, data: str | Path | Dataset | None, split: str, tta: str) -> list[str]:
    """What the reader of the figures must be told."""
    notes = [*model.notes, *dataset.notes]
    facts = _dataset_facts(model.manifest)
    same = bool(dataset.fingerprint) and facts.get("fingerprint") == dataset.fingerprint
    if data is None and not same:
        notes.append(
            f"{dataset.source} is not the data that the model was trained with (its fingerprint differs): "
            "the splits may be other ones, with training images among those measured."
        )
    if same and split in ("train", ALL):
        notes.append("The model was trained on these images, or on most of them: it does better here than on new ones.")
    if same and split == "val":
        notes.append("The temperature of the probabilities and the threshold were fitted on these images.")
    if data is not None and not same and split != ALL and dataset.split_rule is not None:
        total = sum(len(s) for s in dataset.splits.values())
        notes.append(
            f"{len(dataset[split]):,} of {total:,} images were measured: the split was drawn by chance from the data. "
            "--split all measures every one."
        )
    if tta != "none" and not dataset.mirror:
        notes.append(f"tta {tta} mirrors the pictures, which may change their class in {dataset.name}.")
    return notes


def _dataset_facts(manifest: Manifest | None) -> Mapping[str, Any]:
    found = manifest.provenance.get("dataset") if manifest else None
    return found if isinstance(found, Mapping) else {}
