"""Optimizers: a recipe's update rule over a module's tensors, and its state as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.architecture.layers import Architecture
from tenfold.architecture.weights import specs
from tenfold.engines.groups import Group, groups
from tenfold.engines.schedule import Plan, factor
from tenfold.engines.torch.rules import SGD, Adam, Muon, Rule
from tenfold.recipe import Recipe


class Optimizers:
    """The optimizers of a run as one: rates set from the schedule, steps taken, state saved and restored."""

    def __init__(self, recipe: Recipe, architecture: Architecture, named: Mapping[str, Tensor], plan: Plan) -> None:
        self.recipe = recipe
        found = specs(architecture)
        self.named = {n: t for n, t in named.items() if found[n].role == "trained"}
        self._all = self._make(groups(recipe, architecture, plan))

    def _make(self, of: list[Group]) -> list[Rule]:
        settings = self.recipe.optimizer

        def row(group: Group) -> dict[str, Any]:
            row = {"params": [self.named[n] for n in group.names], "lr": group.peak, "group": group}
            return row if group.rule == "muon" else {**row, "weight_decay": group.weight_decay}

        made: list[Rule] = []
        plain = [row(group) for group in of if group.rule != "muon"]
        if settings.name in ("sgd", "muon"):
            made.append(SGD(plain, settings.lr, settings.momentum, settings.nesterov))
        else:
            made.append(Adam(plain, settings.lr, settings.betas, settings.eps, settings.name == "adamw"))
        kernels = [row(group) for group in of if group.rule == "muon"]
        if kernels:
            made.append(Muon(kernels, settings.muon_lr, settings.muon_momentum, settings.nesterov, settings.muon_steps))
        return made

    def set_rate(self, done: float) -> float:
        """Sets every group's rate for ``done`` (0 to 1) of the run, on the device too; returns the factor."""
        for optimizer in self._all:
            for row in optimizer.param_groups:
                row["lr"] = row["group"].rate(self.recipe, done)
                row["resting"] = row["group"].resting(done)
            optimizer.prepare()
        return factor(self.recipe.schedule, done)

    def update(self) -> None:
        """The step's device work, rates taken from :meth:`set_rate`. :meth:`advance` belongs after it."""
        for optimizer in self._all:
            optimizer.update()

    def advance(self) -> None:
        for optimizer in self._all:
            optimizer.advance()

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """:meth:`update` and :meth:`advance` where the scaled gradients are finite."""
        for optimizer in self._all:
            if all(row["resting"] for row in optimizer.param_groups):
                continue  # no gradients: the scaler takes that for a mistake
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
        scaler.update()

    def zero_grad(self) -> None:
        for tensor in self.named.values():
            tensor.grad = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Every state tensor as ``<weight>#<state>``: float32 on the host. Adam's count of steps is ``#step``."""
        names = {id(t): n for n, t in self.named.items()}
        out = {}
        for optimizer in self._all:
            for tensor, state in optimizer.state.items():
                for key, value in state.items():
                    out[f"{names[id(tensor)]}#{key}"] = value.detach().cpu().float().contiguous().numpy().copy()
            if isinstance(optimizer, Adam):
                for row in optimizer.param_groups:
                    out.update({f"{names[id(p)]}#step": np.array(row["count"], np.float32) for p in row["params"]})
        return out

    @torch.no_grad()
    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The state saved by :meth:`arrays`, brought back before the first step."""
        names = {id(t): n for n, t in self.named.items()}
        for optimizer in self._all:
            for tensor, state in optimizer.state.items():
                name = names[id(tensor)]
                for key, value in state.items():
                    if f"{name}#{key}" in arrays:
                        value.copy_(torch.from_numpy(np.array(arrays[f"{name}#{key}"])))
            for row in optimizer.param_groups:
                steps = arrays.get(f"{names[id(row['params'][0])]}#step")
                if steps is not None:
                    row["count"] = int(steps)
                    optimizer.count = max(optimizer.count, row["count"])
