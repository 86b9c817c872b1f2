"""One step on the device: weights, the optimizer's state and all that changes with a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, TinyJit, dtypes

from tenfold.architecture.weights import specs
from tenfold.engines import base, batches
from tenfold.engines.base import Job, Notice, State
from tenfold.engines.parts import named
from tenfold.engines.schedule import Plan, factor, forgotten, low_res_size
from tenfold.engines.tinygrad import build, devices
from tenfold.engines.tinygrad.augment import augment
from tenfold.engines.tinygrad.feed import Feed
from tenfold.engines.tinygrad.inference import logits
from tenfold.engines.tinygrad.optimize import Optimizer
from tenfold.errors import TrainingError

# Steps sent to a card before it is waited for: what is sent lies in memory until then, and a time limit counts seconds
AHEAD = 4


class Stepper(base.Stepper):
    """Every step of one picture size is the same compiled function; what changes with its number comes in as tensors.

    All state is read and written in place: ``weights``, the optimizer's buffers, ``average`` and ``_sums``.
    """

    placement = "stream"

    def __init__(self, job: Job, plan: Plan) -> None:
        recipe = self.recipe = job.recipe
        self.job, self.plan, self.where = job, plan, devices.place(job.device)
        self.tensors = {name: self._sent(job.weights[name]) for name in specs(job.architecture)}
        self.optimizer = Optimizer(recipe, job.architecture, plan, self.tensors)
        self.average = {n: self._sent(job.weights[n]) for n in self.tensors} if recipe.ema else None
        mean = next(iter(specs(job.architecture)))
        self.mean = self._sent(job.weights[mean] * np.float32(255))
        self.feed = Feed(job.dataset["train"], plan, recipe, job.architecture.classes)
        self._sums = self._sent(np.zeros(2, np.float32))
        self._steps: dict[int | None, Callable[..., Any]] = {}
        self._most = 0

    def _sent(self, array: np.ndarray) -> Tensor:
        """A realized tensor of its own on the device."""
        return Tensor(np.array(array, copy=True), device=self.where).realize()

    # ---- one step ----------------------------------------------------------------------------------------------------

    def take(self, step: int, done: float) -> float:
        size = low_res_size(self.recipe, done)
        if size not in self._steps:
            self._steps[size] = self._compiled(size)
            self.job.report(Notice("Compiling a step, which takes longer than computing it."))
        with named("data"):
            arrays = self.feed.take(step)
        seed = batches.step_seed(self.recipe.seed, step)
        share = forgotten(self.recipe.ema, step) if self.recipe.ema else 0.0
        arrays["now"] = np.array([share, *self.optimizer.scalars(done, step)], np.float32)
        arrays["seed"] = np.array([seed & 0xFFFFFFFF], np.uint32)
        try:
            with named("send"):
                names, inputs = list(arrays), [Tensor(a, device=self.where) for a in arrays.values()]
                Tensor.realize(*inputs)
            with named("compute"):
                self._steps[size](dict(zip(names, inputs, strict=True)))
        except (RuntimeError, MemoryError) as error:
            raise self._explained(error) from error
        if devices.on_processor(self.job.device) or step % AHEAD == 0:
            with named("compute"):
                Device[self.where].synchronize()
        return factor(self.recipe.schedule, done)

    def _compiled(self, size: int | None) -> Callable[..., Any]:
        jit = TinyJit(lambda inputs: self._step(inputs, size))
        jit.cnt = 1  # the first call is captured already: all state is there
        return jit

    def _step(self, inputs: Mapping[str, Tensor], size: int | None) -> Tensor:
        training = build.Training(self.plan.parts, inputs["seed"])
        images = augment(inputs, self.recipe.augment, self.mean, size)
        answers = build.forward(self.job.architecture.layers, self.tensors, images, training)
        loss = -(answers.log_softmax(1) * inputs["targets"]).sum()
        trained = self.optimizer.trained
        gradients = dict(zip(trained, loss.gradient(*(self.tensors[n] for n in trained)), strict=True))
        now = inputs["now"]
        after, buffers = self.optimizer.update(self.tensors, gradients, now[1:])
        after |= training.statistics
        changed = [self.optimizer.buffers[n].assign(tensor) for n, tensor in buffers.items()]
        right = (answers.argmax(1) == inputs["labels"]).sum().cast(dtypes.float32)
        sums = (loss * self.plan.batch_size).reshape(1).cat(right.reshape(1))
        changed.append(self._sums.assign(self._sums + sums.detach()))
        changed += [self.tensors[name].assign(tensor) for name, tensor in after.items()]
        if self.average is not None:
            for name, held in self.average.items():
                changed.append(held.assign(held + now[0] * (self.tensors[name] - held)))
        Tensor.realize(*changed)
        return self._sums

    def _explained(self, error: Exception) -> Exception:
        """A TrainingError where the device ran out of memory; else the error itself."""
        text = str(error).lower()
        signs = ("allocation", "out_of", "out of memory", "invalid_buffer_size", "too large")
        if not isinstance(error, MemoryError) and not any(sign in text for sign in signs):
            return error
        half = max(1, self.plan.batch_size // 2)
        return TrainingError(
            f"{self.job.device.label} has too little memory for a batch of {self.plan.batch_size} images.",
            f"Try --set batch_size={half}, a smaller data.size or narrower model.widths.",
        )

    # ---- between steps -----------------------------------------------------------------------------------------------

    def sums(self) -> tuple[float, float]:
        loss, right = self._sums.numpy().tolist()
        return loss, right

    def reset_sums(self) -> None:
        self._sums.assign(Tensor(np.zeros(2, np.float32), device=self.where)).realize()

    def logits(self, images: np.ndarray) -> np.ndarray:
        return logits(self.job.architecture, self.average or self.tensors, images, self.job.device)

    def memory_bytes(self) -> int:
        self._most = max(self._most, devices.memory(self.job.device))
        return self._most

    def weights(self) -> dict[str, np.ndarray]:
        return {name: _array(tensor) for name, tensor in (self.average or self.tensors).items()}

    def state(self) -> State:
        arrays = {f"weight/{n}": _array(t) for n, t in self.tensors.items()}
        arrays |= {f"optimizer/{n}": _array(t) for n, t in self.optimizer.buffers.items()}
        if self.average is not None:
            arrays |= {f"average/{n}": _array(t) for n, t in self.average.items()}
        return State(arrays, {"sums": self.sums()})

    def restore(self, state: State) -> None:
        """Before the first step: no compiled function has hold of the tensors yet."""
        self.tensors |= {n: self._sent(a) for n, a in state.part("weight").items()}
        self.optimizer.buffers |= {n: self._sent(a) for n, a in state.part("optimizer").items()}
        if self.average is not None:
            self.average |= {n: self._sent(a) for n, a in state.part("average").items()}
        self._sums = self._sent(np.array(state.meta["sums"], np.float32))

    def close(self) -> None:
        self.feed.close()
        Device[self.where].synchronize()


def _array(tensor: Tensor) -> np.ndarray:
    """A float32 C-ordered copy on the host."""
    return np.array(tensor.numpy(), np.float32, order="C", copy=True)
