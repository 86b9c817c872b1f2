"""The one path from a dataset and a recipe to a bundle."""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenfold
from tenfold import hardware, networks, outcome, words
from tenfold import recipe as recipes
from tenfold import run as runs
from tenfold.architecture import weights
from tenfold.clock import Clock, Listen
from tenfold.data import load_dataset
from tenfold.data.dataset import Dataset
from tenfold.engines import base as engines
from tenfold.engines.base import Device, Engine, EpochEnd, Event, FitResult, Job, Notice, Step
from tenfold.errors import CallError, MissingExtraError, RecipeError, StoppedError
from tenfold.evaluation.metrics import Evaluation
from tenfold.outcome import Work
from tenfold.recipe import Recipe
from tenfold.run import Run


@dataclass(frozen=True)
class TrainResult:
    """What a training came to. Seconds are wall-clock; ``seconds["total"]`` is all that the caller waited.

    ``device_memory_bytes`` is what the engine took of a GPU's memory, None on a CPU; ``peak_memory_bytes`` the larger
    of that and this process's own. ``notes`` is all that had to be told: what was changed for the data, slower ways.
    """

    path: Path
    bundle: Path
    report: Path
    engine: str
    device: str
    epochs: float
    test: Evaluation | None
    accuracy_with_tta: float | None
    seconds: Mapping[str, float]
    images_per_second: float
    parameters: int
    precision: str
    peak_memory_bytes: int
    device_memory_bytes: int | None
    ended: str
    weights_sha256: str
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what ``tenfold train --json`` prints."""
        return {
            "run": str(self.path),
            "bundle": str(self.bundle),
            "engine": self.engine,
            "device": self.device,
            "epochs": round(self.epochs, 4),
            "test": self._test(),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "images_per_second": round(self.images_per_second, 1),
            "parameters": self.parameters,
            "precision": self.precision,
            "peak_memory_bytes": self.peak_memory_bytes,
            "device_memory_bytes": self.device_memory_bytes,
            "notes": list(self.notes),
        }

    def _test(self) -> dict[str, Any] | None:
        if self.test is None:
            return None
        found = {"accuracy": self.test.accuracy, "n": self.test.n}
        return found if self.accuracy_with_tta is None else {**found, "accuracy_with_tta": self.accuracy_with_tta}


@dataclass(frozen=True)
class Call:
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
    recipe     a preset's name, a YAML file or a Recipe; ``auto`` takes ``quick`` on a CPU and ``sprint`` on a GPU, and
               ``finetune`` where the overrides name another library's network
    engine     ``torch``, ``tensorflow``, ``jax`` or ``opencl``; one a process
    device     ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``
    overrides  recipe fields by dotted name: ``{"epochs": 3, "optimizer.lr": 0.1}``
    out        the run folder; ``runs/<data>-<recipe>-<n>`` where None
    resume     a run folder to take up where it stopped; only ``listen`` and ``since`` may go with it
    listen     called with every Phase, Progress and engine event
    since      when the caller's wait began (``time.time()``); now where None

    Raises CallError for what can't be asked, DataError, TrainingError, and StoppedError after Ctrl-C or SIGTERM, when
    a checkpoint has been left and the message says how to go on.
    """
    clock = Clock(time.time() if since is None else since, listen or (lambda event: None))
    if resume is not None:
        run = runs.reopen(Path(resume))
        with run:
            call = asked(run.record["data"], run.recipe, run.record["engine"], run.record["device"], {})
            return _train(call, clock, run)
    call = asked(data, recipe, engine, device, overrides or {})
    return _train(call, clock, None, Path(out) if out is not None else None)


def asked(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe,
    engine: str,
    device: str,
    overrides: Mapping[str, Any],
) -> Call:
    """Everything that can be refused without looking at a picture is refused here."""
    named: Recipe | None = None
    if recipe == "auto" and networks.is_external(overrides):
        recipe = "finetune"
    if isinstance(recipe, Recipe):
        named = overridden(recipe, overrides)
    elif recipe != "auto":
        named = overridden(recipes.load(recipe), overrides)
    # what is wrong with the fields is told before a framework is imported
    fields = named or overridden(recipes.load("quick"), overrides)
    _require_extras(fields, engine)
    engines.check_network(fields, engine)
    framework = engines.load(engine)
    where = framework.device(device)
    if named is None:
        named = overridden(recipes.load("quick" if where.name == "cpu" else "sprint"), overrides)
    named = networks.as_made_for(framework, named)
    size = 32 if named.data.size == "auto" else named.data.size
    engines.check(framework, networks.build(framework, named.model, size, size, 10), named, where)
    return Call(data, named, framework, where)


def overridden(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """``recipe`` with fields changed by dotted name, as a call asks for them."""
    changes = dict(overrides)
    if "epochs" in changes:
        changes.setdefault("min_steps", 0)  # who names the epochs gets them
    return recipes.override(recipe, changes) if changes else recipe


def _require_extras(recipe: Recipe, engine: str) -> None:
    extra = engines.ENGINES[engine].extra if engine in engines.ENGINES else "torch"
    for package, purpose in (("onnx", "Writing the bundle's model.onnx"), ("matplotlib", "Drawing the report")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra, purpose)
    if recipe.log.tensorboard:
        from tenfold import tensorboard

        tensorboard.require()


def _train(call: Call, clock: Clock, run: Run | None, out: Path | None = None) -> TrainResult:
    clock.phase("data")
    with _warming_up(call):
        dataset = load_dataset(call.data, call.recipe.data, report=clock.listen)
    clock.phase("setup")
    recipe, changed = fit_to_data(call.recipe, dataset)
    notes = [*dataset.notes, *changed]
    for sentence in notes:
        clock.listen(Notice(sentence))
    height, width = dataset.geometry.height, dataset.geometry.width
    architecture = networks.build(call.engine, recipe.model, height, width, len(dataset.classes))
    engines.check(call.engine, architecture, recipe, call.device)
    work = Work(call.engine, call.device, recipe, architecture, dataset)
    if run is not None:
        _check_same_data(run, dataset)
        return _train_in(work, clock, run, notes)
    record = {"tenfold": tenfold.__version__, "data": dataset.source, **outcome.facts(work)}
    with runs.create(out, dataset.name, recipe, record) as made:
        return _train_in(work, clock, made, notes)


@contextmanager
def _warming_up(call: Call) -> Iterator[None]:
    """The device is made ready in a thread while the block runs. What goes wrong there is told by the training itself,
    which meets it again."""

    def warm_up() -> None:
        with suppress(Exception):
            call.engine.warm_up(call.device)

    thread = threading.Thread(target=warm_up, name="tenfold-warm-up", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _train_in(work: Work, clock: Clock, run: Run, notes: list[str]) -> TrainResult:
    """The work inside a locked run folder, whose status always says how it went."""
    run.update(status="running")
    try:
        return _train_through(work, clock, run, notes)
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


def _train_through(work: Work, clock: Clock, run: Run, notes: list[str]) -> TrainResult:
    fitted = _fit(work, clock, run, notes)
    if fitted.ended == "interrupt":
        run.update(status="interrupted")
        raise _stopped(run, f"Stopped at step {fitted.steps}; the checkpoint is kept.")
    clock.phase("evaluate")
    figures = outcome.evaluate(work, fitted.weights)
    clock.phase("save")
    if figures.accuracy_with_tta is not None:
        share = words.percent(figures.accuracy_with_tta)
        notes.append(f"With test-time augmentation ({work.recipe.evaluate.tta}) the test accuracy is {share}.")
    bundle = outcome.write_bundle(work, run, fitted, figures)
    if figures.test is not None:
        outcome.write_evaluation(run, figures.test)
    report = outcome.write_report(work, run, fitted, figures, clock.seconds, notes)
    result = TrainResult(
        path=run.path,
        bundle=bundle.path,
        report=report,
        engine=work.engine.name,
        device=work.device.name,
        epochs=fitted.epochs,
        test=figures.test,
        accuracy_with_tta=figures.accuracy_with_tta,
        seconds=clock.seconds(),
        images_per_second=fitted.images / fitted.seconds if fitted.seconds else 0.0,
        parameters=weights.count(work.architecture),
        precision=fitted.precision,
        peak_memory_bytes=max(fitted.peak_memory_bytes, hardware.peak_memory_bytes()),
        device_memory_bytes=None if work.device.name == "cpu" else fitted.peak_memory_bytes,
        ended=fitted.ended,
        weights_sha256=bundle.manifest.weights_sha256,
        notes=notes,
    )
    run.update(status="finished", ended=fitted.ended, result=result.to_dict(), weights_sha256=result.weights_sha256)
    return result


# ---- the recipe meets the data ---------------------------------------------------------------------------------------


def fit_to_data(recipe: Recipe, dataset: Dataset) -> tuple[Recipe, list[str]]:
    """The resolved recipe for a dataset, and a sentence for everything that was changed for it.

    The size is the pictures'; pictures that a mirror would change aren't flipped; the batch leaves at least eight steps
    an epoch, and SGD's rates shrink with it. Raises RecipeError where the recipe asks for what the data hasn't got.
    """
    changes: dict[str, Any] = {
        "data.size": dataset.geometry.height,
        "data.interpolation": dataset.geometry.interpolation,
        "tune": None,  # a training has no use for it
    }
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
        sentence = f"batch_size is {most} instead of {recipe.batch_size}: there are {images:,} training images."
        if recipe.optimizer.name in ("sgd", "muon"):
            # the linear scaling rule (Goyal et al. 2017): fewer images a step, noisier gradients, smaller steps
            for name in ("lr", "bias_lr", "head_lr"):
                rate = getattr(recipe.optimizer, name)
                if rate is not None:
                    changes[f"optimizer.{name}"] = rate * most / recipe.batch_size
            sentence += " SGD's rates are lowered in proportion."
        notices.append(sentence)
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


# ---- training -----------------------------------------------------------------------------------------------------


def _fit(work: Work, clock: Clock, run: Run, notes: list[str]) -> FitResult:
    architecture, recipe, dataset = work.architecture, work.recipe, work.dataset
    state = run.last()

    def say(sentence: str) -> None:
        notes.append(sentence)
        clock.listen(Notice(sentence))

    first = networks.first_weights(work, run, say, resumed=state is not None)
    run.trim_metrics(state.meta["step"] if state else -1)
    clock.phase("train")
    with _interrupts() as stop, _board(run) as board:

        def report(event: Event) -> None:
            if isinstance(event, Notice):
                notes.append(event.message)
            row = _metrics_row(event)
            if row is not None:
                run.log(row)
                board(row)
            clock.listen(event)

        job = Job(architecture, recipe, first, dataset, work.device, report, stop, run, state)
        return work.engine.fit(job)


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
