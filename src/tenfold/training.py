"""The one path from a dataset and a recipe to a bundle."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import json
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tenfold
from tenfold import hardware, paths
from tenfold import recipe as recipes
from tenfold import run as runs
from tenfold.architecture import weights, zoo
from tenfold.architecture.layers import Architecture
from tenfold.bundle import store
from tenfold.data import load_dataset
from tenfold.data.dataset import Dataset
from tenfold.data.progress import Progress
from tenfold.engines import base as engines
from tenfold.engines.base import Device, Engine, EpochEnd, Event, FitResult, Job, Notice, Step
from tenfold.errors import CallError, MissingExtraError, RecipeError, StoppedError
from tenfold.evaluation.calibration import fit_temperature
from tenfold.evaluation.metrics import Evaluation, measure
from tenfold.recipe import Recipe
from tenfold.run import Run

PHASES = ("import", "data", "setup", "train", "evaluate", "save")
GOLDEN_IMAGES = 16


@dataclass(frozen=True)
class Phase:
    """A part of the work begins; ``name`` is one of PHASES."""

    name: str


Listen = Callable[[Event | Progress | Phase], None]


@dataclass(frozen=True)
class TrainResult:
    """What a training came to. Seconds are wall-clock; ``seconds["total"]`` is all that the caller waited."""

    path: Path
    bundle: Path
    report: Path
    engine: str
    device: str
    epochs: float
    test: Evaluation | None
    seconds: Mapping[str, float]
    images_per_second: float
    parameters: int
    peak_memory_bytes: int
    ended: str
    weights_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what ``tenfold train --json`` prints."""
        return {
            "run": str(self.path),
            "bundle": str(self.bundle),
            "engine": self.engine,
            "device": self.device,
            "epochs": round(self.epochs, 4),
            "test": {"accuracy": self.test.accuracy, "n": self.test.n} if self.test else None,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "images_per_second": round(self.images_per_second, 1),
            "parameters": self.parameters,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


@dataclass(frozen=True)
class _Call:
    """What was asked for, before it meets the data."""

    data: str | Path | Dataset
    recipe: Recipe
    engine: Engine
    device: Device


def train(
    data: str | Path | Dataset = "digits",
    *,
    recipe: str | Path | Recipe = "auto",
    engine: str = "torch",
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    listen: Listen | None = None,
    since: float | None = None,
) -> TrainResult:
    """Train a classifier, measure it, and leave a run folder with its bundle and report.

    data       a dataset's name (``digits``, ``cifar10``, ``cifar100``), a folder of pictures, a CSV, or a Dataset
    recipe     a preset's name, a YAML file or a Recipe; ``auto`` takes ``quick`` on a CPU and ``sprint`` on a GPU
    engine     ``torch``
    device     ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``
    overrides  recipe fields by dotted name: ``{"epochs": 3, "optimizer.lr": 0.1}``
    out        the run folder; ``runs/<data>-<recipe>-<n>`` where None
    resume     a run folder to take up where it stopped; only ``listen`` and ``since`` may go with it
    listen     called with every Phase, Progress and engine event
    since      when the caller's wait began (``time.time()``); now where None

    Raises CallError for what can't be asked, DataError, TrainingError, and StoppedError after Ctrl-C or SIGTERM, when
    a checkpoint has been left and the message says how to go on.
    """
    clock = _Clock(time.time() if since is None else since, listen or (lambda event: None))
    if resume is not None:
        run = runs.reopen(Path(resume))
        with run:
            call = _call(run.record["data"], run.recipe, run.record["engine"], run.record["device"], {})
            return _train(call, clock, run)
    call = _call(data, recipe, engine, device, overrides or {})
    return _train(call, clock, None, Path(out) if out is not None else None)


def _call(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe,
    engine: str,
    device: str,
    overrides: Mapping[str, Any],
) -> _Call:
    """Everything that can be refused without looking at a picture is refused here."""
    named: Recipe | None = None
    if isinstance(recipe, Recipe):
        named = _overridden(recipe, overrides)
    elif recipe != "auto":
        named = _overridden(recipes.load(recipe), overrides)
    # what is wrong with the fields is told before a framework is imported
    _require_extras(named or _overridden(recipes.load("quick"), overrides))
    framework = engines.load(engine)
    where = framework.device(device)
    if named is None:
        named = _overridden(recipes.load("quick" if where.name == "cpu" else "sprint"), overrides)
    size = 32 if named.data.size == "auto" else named.data.size
    framework.check(zoo.build(named.model, size, size, 10), named, where)
    return _Call(data, named, framework, where)


def _overridden(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    changes = dict(overrides)
    if "epochs" in changes:
        changes.setdefault("min_steps", 0)  # who names the epochs gets them
    return recipes.override(recipe, changes) if changes else recipe


def _require_extras(recipe: Recipe) -> None:
    for package, purpose in (("onnx", "Writing the bundle's model.onnx"), ("matplotlib", "Drawing the report")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "torch", purpose)
    if recipe.log.tensorboard:
        from tenfold import tensorboard

        tensorboard.require()


def _train(call: _Call, clock: _Clock, run: Run | None, out: Path | None = None) -> TrainResult:
    clock.phase("data")
    dataset = load_dataset(call.data, call.recipe.data, report=clock.listen)
    clock.phase("setup")
    recipe, notices = fit_to_data(call.recipe, dataset)
    for sentence in (*dataset.notes, *notices):
        clock.listen(Notice(sentence))
    architecture = zoo.build(recipe.model, dataset.geometry.height, dataset.geometry.width, len(dataset.classes))
    call.engine.check(architecture, recipe, call.device)
    if run is not None:
        _check_same_data(run, dataset)
        return _train_in(call, clock, run, recipe, architecture, dataset)
    record = _record(call, dataset)
    with runs.create(out, dataset.name, recipe, record) as made:
        return _train_in(call, clock, made, recipe, architecture, dataset)


def _train_in(
    call: _Call, clock: _Clock, run: Run, recipe: Recipe, architecture: Architecture, dataset: Dataset
) -> TrainResult:
    """The work inside a locked run folder, whose status always says how it went."""
    run.update(status="running")
    try:
        return _train_through(call, clock, run, recipe, architecture, dataset)
    except KeyboardInterrupt:  # a second one while training, or any in what comes after
        with suppress(OSError):
            run.update(status="interrupted")
        raise _stopped(run, "Interrupted; what the last checkpoint holds is kept.") from None
    except BaseException as error:
        if run.record["status"] == "running":
            with suppress(OSError):  # a full disk must not hide what went wrong
                run.update(status="failed", error=str(error))
        raise


def _stopped(run: Run, message: str) -> StoppedError:
    return StoppedError(message, f"Go on with: tenfold train --resume {shlex.quote(str(run.path))}")


def _train_through(
    call: _Call, clock: _Clock, run: Run, recipe: Recipe, architecture: Architecture, dataset: Dataset
) -> TrainResult:
    fitted = _fit(call, clock, run, recipe, architecture, dataset)
    if fitted.ended == "interrupt":
        run.update(status="interrupted")
        raise _stopped(run, f"Stopped at step {fitted.steps}; the checkpoint is kept.")
    clock.phase("evaluate")
    tested = _evaluate(call, recipe, architecture, dataset, fitted)
    clock.phase("save")
    bundle = store.write(run.bundle, _bundle_content(call, run, recipe, architecture, dataset, fitted, tested))
    if tested.test is not None:
        text = json.dumps(tested.test.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        paths.write_whole(run.path / "evaluation.json", text + "\n")
    report = _write_report(call, clock, run, recipe, dataset, fitted, tested)
    seconds = clock.so_far()
    result = TrainResult(
        path=run.path,
        bundle=bundle.path,
        report=report,
        engine=call.engine.name,
        device=call.device.name,
        epochs=fitted.epochs,
        test=tested.test,
        seconds=seconds,
        images_per_second=fitted.images / fitted.seconds if fitted.seconds else 0.0,
        parameters=tested.parameters,
        peak_memory_bytes=max(fitted.peak_memory_bytes, hardware.peak_memory_bytes()),
        ended=fitted.ended,
        weights_sha256=bundle.manifest.weights_sha256,
    )
    run.update(status="finished", ended=fitted.ended, result=result.to_dict(), weights_sha256=result.weights_sha256)
    return result


# ---- the recipe meets the data ---------------------------------------------------------------------------------------


def fit_to_data(recipe: Recipe, dataset: Dataset) -> tuple[Recipe, list[str]]:
    """The resolved recipe for a dataset, and a sentence for everything that was changed for it.

    The size is the pictures'; pictures that a mirror would change aren't flipped; the batch leaves at least eight steps
    an epoch. Raises RecipeError where the recipe asks for what the data hasn't got.
    """
    changes: dict[str, Any] = {"data.size": dataset.geometry.height}
    if dataset.split_rule and "val_fraction" in dataset.split_rule:
        changes["data.val_fraction"] = dataset.split_rule["val_fraction"]
    notices = []
    images = len(dataset["train"])
    if not images:
        raise RecipeError(f"{dataset.name} has no training images.", "Its train split is empty; see tenfold show.")
    if recipe.augment.flip != "none" and not dataset.mirror:
        changes["augment.flip"] = "none"
        notices.append(f"augment.flip={recipe.augment.flip} is left out: mirrored, {dataset.name} change their class.")
    most = max(1, images // 8)
    if recipe.batch_size > most:
        changes["batch_size"] = most
        notices.append(f"batch_size is {most} instead of {recipe.batch_size}: there are {images:,} training images.")
    if recipe.patience and not len(dataset["val"]):
        raise RecipeError("patience needs validation images, and there are none.", "Try --set data.val_fraction=0.1.")
    if recipe.low_res is not None and recipe.low_res.size >= dataset.geometry.height:
        changes["low_res"] = None
        notices.append(f"low_res is left out: the pictures have {dataset.geometry.height} pixels only.")
    return recipes.override(recipe, changes, "recipe"), notices


def _check_same_data(run: Run, dataset: Dataset) -> None:
    before = run.record.get("dataset", {}).get("fingerprint")
    if before and before != dataset.fingerprint:
        raise CallError(
            f"{dataset.source} is not the data that {run.path} was started with.",
            "Bring the data back as it was, or start a new run.",
        )


def _record(call: _Call, dataset: Dataset) -> dict[str, Any]:
    """What run.json says from the start."""
    return {
        "tenfold": tenfold.__version__,
        "created": _now(),
        "data": dataset.source,
        "engine": call.engine.name,
        "device": call.device.name,
        "dataset": _dataset_facts(dataset),
        "hardware": {**hardware.describe(), "device": call.device.label},
        "versions": _versions(call),
    }


def _dataset_facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "split_rule": dict(dataset.split_rule) if dataset.split_rule else None,
        "counts": {name: len(split) for name, split in dataset.splits.items()},
        "skipped": len(dataset.skipped),
    }


def _versions(call: _Call) -> dict[str, str]:
    return {
        "tenfold": tenfold.__version__,
        **hardware.versions("numpy", "pillow", "onnxruntime", "onnx"),
        **call.engine.versions(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# ---- training -----------------------------------------------------------------------------------------------------


def _fit(
    call: _Call, clock: _Clock, run: Run, recipe: Recipe, architecture: Architecture, dataset: Dataset
) -> FitResult:
    first = weights.initial(architecture, recipe.seed, dataset["train"].images)
    state = run.last()
    run.trim_metrics(state.meta["step"] if state else -1)
    clock.phase("train")
    with _interrupts() as stop, _board(run) as board:

        def report(event: Event) -> None:
            row = _metrics_row(event)
            if row is not None:
                run.log(row)
                board(row)
            clock.listen(event)

        job = Job(architecture, recipe, first, dataset, call.device, report, stop, run, state)
        return call.engine.fit(job)


def _metrics_row(event: Event) -> dict[str, Any] | None:
    if isinstance(event, Step):
        return {"event": "step", **dataclasses.asdict(event)}
    if isinstance(event, EpochEnd):
        return {"event": "epoch", **dataclasses.asdict(event)}
    return None


@contextmanager
def _board(run: Run) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """TensorBoard's writer where the recipe asks for it."""
    if not run.recipe.log.tensorboard:
        yield lambda row: None
        return
    from tenfold import tensorboard

    with tensorboard.writer(run.path / "tensorboard") as write:
        yield write


@contextmanager
def _interrupts() -> Iterator[Callable[[], str | None]]:
    """While the block runs, the first Ctrl-C or SIGTERM asks the engine to stop with a checkpoint; a second ends it."""
    asked: list[str] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append("interrupt")

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- measuring and keeping ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tested:
    temperature: float
    val: Evaluation | None
    test: Evaluation | None
    probabilities: np.ndarray | None  # of the test split, or where there is none of val
    parameters: int


def _evaluate(call: _Call, recipe: Recipe, architecture: Architecture, dataset: Dataset, fitted: FitResult) -> _Tested:
    """Temperature from the validation split, then the figures: the test split is read here and nowhere else."""

    def logits(split: str, tta: str) -> np.ndarray:
        return call.engine.logits(architecture, fitted.weights, dataset[split].images, call.device, tta=tta)

    temperature, val, test, probabilities = 1.0, None, None, None
    if len(dataset["val"]):
        found = logits("val", "none")
        temperature = fit_temperature(found, dataset["val"].labels)
        probabilities = softmax(found / temperature)
        val = measure(probabilities, dataset["val"].labels, dataset.classes)
    if len(dataset["test"]):
        probabilities = softmax(logits("test", recipe.evaluate.tta) / temperature)
        test = measure(probabilities, dataset["test"].labels, dataset.classes)
        test = dataclasses.replace(test, split="test", data=dataset.source, tta=recipe.evaluate.tta)
    return _Tested(temperature, val, test, probabilities, weights.count(architecture))


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 probabilities N×K of logits N×K."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)


def _bundle_content(
    call: _Call,
    run: Run,
    recipe: Recipe,
    architecture: Architecture,
    dataset: Dataset,
    fitted: FitResult,
    tested: _Tested,
) -> store.BundleContent:
    source = next(s for s in ("test", "val", "train") if len(dataset[s]))
    at = np.linspace(0, len(dataset[source]) - 1, min(GOLDEN_IMAGES, len(dataset[source]))).astype(np.int64)
    golden = np.ascontiguousarray(dataset[source].images[at])
    figures = {
        name: {"accuracy": e.accuracy, "n": e.n, "loss": e.loss, "ece": e.ece}
        for name, e in (("val", tested.val), ("test", tested.test))
        if e is not None
    }
    return store.BundleContent(
        name=run.path.name,
        classes=dataset.classes,
        geometry=dataset.geometry,
        architecture=architecture,
        weights=fitted.weights,
        temperature=tested.temperature,
        metrics=figures,
        provenance={
            "recipe": recipe.model_dump(mode="json"),
            "dataset": _dataset_facts(dataset),
            "engine": call.engine.name,
            "device": call.device.name,
            "precision": fitted.precision,
            "hardware": {**hardware.describe(), "device": call.device.label},
            "versions": _versions(call),
            "created": _now(),
            "train_seconds": round(fitted.seconds, 3),
            "epochs": round(fitted.epochs, 4),
        },
        golden_images=golden,
        golden_logits=call.engine.logits(architecture, fitted.weights, golden, call.device),
    )


def _write_report(
    call: _Call, clock: _Clock, run: Run, recipe: Recipe, dataset: Dataset, fitted: FitResult, tested: _Tested
) -> Path:
    from tenfold.evaluation import report
    from tenfold.evaluation.content import ReportContent

    return report.write(
        run.path,
        ReportContent(
            title=run.path.name,
            dataset=dataset,
            evaluation=tested.test or tested.val,
            probabilities=tested.probabilities,
            measured=dataset["test"] if tested.test else dataset["val"],
            val=tested.val,
            history=fitted.history,
            recipe=recipe.to_yaml(),
            command=f"tenfold train {shlex.quote(dataset.source)} --recipe {shlex.quote(str(run.path / runs.RECIPE))}",
            created=run.record["created"],
            seconds=clock.so_far(),
            hardware={**hardware.describe(), "device": call.device.label},
            versions=_versions(call),
            parameters=tested.parameters,
            engine=call.engine.name,
            device=call.device.name,
            precision=fitted.precision,
            images_per_second=fitted.images / fitted.seconds if fitted.seconds else None,
            peak_memory_bytes=max(fitted.peak_memory_bytes, hardware.peak_memory_bytes()),
            notes=dataset.notes,
        ),
    )


class _Clock:
    """Wall-clock seconds by phase, without a gap: they add up to the total."""

    def __init__(self, since: float, listen: Listen) -> None:
        self.listen = listen
        self._since = self._last = since
        self._name = "import"
        self.seconds = dict.fromkeys(PHASES, 0.0)
        listen(Phase("import"))

    def phase(self, name: str) -> None:
        now = time.time()
        self.seconds[self._name] += now - self._last
        self._last, self._name = now, name
        self.listen(Phase(name))

    def so_far(self) -> dict[str, float]:
        now = time.time()
        seconds = dict(self.seconds)
        seconds[self._name] += now - self._last
        return {**seconds, "total": now - self._since}
