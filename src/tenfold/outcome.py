"""What a training comes to: its figures, its bundle and its report."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tenfold
from tenfold import hardware, paths
from tenfold import run as runs
from tenfold.architecture import weights
from tenfold.architecture.layers import Architecture
from tenfold.bundle import store
from tenfold.data.dataset import Dataset
from tenfold.distributed import Peers
from tenfold.engines.base import Device, Engine, FitResult
from tenfold.evaluation.calibration import fit_temperature, fit_threshold, softmax
from tenfold.evaluation.metrics import Evaluation, measure, with_threshold
from tenfold.recipe import Recipe
from tenfold.run import Run

GOLDEN_IMAGES = 16


@dataclass(frozen=True)
class Work:
    """A training with everything decided: the resolved recipe, its network, the data, and where it runs."""

    engine: Engine
    device: Device
    recipe: Recipe
    architecture: Architecture
    dataset: Dataset
    processes: Mapping[str, Any] = field(default_factory=lambda: Peers().facts())


@dataclass(frozen=True)
class Figures:
    """What was measured. ``probabilities`` are those of the test split, or where there is none of the val split.

    ``threshold`` is None where there was no validation data to fit it on.
    All of it without test-time augmentation; ``accuracy_with_tta`` is the test accuracy with the recipe's, None where
    it has none.
    """

    temperature: float
    val: Evaluation | None
    test: Evaluation | None
    probabilities: np.ndarray | None
    accuracy_with_tta: float | None = None
    threshold: float | None = None


def facts(work: Work) -> dict[str, Any]:
    """Where a run comes from, in plain JSON: for run.json and a bundle's provenance."""
    dataset = work.dataset
    return {
        "engine": work.engine.name,
        "device": work.device.name,
        "processes": dict(work.processes),
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "fingerprint": dataset.fingerprint,
            "split_rule": dict(dataset.split_rule) if dataset.split_rule else None,
            "counts": {name: len(split) for name, split in dataset.splits.items()},
            "skipped": len(dataset.skipped),
        },
        "hardware": _hardware(work),
        "versions": _versions(work),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _hardware(work: Work) -> dict[str, Any]:
    return {**hardware.describe(), "device": work.device.label}


def _versions(work: Work) -> dict[str, str]:
    return {
        "tenfold": tenfold.__version__,
        **hardware.versions("numpy", "pillow", "onnxruntime", "onnx"),
        **work.engine.versions(),
        **(hardware.versions(network.library) if (network := work.architecture.external) is not None else {}),
    }


def evaluate(work: Work, trained: Mapping[str, np.ndarray]) -> Figures:
    """Temperature from the validation split, then the figures: the test split is read here and nowhere else."""
    dataset = work.dataset

    def logits(split: str, tta: str = "none") -> np.ndarray:
        return work.engine.logits(work.architecture, trained, dataset[split].images, work.device, tta=tta)

    temperature, threshold = 1.0, None
    val, test, probabilities, with_tta = None, None, None, None
    if len(dataset["val"]):
        found = logits("val")
        temperature = fit_temperature(found, dataset["val"].labels)
        probabilities = softmax(found, temperature)
        threshold = fit_threshold(probabilities)
        val = measure(probabilities, dataset["val"].labels, dataset.classes)
        val = with_threshold(val, probabilities, dataset["val"].labels, threshold)
        val = dataclasses.replace(val, split="val", data=dataset.source)
    if len(dataset["test"]):
        probabilities = softmax(logits("test"), temperature)
        test = measure(probabilities, dataset["test"].labels, dataset.classes)
        test = with_threshold(test, probabilities, dataset["test"].labels, threshold)
        test = dataclasses.replace(test, split="test", data=dataset.source)
        if work.recipe.evaluate.tta != "none":
            found = logits("test", work.recipe.evaluate.tta)
            with_tta = float((found.argmax(1) == dataset["test"].labels).mean())
    return Figures(temperature, val, test, probabilities, with_tta, threshold)


def write_bundle(work: Work, run: Run, fitted: FitResult, figures: Figures) -> store.Bundle:
    """The bundle in the run folder, its golden images taken evenly from the test split (or val, or train)."""
    dataset = work.dataset
    source = next(s for s in ("test", "val", "train") if len(dataset[s]))
    at = np.linspace(0, len(dataset[source]) - 1, min(GOLDEN_IMAGES, len(dataset[source]))).astype(np.int64)
    golden = np.ascontiguousarray(dataset[source].images[at])
    content = store.BundleContent(
        name=run.path.name,
        classes=dataset.classes,
        geometry=dataset.geometry,
        architecture=work.architecture,
        weights=fitted.weights,
        temperature=figures.temperature,
        threshold=figures.threshold,
        metrics={
            name: {"accuracy": e.accuracy, "n": e.n, "loss": e.loss, "ece": e.ece, "tta": e.tta}
            for name, e in (("val", figures.val), ("test", figures.test))
            if e is not None
        },
        provenance={
            **facts(work),
            "recipe": work.recipe.model_dump(mode="json"),
            "precision": fitted.precision,
            "train_seconds": round(fitted.seconds, 3),
            "epochs": round(fitted.epochs, 4),
            **({"pretrained": run.record["pretrained"]} if run.record.get("pretrained") else {}),
        },
        golden_images=golden,
        golden_logits=work.engine.logits(work.architecture, fitted.weights, golden, work.device),
        graph=_graph(work, fitted.weights),
    )
    return store.write(run.bundle, content)


def _graph(work: Work, trained: Mapping[str, np.ndarray]) -> bytes | None:
    """The ONNX graph that only the engine can write; None for a network of tenfold's own."""
    network = work.architecture.external
    return None if network is None else work.engine.library(network.library).graph(work.architecture, trained)


def write_evaluation(run: Run, evaluation: Evaluation) -> None:
    text = json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    paths.write_whole(run.path / "evaluation.json", text + "\n")


def write_report(
    work: Work,
    run: Run,
    fitted: FitResult,
    figures: Figures,
    seconds: Callable[[], Mapping[str, float]],
    notes: list[str],
) -> Path:
    """report.html and plots/ in the run folder; ``seconds`` is asked as late as can be."""
    from tenfold.evaluation import report
    from tenfold.evaluation.content import ReportContent

    recipe = shlex.quote(str(run.path / runs.RECIPE))
    several = work.processes["number"] > 1
    return report.write(
        run.path,
        ReportContent(
            title=run.path.name,
            dataset=work.dataset,
            evaluation=figures.test or figures.val,
            probabilities=figures.probabilities,
            measured=work.dataset["test" if figures.test else "val"],
            val=figures.val,
            history=run.metrics(),
            recipe=work.recipe.to_yaml(),
            command=f"tenfold train {shlex.quote(work.dataset.source)} --recipe {recipe}",
            created=run.record["created"],
            seconds=seconds,
            hardware=_hardware(work),
            versions=_versions(work),
            parameters=weights.count(work.architecture),
            engine=work.engine.name,
            device=work.device.name,
            precision=fitted.precision,
            images_per_second=fitted.images / fitted.seconds if fitted.seconds else None,
            peak_memory_bytes=max(fitted.peak_memory_bytes, hardware.peak_memory_bytes()),
            facts={"processes": "{number}, joined by {backend}".format(**work.processes)} if several else {},
            notes=notes,
        ),
    )
