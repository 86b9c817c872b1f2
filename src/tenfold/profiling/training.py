"""Profiles training: some steps by the clock alone, some with the engine's profiler, and by the clock again."""

from __future__ import annotations

import dataclasses
import datetime
import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenfold
from tenfold import hardware, networks, training
from tenfold import recipe as recipes
from tenfold.architecture import weights
from tenfold.data import load_dataset
from tenfold.data.dataset import Dataset
from tenfold.data.progress import Progress
from tenfold.engines import base as engines
from tenfold.engines.base import Device, Engine, Job, Notice, Steps
from tenfold.engines.recording import Recording
from tenfold.engines.schedule import Plan, low_res_size
from tenfold.errors import CallError
from tenfold.profiling.advice import of_training
from tenfold.profiling.kinds import DATA
from tenfold.profiling.records import Cost, Operation, Part, Profile
from tenfold.profiling.split import Split, operations, split
from tenfold.recipe import Recipe

SECONDS = 2.0  # of profiled steps, where their number is not given
FEWEST, MOST = 3, 20
WARM_UP = 5  # a step captured as a CUDA graph is taken three times and captured first
SHOWN_UNITS = 2  # in the timeline


@dataclass(frozen=True)
class Setup:
    """A training that could begin: the recipe fitted to the data, and its network's first weights."""

    engine: Engine
    device: Device
    recipe: Recipe
    dataset: Dataset
    job: Job
    notes: list[str]


def prepared(
    data: str | Path | Dataset,
    recipe: str | Path | Recipe = "auto",
    engine: str = "torch",
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    report: Callable[[Any], None] = lambda event: None,
    changes: Callable[[Recipe], Mapping[str, Any]] = lambda recipe: {},
) -> Setup:
    """The job that ``tenfold train`` would give the engine. ``changes``: fields of the fitted recipe to be changed.

    Raises as :func:`tenfold.train` does before its first step; UnsupportedError for another library's network.
    """
    call = training.asked(data, recipe, engine, device, overrides or {})
    dataset = load_dataset(data, call.recipe.data, report=report)
    fitted, notes = training.fit_to_data(call.recipe, dataset)
    fitted = recipes.override(fitted, changes(fitted))
    geometry = dataset.geometry
    network = networks.build(call.engine, fitted.model, geometry.height, geometry.width, len(dataset.classes))
    engines.check(call.engine, network, fitted, call.device)
    if network.external is not None:
        first = call.engine.library(network.external.library).first_weights(network, fitted.model, fitted.seed).weights
    else:
        first = weights.initial(network, fitted.seed, dataset["train"].images)
    found = [*dataset.notes, *notes]

    def heard(event: Any) -> None:
        if isinstance(event, Notice):
            found.append(event.message)

    job = Job(network, fitted, first, dataset, call.device, heard)
    return Setup(call.engine, call.device, fitted, dataset, job, found)


class Taking:
    """Takes one step after another, all at the same share of the run, so that each is of one size."""

    def __init__(self, steps: Steps, at: float) -> None:
        self.steps, self.done = steps, at
        self.number = 0

    def __call__(self) -> None:
        self.steps.stepper.take(self.number, self.done)
        self.number += 1

    def timed(self, count: int) -> float:
        """Seconds of ``count`` steps, until the device has done the last."""
        self.steps.stepper.sums()
        start = time.perf_counter()
        for _ in range(count):
            self()
        self.steps.stepper.sums()
        return time.perf_counter() - start


def endless(recipe: Recipe) -> dict[str, Any]:
    """Changes that make a run long enough that no measurement meets its end; the rates follow the share of the run
    that is behind, which is given with each step."""
    return {"min_steps": 10_000_000, "time_limit": None}


def profile(
    data: str | Path | Dataset,
    *,
    recipe: str | Path | Recipe = "auto",
    engine: str = "torch",
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    steps: int | None = None,
    at: float = 0.0,
    command: str = "",
    report: Callable[[Any], None] = lambda event: None,
) -> tuple[Profile, Recording]:
    """Where the time of a training step goes, and what was recorded.

    steps   to be profiled; as many as take about two seconds where None
    at      the share of the run, 0 to 1, that counts as behind: pictures may be smaller at first (``low_res``)

    Raises CallError for what can't be asked, and as :func:`tenfold.train` does.
    """
    if steps is not None and steps < 1:
        raise CallError(f"steps must be 1 or more, not {steps}.")
    if not 0 <= at < 1:
        raise CallError(f"at must be from 0 to below 1, not {at:g}.", "It is the share of the run that is behind.")
    setup = prepared(data, recipe, engine, device, overrides, report, endless)
    report(Progress("profile", 0, 4, "parts"))
    with setup.engine.steps(setup.job) as ready:
        ready.stepper.announce()
        take = Taking(ready, at)
        take.timed(WARM_UP)
        report(Progress("profile", 1, 4, "parts"))
        once = max(take.timed(FEWEST) / FEWEST, 1e-6)
        count = steps or max(FEWEST, min(MOST, math.ceil(SECONDS / once)))
        plain = [once, take.timed(count) / count]
        report(Progress("profile", 2, 4, "parts"))
        recording = setup.engine.record(ready, take, count)
        report(Progress("profile", 3, 4, "parts"))
        plain.append(take.timed(count) / count)
        memory, placement = ready.stepper.memory_bytes(), ready.stepper.placement
        plan, precision = ready.plan, ready.precision
        ready.stepper.close()
    del ready, take  # a second set of steps may need the memory
    gc.collect()
    named = _named(setup, recording, at, count) or recording
    report(Progress("profile", 4, 4, "parts"))
    found = _profile(setup, plan, precision, recording, named, plain, memory, at, command)
    return dataclasses.replace(found, advice=of_training(found, setup.recipe, placement)), recording


def _named(setup: Setup, recording: Recording, at: float, count: int) -> Recording | None:
    """On CUDA the same steps launched kernel by kernel, for those of a graph are known by no operation's name; None
    where there is nothing to name."""
    if not recording.separate or not setup.recipe.cuda_graphs:
        return None
    plain = recipes.override(setup.recipe, {"cuda_graphs": False})
    with setup.engine.steps(dataclasses.replace(setup.job, recipe=plain, report=lambda event: None)) as ready:
        take = Taking(ready, at)
        take.timed(WARM_UP)
        found = setup.engine.record(ready, take, count)
        ready.stepper.close()
    setup.notes.append(
        "The parts are those of steps as the recipe has them, launched as CUDA graphs. Kinds and operations are those "
        f"of the same steps launched kernel by kernel, which takes {1000 * found.seconds / count:.3g} ms a step."
    )
    return found


def _profile(
    setup: Setup,
    plan: Plan,
    precision: str,
    recording: Recording,
    named: Recording,
    plain: list[float],
    memory: int,
    at: float,
    command: str,
) -> Profile:
    whole, inner = split(recording), split(named)
    recipe, geometry = setup.recipe, setup.dataset.geometry
    middle = sorted(plain)[len(plain) // 2]
    notes = list(dict.fromkeys(setup.notes))
    if not recording.inside:
        notes.append(
            f"A step of the {setup.engine.name} engine is one compiled function: nothing looks inside it, and each was "
            "waited for. The engine torch tells its operations."
        )
    return Profile(
        kind="training",
        subject=setup.dataset.source,
        computed_by=setup.engine.name,
        device=setup.device.name,
        device_label=setup.device.label,
        precision=precision,
        images=plan.batch_size,
        pixels=low_res_size(recipe, at) or max(geometry.height, geometry.width),
        units=recording.steps,
        seconds=middle,
        seconds_lowest=min(plain),
        seconds_highest=max(plain),
        profiled=recording.seconds / recording.steps,
        memory_bytes=memory or None,
        parts=_parts(whole, recording),
        kinds=[Cost(n, s, s / max(inner.total, 1e-12)) for n, s in inner.kinds.items()],
        operations=_operations(named, inner),
        profiler=recording.profiler,
        hardware={**hardware.describe(), "device": setup.device.label},
        versions={"tenfold": tenfold.__version__, **hardware.versions("numpy"), **setup.engine.versions()},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        recipe={"name": recipe.name, "yaml": recipe.to_yaml(), "at": at},
        notes=notes,
        timeline=_first(recording, SHOWN_UNITS),
    )


def _parts(found: Split, recording: Recording) -> list[Part]:
    device = "device: kernels" if recording.separate else "device: computing"
    idle = "idle: the device and the host wait" if recording.separate else "idle: threads wait for each other"
    return [
        Part("data", DATA, found.data),
        Part("host", "host: Python, launching", found.host),
        Part("device", device, found.device),
        Part("idle", idle, found.idle),
    ]


def _operations(recording: Recording, inner: Split) -> list[Operation]:
    if not recording.inside:
        return []
    return [
        Operation(o.name, o.kind, o.seconds, o.seconds / max(inner.total, 1e-12), o.calls)
        for o in operations(recording)
    ]


def _first(recording: Recording, units: int) -> list[Any]:
    """The spans of the first ``units`` steps, times from the first's start."""
    steps = sorted((s for s in recording.spans if s.name == "step" and s.kind == "part"), key=lambda s: s.start)
    if not steps:
        return []
    start = steps[0].start
    end = steps[units].start if len(steps) > units else start + recording.seconds
    return [
        dataclasses.replace(s, start=s.start - start, end=min(s.end, end) - start)
        for s in recording.spans
        if s.start >= start and s.start < end
    ]
