"""The process in which an engine's training steps are timed: ``python -m tenfold.benchmarking.training_worker JOB``.

JOB is a JSON file (:class:`Job`). What was measured is written whole after every batch size, so that a process which
memory runs out for leaves what it had.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import energy, hardware, paths
from tenfold.errors import MissingExtraError, TenfoldError, UnknownNameError, UnsupportedError

SMALLEST, LARGEST = 32, 65536  # of a sweep that is asked for no sizes
WARM_UP = 4  # steps: on CUDA the first are taken before a graph is captured
LEAST, MOST = 5, 5000  # steps of a batch size
GAIN = 1.03  # a size that is not faster than the best by this ends the sweep, where the one before was not either
MEMORY_SHARE = 0.8  # of the machine's: a size that would need more is not tried on a CPU
SIGNS = ("out of memory", "too little memory", "can't allocate", "not enough memory", "bad_alloc", "resource_exhausted")


@dataclass(frozen=True)
class Job:
    """What to measure.

    data, recipe, engine, device, precision   as for ``tenfold.train``; ``recipe`` is the YAML file's path
    batch_sizes   to measure; a sweep where there are none: from 32 on twice as many, until that is no faster or memory
                  ends
    seconds       of measuring for each batch size
    limit         seconds after which no batch size is begun
    started       ``time.time()`` when the process was begun
    list_devices  only tell the engine's devices and their precisions
    """

    data: str
    recipe: str
    engine: str
    device: str
    precision: str
    batch_sizes: list[int]
    seconds: float
    limit: float
    started: float
    outcome: str
    list_devices: bool = False


@dataclass
class Outcome:
    """What came of a job, as in ``records.Trial``. ``state``: running, done, refused or failed. ``devices``: name →
    [label, precisions …]. ``subject``: the fields of a ``records.Subject``. ``trying``: the batch size under way."""

    state: str = "running"
    why: str | None = None
    ran_on: str | None = None
    device_label: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    by_batch: dict[str, dict[str, float]] = field(default_factory=dict)
    devices: dict[str, list[str]] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    trying: int | None = None


def main() -> None:
    job = Job(**json.loads(Path(sys.argv[1]).read_bytes()))
    outcome = Outcome()

    def write() -> None:
        paths.write_whole(Path(job.outcome), json.dumps(asdict(outcome)))

    try:
        if job.list_devices:
            _tell_devices(job, outcome)
        else:
            _Sweep(job, outcome, write).run()
        outcome.state = "done"
    except (UnsupportedError, MissingExtraError, UnknownNameError) as error:
        outcome.state, outcome.why = "refused", str(error)
    except TenfoldError as error:
        outcome.state, outcome.why = "failed", str(error)
    except Exception as error:  # whatever a framework throws becomes a line of the table
        from tenfold.runtimes.batches import first_line

        outcome.state, outcome.why = "failed", f"{type(error).__name__}: {first_line(error)}"
    write()
    sys.stderr.flush()
    os._exit(0)  # the figures stand; a framework that stumbles while it is taken apart changes nothing


def _tell_devices(job: Job, outcome: Outcome) -> None:
    from tenfold.engines import base

    engine = base.load(job.engine)
    outcome.devices = {d.name: [d.label, *engine.precisions(d)] for d in engine.devices()}
    outcome.versions = engine.versions()


class _Sweep:
    """The batch sizes one after another, each with weights, optimizer and feed of its own."""

    def __init__(self, job: Job, outcome: Outcome, write: Callable[[], None]) -> None:
        self.job, self.outcome, self.write = job, outcome, write
        self.begun = time.monotonic()
        self.dataset: Any = None

    def run(self) -> None:
        for size in self.job.batch_sizes or _doubling():
            if (why := self._end(size)) is not None:
                self.outcome.notes.append(why)
                return
            self.outcome.trying = size
            self.write()
            try:
                self.outcome.by_batch[str(size)] = self._measure(size)
            except Exception as error:
                if not out_of_memory(error) or (not self.outcome.by_batch and size == SMALLEST):
                    raise
                self.outcome.notes.append(f"A batch of {size} does not fit the memory.")
                return
            finally:
                self.outcome.trying = None
                gc.collect()  # the next size may need the memory
            self.write()

    def _end(self, size: int) -> str | None:
        """Why no larger batch is measured, where none is."""
        found = {int(n): figures for n, figures in self.outcome.by_batch.items()}
        if self.dataset is not None and size > len(self.dataset["train"]):
            return f"Larger batches than {max(found)} were not tried: there are {len(self.dataset['train']):,} images."
        if found and time.monotonic() - self.begun > self.job.limit:
            return f"Larger batches than {max(found)} were not tried: {self.job.limit:g} s were over."
        if self.job.batch_sizes or not found:
            return None
        memory, most = hardware.memory_bytes(), found[max(found)].get("memory_bytes", 0.0)
        grown = most - found[min(found)].get("memory_bytes", 0.0)
        if self.outcome.ran_on == "cpu" and memory and most + 2 * grown > MEMORY_SHARE * memory:
            return f"A batch of {size} was not tried: it would need most of the machine's memory."
        return None if rising([found[n]["images_per_second"] for n in sorted(found)]) else ""

    def _measure(self, size: int) -> dict[str, float]:
        from tenfold.profiling.training import Taking

        setup = self._setup(size)
        told: list[str] = []
        job = _listening(setup.job, told)
        with setup.engine.steps(job) as ready:
            take = Taking(ready, 0.0)
            take.timed(1)
            if not self.outcome.by_batch:
                self.outcome.figures["first_step_seconds"] = time.time() - self.job.started
            take.timed(WARM_UP)
            if any(out_of_memory(message) for message in told):
                raise MemoryError("out of memory: the engine computes the batch in parts")
            found = self._timed(take, size, setup.device.name)
            memory = ready.stepper.memory_bytes()
            ready.stepper.close()
        found["memory_bytes"] = float(hardware.peak_memory_bytes())
        if setup.device.name != "cpu" and memory:
            found["device_memory_bytes"] = float(memory)
        found["epoch_seconds"] = len(setup.dataset["train"]) / found["images_per_second"]
        return found

    def _timed(self, take: Any, size: int, device: str) -> dict[str, float]:
        """Steps one after another, and steps each waited for. On a CPU a step ends when it was computed, so the second
        is enough."""
        meter = energy.meter()
        before = meter() if meter else {}, energy.packages()
        begun = time.perf_counter()
        each = [take.timed(1)]
        while len(each) < MOST and (len(each) < LEAST or time.perf_counter() - begun < self.job.seconds):
            each.append(take.timed(1))
        rate, images = size * len(each) / sum(each), size * len(each)
        if device != "cpu":
            count = max(LEAST, min(MOST, round(self.job.seconds / (sum(each) / len(each)))))
            rate, images = size * count / take.timed(count), images + size * count
        after = meter() if meter else {}, energy.packages()
        found = {"images_per_second": rate}
        for p, value in zip((50, 90, 99), 1000 * np.percentile(each, [50, 90, 99]), strict=True):
            found[f"step_p{p}_ms"] = float(value)
        used = (
            energy.packages_wh(before[1], after[1]) if device == "cpu" else energy.used_wh(before[0], after[0], device)
        )
        if used is not None:
            found["energy_wh"] = 1e6 * used / images
        return found

    def _setup(self, size: int) -> Any:
        from tenfold.profiling.training import endless, prepared

        def changes(recipe: Any) -> dict[str, Any]:
            lower = min(1.0, size / recipe.batch_size)  # noisier gradients, smaller steps: no loss may run away
            rates = {f"optimizer.{n}": getattr(recipe.optimizer, n) for n in ("lr", "bias_lr", "head_lr")}
            rates = {name: value * lower for name, value in rates.items() if value is not None}
            return {**endless(recipe), **rates, "batch_size": size, "low_res": None}

        job = self.job
        setup = prepared(
            self.dataset or job.data, job.recipe, job.engine, job.device, {"precision": job.precision}, changes=changes
        )
        self.dataset = setup.dataset
        if not self.outcome.subject:
            self._tell(setup)
        return setup

    def _tell(self, setup: Any) -> None:
        from tenfold.architecture import weights

        outcome = self.outcome
        outcome.ran_on, outcome.device_label = setup.device.name, setup.device.label
        outcome.versions = {**hardware.versions("numpy"), **setup.engine.versions()}
        geometry = setup.dataset.geometry
        own = Path(self.job.recipe).read_text(encoding="utf-8")
        digest = hashlib.sha256(f"{own}\n{setup.dataset.fingerprint}".encode()).hexdigest()
        outcome.subject = {
            "name": setup.recipe.name,
            "architecture": setup.job.architecture.name,
            "digest": digest,
            "data": setup.dataset.source,
            "image": f"{geometry.width}×{geometry.height}",
            "parameters": weights.count(setup.job.architecture),
        }


def _doubling() -> list[int]:
    sizes = [SMALLEST]
    while sizes[-1] < LARGEST:
        sizes.append(2 * sizes[-1])
    return sizes


def rising(rates: list[float]) -> bool:
    """Whether a batch twice as large may be faster still: of the last two sizes one was faster than all before it."""
    if len(rates) < 3:
        return True
    return max(rates[-2:]) > GAIN * max(rates[:-2])


def out_of_memory(error: object) -> bool:
    """Whether an error, or a message, says that memory ran out."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in SIGNS)


def _listening(job: Any, told: list[str]) -> Any:
    import dataclasses

    from tenfold.engines.base import Notice

    def report(event: Any) -> None:
        if isinstance(event, Notice):
            told.append(event.message)

    return dataclasses.replace(job, report=report)


if __name__ == "__main__":
    main()
