"""How long a run is and how its learning rate moves: plain numbers, the same for every engine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tenfold.recipe import Recipe, Schedule


@dataclass(frozen=True)
class Plan:
    """``steps`` in all, ``steps_per_epoch`` and ``batch_size`` images a step, batch norm's statistics in ``parts``.

    An epoch is a new order of the training images; what does not fill a batch at its end is left out, other images
    each time.
    """

    steps: int
    steps_per_epoch: int
    batch_size: int
    parts: int = 1

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 0, that ``step`` (from 0) lies in."""
        return step // self.steps_per_epoch


def plan(recipe: Recipe, images: int) -> Plan:
    """The plan of a recipe for ``images`` training images."""
    batch_size = min(recipe.batch_size, images)
    per_epoch = max(1, images // batch_size)
    steps = max(1, round(recipe.epochs * per_epoch), recipe.min_steps)
    parts = math.ceil(batch_size / (recipe.virtual_batch_size or batch_size))
    return Plan(steps, per_epoch, batch_size, parts)


def factor(schedule: Schedule, done: float) -> float:
    """The learning rate as a share of its peak when ``done`` (0 to 1) of the run is behind.

    ``onecycle`` rises and falls along half cosines (Smith and Topin 2017, as in PyTorch's OneCycleLR); ``cosine``
    is Loshchilov and Hutter's without restarts; both and ``linear`` and ``step`` rise linearly in the warm-up.
    """
    if schedule.name != "onecycle" and done < schedule.warmup:
        return schedule.start + (1 - schedule.start) * done / schedule.warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "step":
        return schedule.gamma ** sum(done >= milestone for milestone in schedule.milestones)
    rise = schedule.warmup or (0.3 if schedule.name == "onecycle" else 0.0)
    if schedule.name == "onecycle" and done < rise:
        return _cosine(schedule.start or 0.04, 1.0, done / rise)
    after = min(1.0, (done - rise) / max(1 - rise, 1e-9))
    if schedule.name == "linear":
        return 1 + (schedule.final - 1) * after
    return _cosine(1.0, schedule.final, after)


def low_res_size(recipe: Recipe, done: float) -> int | None:
    """The pictures' longer side in pixels when ``done`` of the run is behind, None for their own."""
    low = recipe.low_res
    return low.size if low is not None and done < low.until else None


def forgotten(decay: float, step: int) -> float:
    """The share of the weights' moving average that step ``step`` replaces; the first steps are soon forgotten."""
    return 1 - min(decay, (2 + step) / (11 + step))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
