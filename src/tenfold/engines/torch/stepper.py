"""One step on the device: a module, its optimizers and batches, and all that changes with a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tenfold import hardware
from tenfold.architecture.weights import specs
from tenfold.engines import base, batches, groups
from tenfold.engines.base import Job, Notice, State
from tenfold.engines.parts import named
from tenfold.engines.schedule import Plan, forgotten, low_res_size
from tenfold.engines.torch import build, devices, graphs
from tenfold.engines.torch.augment import Batch
from tenfold.engines.torch.compiled import Compiled
from tenfold.engines.torch.crew import Crew
from tenfold.engines.torch.feed import Feed, Picked, resident
from tenfold.engines.torch.inference import logits
from tenfold.engines.torch.optimize import Optimizers
from tenfold.errors import TrainingError

if TYPE_CHECKING:
    from tenfold.engines.torch.data_parallel import DataParallel


class Stepper(base.Stepper):
    def __init__(self, job: Job, precision: str, plan: Plan) -> None:
        recipe = self.recipe = job.recipe
        self.job, self.precision, self.plan = job, precision, plan
        self.device = torch.device(job.device.name)
        devices.prepare(self.device)
        self.net = build.build(job.architecture)
        build.load_weights(self.net, job.architecture, job.weights)
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tensors = build.tensors(self.net, job.architecture)
        self.forward: Callable[[Tensor], Tensor] = Compiled(self.net) if recipe.compile else self.net
        self.optimizers = Optimizers(recipe, job.architecture, self.tensors, plan)
        self.parallel = _parallel(job, plan)
        share = self.parallel.share if self.parallel is not None else None
        self.parts = range(plan.parts) if share is None else share.parts
        self.crew: Crew | None = None
        if plan.parts > 1 and self.device.type == "cpu" and not recipe.compile:
            self.crew = Crew(self.net, job.architecture, len(self.parts))
        for norm in build.batch_norms(self.net):
            norm.groups = 1 if self.crew is not None else len(self.parts)
        if self.parallel is not None:
            self.parallel.attach(self.net, self.tensors, self.crew is not None)
        rows = None if share is None else share.rows
        self.feed = Feed(job.dataset["train"], plan, recipe.augment, recipe.seed, self.device, rows)
        self.placement = self.feed.placement
        self.val: Tensor | None = None  # its pixels on the device, once they have been asked for and have room there
        self.mean = torch.as_tensor(job.weights[_normalize_mean(job)], device=self.device) * 255
        self.class_weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            weights = batches.class_weights(job.dataset.counts("train"))
            self.class_weights = torch.from_numpy(weights).to(self.device)
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None
        self.average = {n: t.detach().clone() for n, t in self.tensors.items()} if recipe.ema else None
        self.forgotten = torch.zeros((), device=self.device)  # the share of the average that this step replaces
        on_cuda = self.device.type == "cuda"
        self.pace = graphs.Pace(torch.cuda.Event) if on_cuda else None
        captured = on_cuda and recipe.cuda_graphs and self.parallel is None
        self.graphs = graphs.StepGraphs(graphs.Cuda(self.device)) if captured else None
        self.step, self.pieces, self.size = 0, 1, low_res_size(recipe, 0.0)
        self.told_pieces = 1
        self.limited = self.device.type != "cpu"  # its memory can run out in a step
        self.frozen, self.resting = groups.frozen(recipe, plan), False
        self._sums = torch.zeros(2, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        self._sums = self._sums.to(self.device)

    def agree(self, done: float, stop: bool) -> tuple[float, bool]:
        return (done, stop) if self.parallel is None else self.parallel.agree(self.step, done, stop)

    def announce(self) -> None:
        if self.parallel is not None and self.device.type == "cuda" and self.recipe.cuda_graphs:
            self.job.report(Notice("Steps are launched kernel by kernel, not as a CUDA graph: processes wait in them."))
        if self.graphs is not None and self.scaler is not None:
            self.job.report(
                Notice(
                    "Steps are launched kernel by kernel, not as a CUDA graph: fp16's loss scale waits for the device."
                )
            )
            self.graphs = None

    def take(self, step: int, done: float) -> float:
        self.step = step
        with named("optimizer"):
            factor = self.optimizers.set_rate(done)
        self.size = low_res_size(self.recipe, done)
        self._rest(done < self.frozen)
        if self.recipe.ema is not None:
            self.forgotten.fill_(forgotten(self.recipe.ema, step))
        with named("data"):
            picked = self.feed.take(step)
        torch.manual_seed(self._seed())
        if not self._replayed(picked):
            self._compute(picked, self._within_memory)
        if self.scaler is None:
            self.optimizers.advance()
        if self.pace is not None:
            with named("wait"):
                self.pace.step()
        return factor

    def _seed(self) -> int:
        return batches.step_seed(self.recipe.seed, self.step)

    def _compute(self, picked: Picked, gradients: Callable[[Picked], tuple[Tensor, Tensor]]) -> None:
        """All that a step does on the device; nothing in it waits for the device or changes with the step's number."""
        loss, right = gradients(picked)
        if self.parallel is not None:
            with named("sum"):
                apart = self.parallel.forward(self.resting) is None
                own = [t.grad for t in self.optimizers.named.values() if t.grad is not None] if apart else []
                loss, right = self.parallel.add_up(loss, right, own, self.resting)
        with named("optimizer"):
            if self.scaler is not None:
                self.optimizers.step(self.scaler)
            else:
                self.optimizers.update()
            self.optimizers.zero_grad()
        self._sums += torch.stack((loss, right))
        with named("average"):
            self._average()

    def _replayed(self, picked: Picked) -> bool:
        """Whether the step was taken as a CUDA graph. See :mod:`tenfold.engines.torch.graphs`."""
        if self.graphs is None:
            return False
        key = (self.size, self.pieces, self.resting)
        try:
            done = self.graphs.take(key, picked, lambda static: self._compute(static, self.forward_backward))
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
        if self.parallel is not None:
            return self._within_all_memory(self.parallel, picked)
        while True:
            try:
                return self.forward_backward(picked)
            except torch.OutOfMemoryError:
                self._halve()
                torch.manual_seed(self._seed())

    def _within_all_memory(self, parallel: DataParallel, picked: Picked) -> tuple[Tensor, Tensor]:
        """None may wait for another that has to begin anew, so a step is tried by each alone first."""

        def own() -> int:
            while True:
                try:
                    self.forward_backward(picked)
                    return self.pieces
                except torch.OutOfMemoryError:
                    self._halve(tell=False)

        found = parallel.pieces((self.size, self.resting), own) if self.limited else None
        if found is not None:
            self.optimizers.zero_grad()
            torch.manual_seed(self._seed())
            self.pieces = found
            if found > self.told_pieces:
                self.told_pieces = found
                self._tell_pieces()
        try:
            return self.forward_backward(picked)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"{self.job.device.label} ran out of memory at step {self.step + 1}.",
                "Take a smaller batch_size, or more processes.",
            ) from None

    def forward_backward(self, picked: Picked) -> tuple[Tensor, Tensor]:
        """Gradients of one batch, in ``pieces`` where memory is short: (summed loss, images right) on the device. The
        caller has seeded PyTorch's generators for this step."""
        if self.crew is not None:
            return self._by_crew(self.crew, picked)
        build.train(self.net, self.resting)
        parallel, forward = self.parallel, self.forward
        batch = self._augmented(picked, None, None if parallel is None else parallel.share.rows)
        if parallel is not None:
            forward = parallel.forward(self.resting) or forward
            parallel.reseed(self._seed())
        usual = self._usual_weight(picked.labels)
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        pieces = _pieces(batch, self.pieces)
        for number, piece in enumerate(pieces, 1):
            with contextlib.nullcontext() if parallel is None else parallel.holding_back(number < len(pieces)):
                loss, found = self._backward(forward, piece, usual)
            loss_sum += loss
            right += found
        return loss_sum, right

    def _by_crew(self, crew: Crew, picked: Picked) -> tuple[Tensor, Tensor]:
        parts = picked.parts(self.plan.parts)[self.parts.start : self.parts.stop]
        rows = None if self.parallel is None else self.parallel.share.within

        def task(net: torch.nn.Module, part: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            batch = self._augmented(parts[part], rng, rows)
            return self._backward(net, batch, self._usual_weight(parts[part].labels))

        seed = self._seed()
        return crew.forward_backward(task, [batches.step_seed(seed, part) for part in self.parts])

    def _augmented(self, picked: Picked, rng: torch.Generator | None, rows: range | None) -> Batch:
        with named("augmentation"):
            return picked.batch(self.recipe.augment, self.mean, self.size, rng, rows)

    def _backward(self, net: Callable[[Tensor], Tensor], batch: Batch, usual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Adds the gradients of a part of the step's batch, by its share of the images. ``usual``: see
        :meth:`_usual_weight`."""
        with named("forward"), devices.autocast(self.device, self.precision):
            logits = net(batch.images).float()
        with named("loss"):
            loss = self._loss(logits, batch, usual)
            mean = loss * (len(batch.labels) / self.plan.batch_size)
        with named("backward"):
            (self.scaler.scale(mean) if self.scaler else mean).backward()
        return loss.detach() * len(batch.labels), (logits.detach().argmax(1) == batch.labels).sum()

    def _usual_weight(self, labels: Tensor) -> Tensor | None:
        """The mean class weight of images of which each process or piece computes a few: PyTorch's loss is divided by
        the weights of those few. None where that is nothing to correct."""
        if self.class_weights is None or (self.parallel is None and self.pieces == 1):
            return None
        return self.class_weights[labels].mean()

    def _loss(self, logits: Tensor, batch: Batch, usual: Tensor | None) -> Tensor:
        def loss(labels: Tensor) -> Tensor:
            mean = F.cross_entropy(logits, labels, self.class_weights, label_smoothing=self.recipe.label_smoothing)
            if usual is None or self.class_weights is None:
                return mean
            return mean * (self.class_weights[labels].mean() / usual)

        if batch.other is None:
            return loss(batch.labels)
        return loss(batch.labels) * batch.share + loss(batch.other) * (1 - batch.share)

    def _rest(self, resting: bool) -> None:
        """While all but the last layer rests, no gradients are computed for it."""
        if resting == self.resting:
            return
        self.resting = resting
        nets: list[torch.nn.Module] = [self.net]
        if self.crew is not None:
            self.crew.resting, nets = resting, self.crew.nets
        for net in nets:
            found = build.tensors(net, self.job.architecture)
            for name in groups.body(self.job.architecture):
                found[name].requires_grad_(not resting)

    def _halve(self, tell: bool = True) -> None:
        """Memory ran out: the step is taken again in twice as many pieces, their gradients added up."""
        self.optimizers.zero_grad()
        self.pieces *= 2
        if self._rows() < self.pieces:
            raise TrainingError(
                f"{self.job.device.label} has too little memory for this network, even one image at a time.",
                "Try a smaller data.size or narrower model.widths.",
            )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tell:
            self._tell_pieces()

    def _tell_pieces(self) -> None:
        rows = self._rows()
        self.job.report(
            Notice(
                f"Out of memory: the batch of {rows} is now computed as {self.pieces} parts of {rows // self.pieces}, "
                "with the gradients added up."
            )
        )

    def _rows(self) -> int:
        """Images that every process has at least."""
        return self.plan.batch_size // self.job.peers.size

    @torch.no_grad()
    def _average(self) -> None:
        if self.average is None:
            return
        average = list(self.average.values())
        change = torch._foreach_sub(list(self.tensors.values()), average)
        torch._foreach_mul_(change, self.forgotten)
        torch._foreach_add_(average, change)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
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

    def sums(self) -> tuple[float, float]:
        loss, right = self._sums.tolist()
        return loss, right

    def reset_sums(self) -> None:
        self._sums.zero_()

    def logits(self, images: np.ndarray) -> np.ndarray:
        def answer(own: np.ndarray) -> np.ndarray:
            if self.val is None:
                self.val = resident(own, self.device)
            return logits(self.net, own if self.val is None else self.val, self.device, 1000, self.precision)

        with self.averaged():
            return answer(images) if self.parallel is None else self.parallel.answers(images, answer)

    def memory_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return hardware.peak_memory_bytes()

    def weights(self) -> dict[str, np.ndarray]:
        source = self.tensors if self.average is None else self.average
        return {name: build.to_numpy(source[name]) for name in specs(self.job.architecture)}

    def state(self) -> State:
        arrays = {f"weight/{n}": build.to_numpy(t) for n, t in self.tensors.items()}
        arrays |= {f"optimizer/{n}": a for n, a in self.optimizers.arrays().items()}
        if self.average is not None:
            arrays |= {f"average/{n}": build.to_numpy(t) for n, t in self.average.items()}
        scaler = self.scaler.state_dict() if self.scaler else None
        return State(arrays, {"pieces": self.pieces, "sums": self.sums(), "scaler": scaler})

    @torch.no_grad()
    def restore(self, state: State) -> None:
        build.load_weights(self.net, self.job.architecture, state.part("weight"))
        self.optimizers.restore(state.part("optimizer"))
        if self.average is not None:
            for name, array in state.part("average").items():
                self.average[name].copy_(torch.from_numpy(np.array(array)))
        self.pieces = self.told_pieces = min(state.meta["pieces"], self._rows())
        self._sums.copy_(torch.tensor(state.meta["sums"], dtype=self._sums.dtype))
        if self.scaler is not None and state.meta["scaler"]:
            self.scaler.load_state_dict(state.meta["scaler"])

    def close(self) -> None:
        if self.crew is not None:
            self.crew.close()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _parallel(job: Job, plan: Plan) -> DataParallel | None:
    if job.peers.size == 1:
        return None
    from tenfold.engines.torch import data_parallel  # builds of PyTorch without torch.distributed can't

    return data_parallel.DataParallel(job, plan)


def _pieces(batch: Batch, pieces: int) -> list[Batch]:
    if pieces == 1:
        return [batch]
    images, labels = batch.images.tensor_split(pieces), batch.labels.tensor_split(pieces)
    others = batch.other.tensor_split(pieces) if batch.other is not None else [None] * len(images)
    return [Batch(*piece, batch.share) for piece in zip(images, labels, others, strict=True)]


def _normalize_mean(job: Job) -> str:
    return next(iter(specs(job.architecture)))
