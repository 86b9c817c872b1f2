"""A run's arrays on the device, and a step as the loop asks for it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tenfold.architecture.weights import specs
from tenfold.engines import base, batches, rules
from tenfold.engines.base import Job, State
from tenfold.engines.groups import frozen, groups
from tenfold.engines.keras import build, inference, program
from tenfold.engines.keras.feed import Feed
from tenfold.engines.keras.framework import chosen
from tenfold.engines.parts import named
from tenfold.engines.schedule import Plan, factor, low_res_size
from tenfold.errors import TrainingError


class Stepper(base.Stepper):
    def __init__(self, job: Job, precision: str, plan: Plan) -> None:
        self.job, self.recipe, self.plan, self.precision = job, job.recipe, plan, precision
        self.framework = chosen()
        self.frozen, self.rested = frozen(job.recipe, plan), 0
        recipe = self.recipe
        self.settings = program.Settings(
            job.architecture, tuple(groups(recipe, job.architecture, plan)), recipe.optimizer, recipe.augment,
            recipe.label_smoothing, plan.parts, precision, job.device, None,
        )  # fmt: skip
        with self._memory():
            self.feed = Feed(job.dataset["train"], plan, recipe.augment, recipe.seed, job.device, self.framework)
            self.placement = self.feed.placement
            self.constants = self._send(self._constants())
            if self.feed.pixels is not None:
                self.constants["pixels"] = self.feed.pixels
            self.carry = self._send(self._first())

    def _constants(self) -> dict[str, Any]:
        job = self.job
        constants = {"mean": np.float32(255) * job.weights[next(iter(specs(job.architecture)))]}
        if self.recipe.class_weights == "balanced":
            constants["classes"] = batches.class_weights(job.dataset.counts("train"))
        return constants

    def _first(self) -> dict[str, Any]:
        first = build.native(self.job.weights)
        buffers = {
            name: {kind: np.zeros_like(first[name]) for kind in rules.buffers(group, self.recipe.optimizer)}
            for group in self.settings.groups
            for name in group.names
        }
        average = {n: a.copy() for n, a in first.items()} if self.recipe.ema is not None else {}
        return {"weights": first, "buffers": buffers, "average": average, "sums": np.zeros(2, np.float32)}

    def _send(self, tree: Any) -> Any:
        return self.framework.send(tree, self.job.device)

    def take(self, step: int, done: float) -> float:
        resting = done < self.frozen
        settings = dataclasses.replace(self.settings, size=low_res_size(self.recipe, done), resting=resting)
        numbers = program.numbers(settings, self.recipe, done, step, self.rested)
        self.rested += resting
        seed = batches.step_seed(self.recipe.seed, step)
        halves = np.array([seed & 0x3FFFFFFF, seed >> 32], np.int32)
        with self._memory():
            with named("data"):
                taken = self.feed.take(step)
            with named("send"):
                batch, numbers, halves = self._send((taken, numbers, halves))
            with named("compute"):
                self.carry = program.compiled(settings)(self.carry, batch, numbers, halves, self.constants)
        return factor(self.recipe.schedule, done)

    @contextlib.contextmanager
    def _memory(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self.framework.out_of_memory(error):
                raise
            raise TrainingError(
                f"{self.job.device.label} has too little memory for steps of {self.plan.batch_size} images.",
                f"Try a smaller batch: --set batch_size={max(1, self.plan.batch_size // 2)}. (The torch "
                "engine computes such a batch in parts.)",
            ) from None

    def sums(self) -> tuple[float, float]:
        with self._memory():
            loss, right = self.framework.fetch(self.carry["sums"]).tolist()
        return loss, right

    def reset_sums(self) -> None:
        self.carry["sums"] = self._send(np.zeros(2, np.float32))

    def logits(self, images: np.ndarray) -> np.ndarray:
        with self._memory():
            return inference.logits(self.job.architecture, self._now(), images, self.job.device, 1000, self.precision)

    def _now(self) -> dict[str, Any]:
        """What ``weights`` gives, as it lies on the device."""
        found: dict[str, Any] = self.carry["average"] or self.carry["weights"]
        return found

    def weights(self) -> dict[str, np.ndarray]:
        return build.canonical(self.framework.fetch(self._now()))

    def state(self) -> State:
        carry = self.framework.fetch(self.carry)
        arrays = {f"weight/{n}": a for n, a in build.canonical(carry["weights"]).items()}
        flat = {f"{n}#{kind}": a for n, held in carry["buffers"].items() for kind, a in held.items()}
        arrays |= {f"optimizer/{n}": a for n, a in build.canonical(flat).items()}
        arrays |= {f"average/{n}": a for n, a in build.canonical(carry["average"]).items()}
        return State(arrays, {"sums": carry["sums"].tolist(), "rested": self.rested})

    def restore(self, state: State) -> None:
        self.rested = state.meta.get("rested", 0)
        buffers: dict[str, dict[str, np.ndarray]] = {name: {} for name in self.carry["buffers"]}
        for key, array in build.native(state.part("optimizer")).items():
            name, _, kind = key.partition("#")
            buffers[name][kind] = array
        self.carry = self._send(
            {
                "weights": build.native(state.part("weight")),
                "buffers": buffers,
                "average": build.native(state.part("average")),
                "sums": np.array(state.meta["sums"], np.float32),
            }
        )

    def memory_bytes(self) -> int:
        return self.framework.memory_bytes(self.job.device)

    def close(self) -> None:
        self.sums()
