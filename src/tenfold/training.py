"""The one path from a dataset and a recipe to a bundle."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tenfold
from tenfold import distributed, fitting, hardware, networks, outcome, words
from tenfold import recipe as recipes
from tenfold import run as runs
from tenfold.architecture import weights
from tenfold.clock import Clock, Listen
from tenfold.data import load_dataset
from tenfold.data.dataset import Dataset
from tenfold.distributed import Peers
from tenfold.engines import base as engines
from tenfold.engines.base import Device, Engine, Notice
from tenfold.engines.schedule import plan
from tenfold.engines.share import share
from tenfold.errors import CallError, MissingExtraError, RecipeError, StoppedError, TrainingError
from tenfold.evaluation.metrics import Evaluation
from tenfold.outcome import Work
from tenfold.recipe import Recipe
from tenfold.run import Run


@dataclass(frozen=True)
class TrainResult:
    """What a training came to. Seconds are wall-clock; ``seconds["total"]`` is all that the caller waited.

    ``device_memory_bytes`` is what the engine took of a GPU's memory, None on a CPU; ``peak_memory_bytes`` the larger
    of that and this process's own. ``notes`` is all that had to be told: what was changed for the data, slower ways.
    ``processes``: the ``number`` that trained together, and the ``backend`` that added up their gradients.
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
    processes: Mapping[str, Any] = field(default_factory=lambda: Peers().facts())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what ``tenfold train --json`` prints."""
        return {
            "run": str(self.path),
            "bundle": str(self.bundle),
            "engine": self.engine,
            "device": self.device,
            "processes": dict(self.processes),
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
    with distributed.joined(engine) as peers:
        if resume is not None:
            return _resume(Path(resume), clock, peers)
        call = peers.together(lambda: asked(data, recipe, engine, device, overrides or {}, peers))
        return _train(call, clock, peers, None, Path(out) if out is not None else None)


def _resume(path: Path, clock: Clock, peers: Peers) -> TrainResult:
    run = peers.together(lambda: runs.reopen(path) if peers.first else None)
    with run if run is not None else nullcontext():
        record, recipe = peers.shared((run.record, run.recipe) if run is not None else ({}, None))
        assert recipe is not None
        device = record["device"]
        if peers.size > 1:  # each has its own
            device = device.partition(":")[0]
        call = peers.together(lambda: asked(record["data"], recipe, record["engine"], device, {}, peers))
        return _train(call, clock, peers, run)


def asked(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe,
    engine: str,
    device: str,
    overrides: Mapping[str, Any],
    peers: Peers = Peers(),
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
    distributed.check(fields, engine, peers.size)
    framework = engines.load(engine)
    where = distributed.device(framework, device, peers)
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


def _train(call: Call, clock: Clock, peers: Peers, run: Run | None, out: Path | None = None) -> TrainResult:
    clock.phase("data")
    with _warming_up(call):
        dataset = _load(call, clock, peers)
    clock.phase("setup")
    peers.prepare(call.device)
    work, notes = peers.together(lambda: _work(call, dataset, peers))
    peers.alike(_alike(work))
    for sentence in notes:
        clock.listen(Notice(sentence))

    def folder() -> Run | None:
        if not peers.first:
            return None
        if run is not None:
            _check_same_data(run, dataset)
            return run
        record = {"tenfold": tenfold.__version__, "data": dataset.source, **outcome.facts(work)}
        return runs.create(out, dataset.name, work.recipe, record)

    made = peers.together(folder)
    peers.run = peers.shared(made.path if made is not None else None)
    if made is None:
        return _follow(work, peers)
    with made:
        return _train_in(work, clock, made, notes, peers)


def _load(call: Call, clock: Clock, peers: Peers) -> Dataset:
    """The data. What has to be downloaded or decoded is done by one process of each machine, before the others read."""

    def load() -> Dataset:
        return load_dataset(call.data, call.recipe.data, report=clock.listen)

    early = peers.together(lambda: load() if peers.local_rank == 0 else None)
    late = peers.together(lambda: load() if peers.local_rank != 0 else None)
    found = early if early is not None else late
    assert found is not None
    return found


def _work(call: Call, dataset: Dataset, peers: Peers) -> tuple[Work, list[str]]:
    """Everything decided, and what was changed for the data."""
    recipe, changed = fit_to_data(call.recipe, dataset)
    height, width = dataset.geometry.height, dataset.geometry.width
    architecture = networks.build(call.engine, recipe.model, height, width, len(dataset.classes))
    engines.check(call.engine, architecture, recipe, call.device)
    share(plan(recipe, len(dataset["train"])), peers.rank, peers.size)
    return Work(call.engine, call.device, recipe, architecture, dataset, peers.facts()), [*dataset.notes, *changed]


def _alike(work: Work) -> dict[str, str]:
    """What must be the same in all processes of a training."""
    kind = work.device.name.partition(":")[0]
    recipe = hashlib.sha256(work.recipe.to_yaml().encode()).hexdigest()
    return {
        "The version of tenfold": tenfold.__version__,
        **{f"The version of {name}": version for name, version in work.engine.versions().items()},
        "The device": kind,
        "The recipe's digest": recipe,
        "The data's fingerprint": work.dataset.fingerprint,
    }


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


def _train_in(work: Work, clock: Clock, run: Run, notes: list[str], peers: Peers) -> TrainResult:
    """The work inside a locked run folder, whose status always says how it went."""
    run.update(status="running", processes=work.processes)
    try:
        result = _train_through(work, clock, run, notes, peers)
    except KeyboardInterrupt:  # a second one while training, or any in what comes after
        with suppress(OSError):
            run.update(status="interrupted")
        raise _stopped(run, "Interrupted; what the last checkpoint holds is kept.", peers) from None
    except BaseException as error:
        if run.record["status"] == "running":
            with suppress(OSError):  # a full disk must not hide what went wrong
                run.update(status="failed", error=str(error))
        raise
    with suppress(TrainingError):  # all is done: a process that is gone now is missed by nobody
        peers.shared(result)
    return result


def _stopped(run: Run, message: str, peers: Peers) -> StoppedError:
    return StoppedError(message, f"Go on with: {peers.resume(run.path)}")


def _follow(work: Work, peers: Peers) -> TrainResult:
    """Trains with the first process, and waits for what that makes of it."""
    fitted = fitting.follow(work, peers)
    if fitted.ended == "interrupt":
        raise StoppedError(f"Stopped at step {fitted.steps}.")
    found: TrainResult | None = peers.shared(None)
    assert found is not None
    return found


def _train_through(work: Work, clock: Clock, run: Run, notes: list[str], peers: Peers) -> TrainResult:
    fitted = fitting.fit(work, clock, run, notes, peers)
    if fitted.ended == "interrupt":
        run.update(status="interrupted")
        raise _stopped(run, f"Stopped at step {fitted.steps}; the checkpoint is kept.", peers)
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
        processes=work.processes,
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
