"""All the steps of a run: how far it is, what it reports, when it stops.

The same for every engine; each takes a step in its own :class:`tenfold.engines.base.Stepper`.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Literal

import numpy as np

from tenfold.architecture.weights import count
from tenfold.engines.base import Checkpointed, EpochEnd, FitResult, Job, Started, State, Step, Stepper
from tenfold.engines.schedule import Plan
from tenfold.errors import TrainingError

Ended = Literal["finished", "patience", "time_limit", "interrupt"]

REPORT_SECONDS = 0.25


def fit(job: Job, stepper: Stepper, plan: Plan, precision: str) -> FitResult:
    """Trains; see :meth:`tenfold.engines.base.Engine.fit`. ``precision`` is fp32, fp16 or bf16, already resolved."""
    training = Training(job, stepper, plan, precision)
    if job.resume is not None:
        training.restore(job.resume)
    training.announce()
    training.agree(False)
    ended: Ended = "finished"
    while training.step < training.plan.steps:
        training.take_step()
        training.report_step()
        if training.step % training.plan.steps_per_epoch == 0 or training.step == training.plan.steps:
            training.end_epoch()
            if training.out_of_patience():
                ended = "patience"
                break
        stop = training.agree(job.stop() is not None)
        if training.share >= 1 and training.step < training.plan.steps:
            ended = "time_limit"
            break
        if stop:
            ended = "interrupt"
            break
        training.checkpoint_if_due()
    training.finish(ended)
    return training.result(ended)


class Training:
    """A run under way: where it stands, what it reports, and what it leaves to go on from."""

    def __init__(self, job: Job, stepper: Stepper, plan: Plan, precision: str) -> None:
        self.recipe = job.recipe
        self.job, self.stepper, self.plan, self.precision = job, stepper, plan, precision
        self.best: dict[str, np.ndarray] | None = None
        self.best_accuracy, self.best_epoch = -1.0, 0
        self.step, self.seconds = 0, 0.0
        self.history: list[EpochEnd] = []
        self.counted = 0
        self.rate = 0.0
        self.share = 0.0  # of the run that is behind, as all processes take it
        self._clock = time.perf_counter()
        self._saved = self._shown = self._clock
        self._shown_sums, self._shown_counted, self._shown_at = (0.0, 0.0), 0, self._clock

    # ---- one step --------------------------------------------------------------------------------------------

    def done(self) -> float:
        """The share of the run that is behind: of its steps, or of its time where that is further."""
        share = self.step / self.plan.steps
        if self.recipe.time_limit:
            share = max(share, self.now() / self.recipe.time_limit)
        return min(1.0, share)

    def agree(self, stop: bool) -> bool:
        """Brings ``share`` up to date; whether the run is to stop here, as this process or another wants it to."""
        self.share, stop = self.stepper.agree(self.done(), stop)
        return stop

    def now(self) -> float:
        """Seconds of training so far, over all parts of a resumed run."""
        return self.seconds + time.perf_counter() - self._clock

    def take_step(self) -> None:
        self.rate = self.stepper.take(self.step, self.share) * self.recipe.optimizer.lr
        self.step += 1
        self.counted += self.plan.batch_size

    # ---- between steps -----------------------------------------------------------------------------------------

    def announce(self) -> None:
        job, low = self.job, self.recipe.low_res
        self.stepper.announce()
        light = (round(low.until * self.plan.steps), (low.size / job.architecture.height) ** 2) if low else (0, 1.0)
        job.report(
            Started(
                self.plan.steps, self.plan.steps_per_epoch, self.step, count(job.architecture), job.device,
                self.precision, self.stepper.placement, *light,
            )
        )  # fmt: skip
        self._clock = self._saved = self._shown = self._shown_at = time.perf_counter()

    def report_step(self) -> None:
        now = time.perf_counter()
        if now - self._shown < REPORT_SECONDS:
            return
        loss, right = self._read_sums()
        now = time.perf_counter()
        images = self.counted - self._shown_counted
        epoch = self.step / self.plan.steps_per_epoch
        self.job.report(
            Step(
                self.step, epoch, (loss - self._shown_sums[0]) / images, (right - self._shown_sums[1]) / images,
                self.rate, images / (now - self._shown_at), self.stepper.memory_bytes(),
            )
        )  # fmt: skip
        self._shown = self._shown_at = now
        self._shown_sums, self._shown_counted = (loss, right), self.counted

    def _read_sums(self) -> tuple[float, float]:
        loss, right = self.stepper.sums()
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is no longer a number at step {self.step} of {self.plan.steps}.",
                "The last good checkpoint is kept. Try a lower rate (--set optimizer.lr=…), a warm-up "
                "(--set schedule.warmup=0.1) or --set precision=fp32.",
            )
        return loss, right

    def end_epoch(self) -> None:
        loss, right = self._read_sums()
        seconds = self.now()
        val_loss, val_accuracy = self._validate()
        counted = max(1, self.counted)
        epoch = math.ceil(self.step / self.plan.steps_per_epoch)
        spent = seconds - (self.history[-1].seconds if self.history else 0.0)
        event = EpochEnd(
            epoch, self.step, loss / counted, right / counted, val_loss, val_accuracy, self.rate,
            counted / max(spent, 1e-9), self.now(), self.stepper.memory_bytes(),
        )  # fmt: skip
        self.history.append(event)
        self.stepper.reset_sums()
        self.counted = 0
        self._shown_sums, self._shown_counted = (0.0, 0.0), 0
        self._shown_at = time.perf_counter()
        if val_accuracy is not None and val_accuracy > self.best_accuracy:
            self.best_accuracy, self.best_epoch = val_accuracy, epoch
            if self.recipe.patience:
                self.best = self.stepper.weights()
        self.job.report(event)
        self.checkpoint("epoch")

    def _validate(self) -> tuple[float | None, float | None]:
        val = self.job.dataset["val"]
        if not len(val):
            return None, None
        found = self.stepper.logits(val.images)
        shifted = found - found.max(1, keepdims=True)
        chosen = shifted[np.arange(len(found)), val.labels]
        loss = float((np.log(np.exp(shifted).sum(1)) - chosen).mean())
        return loss, float((found.argmax(1) == val.labels).mean())

    def out_of_patience(self) -> bool:
        patience = self.recipe.patience
        if patience is None or not self.history:
            return False
        return self.history[-1].epoch - self.best_epoch >= patience

    # ---- stopping and going on ------------------------------------------------------------------------------------

    def checkpoint_if_due(self) -> None:
        if time.perf_counter() - self._saved >= self.recipe.checkpoint.seconds:
            self.checkpoint("time")

    def checkpoint(self, reason: Literal["time", "epoch", "stop"]) -> None:
        if self.job.checkpoints is None:
            return
        self._read_sums()  # a state that is not a number is never kept
        self.job.checkpoints.save(self.state())
        self._saved = time.perf_counter()
        self.job.report(Checkpointed(self.step, reason))

    def state(self) -> State:
        state = self.stepper.state()
        if self.best is not None:
            state.arrays.update({f"best/{n}": a for n, a in self.best.items()})
        state.meta.update(
            step=self.step,
            seconds=self.now(),
            counted=self.counted,
            best_accuracy=self.best_accuracy,
            best_epoch=self.best_epoch,
            history=[asdict(e) for e in self.history],
            precision=self.precision,
        )
        return state

    def restore(self, state: State) -> None:
        self.stepper.restore(state)
        self.best = state.part("best") or None
        meta = state.meta
        self.step, self.seconds = meta["step"], meta["seconds"]
        self.counted = self._shown_counted = meta["counted"]
        self._shown_sums = self.stepper.sums()
        self.best_accuracy, self.best_epoch = meta["best_accuracy"], meta["best_epoch"]
        self.history = [EpochEnd(**e) for e in meta["history"]]

    def finish(self, ended: Ended) -> None:
        self.stepper.close()
        if ended == "interrupt":
            self.checkpoint("stop")
        elif ended == "time_limit" and self.counted:
            self.end_epoch()
        self.seconds, self._clock = self.now(), time.perf_counter()

    def result(self, ended: Ended) -> FitResult:
        weights = self.best if self.best is not None else self.stepper.weights()
        if not all(np.isfinite(w).all() for w in weights.values()):
            raise TrainingError(
                "The trained weights hold numbers that are not finite.",
                "Try a lower rate: --set optimizer.lr=…",
            )
        return FitResult(
            weights, ended, self.step / self.plan.steps_per_epoch, self.step, self.seconds,
            self.step * self.plan.batch_size, self.stepper.memory_bytes(), self.precision, self.history,
        )  # fmt: skip
