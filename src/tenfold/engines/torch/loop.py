"""How PyTorch takes a step, and all the steps of a run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold import hardware
from tenfold.architecture.weights import count, specs
from tenfold.engines.base import Checkpointed, EpochEnd, FitResult, Job, Notice, Started, State, Step
from tenfold.engines.schedule import plan
from tenfold.engines.torch import build, devices, graphs
from tenfold.engines.torch.augment import Batch, augment
from tenfold.engines.torch.compiled import Compiled
from tenfold.engines.torch.crew import Crew
from tenfold.engines.torch.feed import Feed, Picked, resident
from tenfold.engines.torch.inference import logits
from tenfold.engines.torch.optimize import Optimizers
from tenfold.errors import TrainingError

Ended = Literal["finished", "patience", "time_limit", "interrupt"]

REPORT_SECONDS = 0.25


@contextlib.contextmanager
def _without_subnormals() -> Iterator[None]:
    """Numbers below 1e-38 are taken as 0, which is many times faster; a setting of the thread, so it is put back."""
    before = not bool((torch.tensor([1e-310], dtype=torch.float64) * 1).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@_without_subnormals()
def fit(job: Job, precision: str) -> FitResult:
    """Trains; see :meth:`tenfold.engines.base.Engine.fit`. ``precision`` is fp32, fp16 or bf16, already resolved."""
    with devices.own_stream(torch.device(job.device.name)):
        return _fit(job, precision)


def _fit(job: Job, precision: str) -> FitResult:
    training = Training(job, precision)
    if job.resume is not None:
        training.restore(job.resume)
    training.announce()
    ended: Ended = "finished"
    while training.step < training.plan.steps:
        training.take_step()
        training.report_step()
        if training.step % training.plan.steps_per_epoch == 0 or training.step == training.plan.steps:
            training.end_epoch()
            if training.out_of_patience():
                ended = "patience"
                break
        if training.done() >= 1 and training.step < training.plan.steps:
            ended = "time_limit"
            break
        if job.stop() is not None:
            ended = "interrupt"
            break
        training.checkpoint_if_due()
    training.finish(ended)
    return training.result(ended)


class Training:
    """A run under way: the module, its optimizers, its batches, and where it stands."""

    def __init__(self, job: Job, precision: str) -> None:
        recipe = self.recipe = job.recipe
        self.job, self.precision = job, precision
        self.device = torch.device(job.device.name)
        devices.prepare(self.device)
        train = job.dataset["train"]
        self.plan = plan(recipe, len(train))
        self.net = build.build(job.architecture)
        build.load_weights(self.net, job.architecture, job.weights)
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tensors = build.tensors(self.net, job.architecture)
        self.forward: Callable[[Tensor], Tensor] = Compiled(self.net) if recipe.compile else self.net
        self.optimizers = Optimizers(recipe, job.architecture, self.tensors, self.plan)
        self.crew: Crew | None = None
        if self.plan.parts > 1 and self.device.type == "cpu" and not recipe.compile:
            self.crew = Crew(self.net, job.architecture, self.plan.parts)
        for norm in build.batch_norms(self.net):
            norm.groups = 1 if self.crew is not None else self.plan.parts
        self.feed = Feed(train, self.plan, recipe.augment, recipe.seed, self.device)
        self.val: Tensor | None = None  # its pixels on the device, once they have been asked for and have room there
        self.mean = torch.as_tensor(job.weights[_normalize_mean(job)], device=self.device) * 255
        self.class_weights = _class_weights(job).to(self.device) if recipe.class_weights == "balanced" else None
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None
        self.average = {n: t.detach().clone() for n, t in self.tensors.items()} if recipe.ema else None
        self.forgotten = torch.zeros((), device=self.device)  # the share of the average that this step replaces
        on_cuda = self.device.type == "cuda"
        self.pace = graphs.Pace(torch.cuda.Event) if on_cuda else None
        self.graphs = graphs.StepGraphs(graphs.Cuda(self.device)) if on_cuda and recipe.cuda_graphs else None
        self.best: dict[str, np.ndarray] | None = None
        self.best_accuracy, self.best_epoch = -1.0, 0
        self.step, self.pieces, self.seconds = 0, 1, 0.0
        self.size = self._size(0.0)
        self.history: list[EpochEnd] = []
        self.sums = torch.zeros(2, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        self.sums = self.sums.to(self.device)
        self.counted = 0
        self.rate = 0.0
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

    def now(self) -> float:
        """Seconds of training so far, over all parts of a resumed run."""
        return self.seconds + time.perf_counter() - self._clock

    def take_step(self) -> None:
        done = self.done()
        self.rate = self.optimizers.set_rate(done) * self.recipe.optimizer.lr
        self.size = self._size(done)
        if self.recipe.ema is not None:  # the first steps are soon forgotten
            self.forgotten.fill_(1 - min(self.recipe.ema, (2 + self.step) / (11 + self.step)))
        picked = self.feed.take(self.step)
        torch.manual_seed(self._seed())
        if not self._replayed(picked):
            self._compute(picked, self._within_memory)
        if self.scaler is None:
            self.optimizers.advance()
        self.step += 1
        self.counted += self.plan.batch_size
        if self.pace is not None:
            self.pace.step()

    def _seed(self) -> int:
        return _step_seed(self.recipe.seed, self.step)

    def _compute(self, picked: Picked, gradients: Callable[[Picked], tuple[Tensor, Tensor]]) -> None:
        """All that a step does on the device; nothing in it waits for the device or changes with the step's number."""
        loss, right = gradients(picked)
        if self.scaler is not None:
            self.optimizers.step(self.scaler)
        else:
            self.optimizers.update()
        self.optimizers.zero_grad()
        self.sums += torch.stack((loss, right))
        self._average()

    def _replayed(self, picked: Picked) -> bool:
        """Whether the step was taken as a CUDA graph. See :mod:`tenfold.engines.torch.graphs`."""
        if self.graphs is None:
            return False
        key = (self.size, self.pieces)
        try:
            done = self.graphs.take(key, picked, lambda static: self._compute(static, self._forward_backward))
        except torch.OutOfMemoryError:  # nothing has been computed: the step is taken in smaller pieces
            done = False
            self._halve()
        if self.graphs.broken is not None:
            self.job.report(Notice(f"Steps are launched kernel by kernel, not as a CUDA graph: {self.graphs.broken}"))
            self.graphs = None
        if not done:
            self.optimizers.zero_grad()
            torch.manual_seed(self._seed())
        return done

    def _within_memory(self, picked: Picked) -> tuple[Tensor, Tensor]:
        while True:
            try:
                return self._forward_backward(picked)
            except torch.OutOfMemoryError:
                self._halve()
                torch.manual_seed(self._seed())

    def _forward_backward(self, picked: Picked) -> tuple[Tensor, Tensor]:
        """Gradients of one batch, in ``pieces`` where memory is short: (summed loss, images right) on the device. The
        caller has seeded PyTorch's generators for this step."""
        if self.crew is not None:
            return self._by_crew(self.crew, picked)
        self.net.train()
        images = picked.gather(self.recipe.augment)
        batch = augment(images, picked.labels, self.recipe.augment, self.mean, self.size)
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        for piece in _pieces(batch, self.pieces):
            loss, found = self._backward(self.forward, piece)
            loss_sum += loss
            right += found
        return loss_sum, right

    def _by_crew(self, crew: Crew, picked: Picked) -> tuple[Tensor, Tensor]:
        size, settings = self.size, self.recipe.augment
        parts = picked.parts(self.plan.parts)

        def task(net: torch.nn.Module, part: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            mine = parts[part]
            return self._backward(net, augment(mine.gather(settings, rng), mine.labels, settings, self.mean, size, rng))

        seed = self._seed()
        return crew.forward_backward(task, [_step_seed(seed, part) for part in range(len(parts))])

    def _backward(self, net: Callable[[Tensor], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Adds the gradients of a part of the step's batch, by its share of the images."""
        with devices.autocast(self.device, self.precision):
            logits = net(batch.images).float()
        loss = self._loss(logits, batch)
        mean = loss * (len(batch.labels) / self.plan.batch_size)
        (self.scaler.scale(mean) if self.scaler else mean).backward()
        return loss.detach() * len(batch.labels), (logits.detach().argmax(1) == batch.labels).sum()

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        def loss(labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, self.class_weights, label_smoothing=self.recipe.label_smoothing)

        if batch.other is None:
            return loss(batch.labels)
        return loss(batch.labels) * batch.share + loss(batch.other) * (1 - batch.share)

    def _size(self, done: float) -> int | None:
        """The pictures' longer side in pixels when ``done`` of the run is behind, None for their own."""
        low = self.recipe.low_res
        return low.size if low is not None and done < low.until else None

    def _halve(self) -> None:
        """Memory ran out: the step is taken again in twice as many pieces, their gradients added up."""
        self.optimizers.zero_grad()
        self.pieces *= 2
        part = self.plan.batch_size // self.pieces
        if part < 1:
            raise TrainingError(
                f"{self.job.device.label} has too little memory for this network, even one image at a time.",
                "Try a smaller data.size or narrower model.widths.",
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.job.report(
            Notice(
                f"Out of memory: the batch of {self.plan.batch_size} is now computed as {self.pieces} parts of {part}, "
                "with the gradients added up."
            )
        )

    @torch.no_grad()
    def _average(self) -> None:
        if self.average is None:
            return
        average = list(self.average.values())
        change = torch._foreach_sub(list(self.tensors.values()), average)
        torch._foreach_mul_(change, self.forgotten)
        torch._foreach_add_(average, change)

    # ---- between steps -----------------------------------------------------------------------------------------

    def announce(self) -> None:
        job, low = self.job, self.recipe.low_res
        if self.graphs is not None and self.scaler is not None:
            job.report(
                Notice(
                    "Steps are launched kernel by kernel, not as a CUDA graph: fp16's loss scale waits for the device."
                )
            )
            self.graphs = None
        light = (round(low.until * self.plan.steps), (low.size / job.architecture.height) ** 2) if low else (0, 1.0)
        job.report(
            Started(
                self.plan.steps, self.plan.steps_per_epoch, self.step, count(job.architecture), job.device,
                self.precision, self.feed.placement, *light,
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
                self.rate, images / (now - self._shown_at), self.memory(),
            )
        )  # fmt: skip
        self._shown = self._shown_at = now
        self._shown_sums, self._shown_counted = (loss, right), self.counted

    def _read_sums(self) -> tuple[float, float]:
        loss, right = self.sums.tolist()
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
            counted / max(spent, 1e-9), self.now(), self.memory(),
        )  # fmt: skip
        self.history.append(event)
        self.sums.zero_()
        self.counted = 0
        self._shown_sums, self._shown_counted = (0.0, 0.0), 0
        self._shown_at = time.perf_counter()
        if val_accuracy is not None and val_accuracy > self.best_accuracy:
            self.best_accuracy, self.best_epoch = val_accuracy, epoch
            if self.recipe.patience:
                self.best = self.kept_weights()
        self.job.report(event)
        self.checkpoint("epoch")

    def _validate(self) -> tuple[float | None, float | None]:
        val = self.job.dataset["val"]
        if not len(val):
            return None, None
        with self._averaged():
            if self.val is None:
                self.val = resident(val.images, self.device)
            found = logits(self.net, val.images if self.val is None else self.val, self.device, 1000, self.precision)
        shifted = found - found.max(1, keepdims=True)
        chosen = shifted[np.arange(len(found)), val.labels]
        loss = float((np.log(np.exp(shifted).sum(1)) - chosen).mean())
        return loss, float((found.argmax(1) == val.labels).mean())

    @contextlib.contextmanager
    def _averaged(self) -> Any:
        """The moving average in the module's place, for as long as the block runs."""
        if self.average is None:
            yield
            return
        own = {n: t.detach().clone() for n, t in self.tensors.items()}
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(self.average[name])
        yield
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(own[name])

    def out_of_patience(self) -> bool:
        patience = self.recipe.patience
        if patience is None or not self.history:
            return False
        return self.history[-1].epoch - self.best_epoch >= patience

    def memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return hardware.peak_memory_bytes()

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
        arrays = {f"weight/{n}": build.to_numpy(t) for n, t in self.tensors.items()}
        arrays |= {f"optimizer/{n}": a for n, a in self.optimizers.arrays().items()}
        if self.average is not None:
            arrays |= {f"average/{n}": build.to_numpy(t) for n, t in self.average.items()}
        if self.best is not None:
            arrays |= {f"best/{n}": a for n, a in self.best.items()}
        meta = {
            "step": self.step,
            "seconds": self.now(),
            "pieces": self.pieces,
            "sums": self.sums.tolist(),
            "counted": self.counted,
            "best_accuracy": self.best_accuracy,
            "best_epoch": self.best_epoch,
            "history": [asdict(e) for e in self.history],
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "precision": self.precision,
        }
        return State(arrays, meta)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        def part(kind: str) -> dict[str, np.ndarray]:
            return {n.partition("/")[2]: a for n, a in state.arrays.items() if n.startswith(kind + "/")}

        build.load_weights(self.net, self.job.architecture, part("weight"))
        self.optimizers.restore(part("optimizer"))
        if self.average is not None:
            for name, array in part("average").items():
                self.average[name].copy_(torch.from_numpy(np.array(array)))
        self.best = part("best") or None
        meta = state.meta
        self.step, self.seconds, self.pieces = meta["step"], meta["seconds"], meta["pieces"]
        self.sums.copy_(torch.tensor(meta["sums"], dtype=self.sums.dtype))
        self.counted = self._shown_counted = meta["counted"]
        self._shown_sums = tuple(meta["sums"])
        self.best_accuracy, self.best_epoch = meta["best_accuracy"], meta["best_epoch"]
        self.history = [EpochEnd(**e) for e in meta["history"]]
        if self.scaler is not None and meta["scaler"]:
            self.scaler.load_state_dict(meta["scaler"])

    def finish(self, ended: Ended) -> None:
        if self.crew is not None:
            self.crew.close()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if ended == "interrupt":
            self.checkpoint("stop")
        elif ended == "time_limit" and self.counted:
            self.end_epoch()
        self.seconds, self._clock = self.now(), time.perf_counter()

    def kept_weights(self) -> dict[str, np.ndarray]:
        """The weights a user gets now: the moving average where there is one."""
        source = self.tensors if self.average is None else self.average
        return {name: build.to_numpy(source[name]) for name in specs(self.job.architecture)}

    def result(self, ended: Ended) -> FitResult:
        weights = self.best if self.best is not None else self.kept_weights()
        if not all(np.isfinite(w).all() for w in weights.values()):
            raise TrainingError(
                "The trained weights hold numbers that are not finite.",
                "Try a lower rate: --set optimizer.lr=…",
            )
        return FitResult(
            weights, ended, self.step / self.plan.steps_per_epoch, self.step, self.seconds,
            self.step * self.plan.batch_size, self.memory(), self.precision, self.history,
        )  # fmt: skip


def _pieces(batch: Batch, pieces: int) -> list[Batch]:
    if pieces == 1:
        return [batch]
    images, labels = batch.images.chunk(pieces), batch.labels.chunk(pieces)
    others = batch.other.chunk(pieces) if batch.other is not None else [None] * len(images)
    return [Batch(*piece, batch.share) for piece in zip(images, labels, others, strict=True)]


def _step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for one step: splitmix64 of (seed, step)."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + (step + 1) * 0xD1B54A32D192ED03) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1


def _normalize_mean(job: Job) -> str:
    return next(iter(specs(job.architecture)))


def _class_weights(job: Job) -> Tensor:
    """Loss weights by class, N / (classes · count), as scikit-learn's ``balanced``; 0 for a class without images."""
    counts = job.dataset.counts("train")
    weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0)
    return torch.tensor(weights, dtype=torch.float32)
