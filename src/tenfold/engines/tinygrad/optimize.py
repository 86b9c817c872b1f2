"""A recipe's update rules over tensors, and their state as NumPy arrays. The rules are ``engines/rules.py``'s."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tinygrad import Tensor

from tenfold.architecture.layers import Architecture
from tenfold.engines import rules
from tenfold.engines.groups import Group, groups
from tenfold.engines.schedule import Plan
from tenfold.recipe import Recipe


class _Spelled:
    """How tinygrad spells what the rules need."""

    def matrix(self, kernel: Tensor) -> Tensor:
        return kernel.reshape(kernel.shape[0], -1)

    def kernel(self, matrix: Tensor, like: Tensor) -> Tensor:
        return matrix.reshape(like.shape)

    def transpose(self, matrix: Tensor) -> Tensor:
        return matrix.transpose()

    def total(self, array: Tensor) -> Tensor:
        # a kernel of its own: fused into what divides by it, the sum would be taken again for every element
        return array.sum().contiguous()


class Optimizer:
    """``buffers``: a weight's state by ``<weight>#<state>``, tensors on the device."""

    def __init__(self, recipe: Recipe, architecture: Architecture, plan: Plan, like: Mapping[str, Tensor]) -> None:
        self.recipe, self.groups = recipe, groups(recipe, architecture, plan)
        self.trained = [name for group in self.groups for name in group.names]
        self.buffers = {
            f"{name}#{kind}": Tensor(np.zeros(like[name].shape, np.float32), device=like[name].device).realize()
            for group in self.groups
            for name in group.names
            for kind in rules.buffers(group, recipe.optimizer)
        }
        self._keys = [(i, key) for i, group in enumerate(self.groups) for key in self._scalars(group, 0.0, 0)]

    def _scalars(self, group: Group, done: float, count: int) -> dict[str, float]:
        return rules.scalars(group, self.recipe, done, count)

    def scalars(self, done: float, count: int) -> list[float]:
        """What the groups' steps need when ``done`` of the run and ``count`` steps are behind, in one fixed order."""
        found = [self._scalars(group, done, count) for group in self.groups]
        return [found[i][key] for i, key in self._keys]

    def update(
        self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], now: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(trained weights, buffers) after a step; ``now`` is :meth:`scalars` on the device."""
        after: dict[str, Tensor] = {}
        buffers: dict[str, Tensor] = {}
        settings, spelled = self.recipe.optimizer, _Spelled()
        for i, group in enumerate(self.groups):
            mine = {key: now[at] for at, (owner, key) in enumerate(self._keys) if owner == i}
            for name in group.names:
                held = {kind: self.buffers[f"{name}#{kind}"] for kind in rules.buffers(group, settings)}
                after[name], kept = rules.update(group, settings, weights[name], gradients[name], held, mine, spelled)
                buffers |= {f"{name}#{kind}": tensor for kind, tensor in kept.items()}
        return after, buffers
