"""Optimizers: a recipe's update rule over a module's tensors, and its state as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tenfold.architecture.layers import Architecture, Conv
from tenfold.architecture.weights import specs, walk
from tenfold.engines.schedule import Plan, factor
from tenfold.engines.torch.rules import SGD, Adam, Muon, Rule
from tenfold.recipe import Recipe


class Optimizers:
    """The optimizers of a run as one: rates set from the schedule, steps taken, state saved and restored."""

    def __init__(self, recipe: Recipe, architecture: Architecture, named: Mapping[str, Tensor], plan: Plan) -> None:
        self.recipe = recipe
        self.named = {n: t for n, t in named.items() if specs(architecture)[n].role == "trained"}
        whiten_steps = None
        if recipe.optimizer.whiten_bias_epochs is not None:
            whiten_steps = recipe.optimizer.whiten_bias_epochs * plan.steps_per_epoch
        self._whiten_share = None if whiten_steps is None else min(1.0, whiten_steps / plan.steps)
        self._all = self._make(architecture)

    def _make(self, architecture: Architecture) -> list[Rule]:
        settings = self.recipe.optimizer
        groups = _groups(architecture, list(self.named), settings.name == "muon")
        rates = {
            "kernel": settings.lr,
            "bias": settings.bias_lr or settings.lr,
            "whiten": settings.bias_lr or settings.lr,
            "head": settings.head_lr or settings.lr,
        }
        rows = []
        for role, names in groups.items():
            if role == "muon" or not names:
                continue
            decay = settings.weight_decay if settings.name == "muon" or role in ("kernel", "head") else 0.0
            if settings.name == "muon":
                decay /= rates[role]  # SGD's term is times the rate; the recipe's is the share itself
            rows.append(
                {
                    "params": [self.named[n] for n in names],
                    "lr": rates[role],
                    "weight_decay": decay,
                    "peak": rates[role],
                    "role": role,
                }
            )
        made: list[Rule] = []
        if settings.name in ("sgd", "muon"):
            made.append(SGD(rows, settings.lr, settings.momentum, settings.nesterov))
        else:
            made.append(Adam(rows, settings.lr, settings.betas, settings.eps, settings.name == "adamw"))
        if settings.name == "muon" and groups["muon"]:
            kernels = [self.named[n] for n in groups["muon"]]
            row = {"params": kernels, "peak": settings.muon_lr, "role": "muon"}
            made.append(Muon([row], settings.muon_lr, settings.muon_momentum, settings.nesterov, settings.muon_steps))
        return made

    def set_rate(self, done: float) -> float:
        """Sets every group's rate for ``done`` (0 to 1) of the run, on the device too; returns the factor."""
        share = factor(self.recipe.schedule, done)
        for optimizer in self._all:
            for group in optimizer.param_groups:
                now = share
                if group["role"] == "whiten" and self._whiten_share is not None:
                    now = max(0.0, 1 - done / self._whiten_share) if self._whiten_share else 0.0
                group["lr"] = group["peak"] * now
            optimizer.prepare()
        return share

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
                    out[f"{names[id(tensor)]}#step"] = np.array(optimizer.count, np.float32)
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
                if f"{name}#step" in arrays:
                    optimizer.count = int(arrays[f"{name}#step"])


def _groups(architecture: Architecture, names: list[str], muon: bool) -> dict[str, list[str]]:
    """Trained weights by the rate they take: kernel, bias (and batch norm), whiten (its bias), head, muon."""
    layers = {name: layer for name, layer, _, _ in walk(architecture)}
    head = [n for n in names if n.endswith(".kernel")][-1].rpartition(".")[0]
    groups: dict[str, list[str]] = {"kernel": [], "bias": [], "whiten": [], "head": [], "muon": []}
    for name in names:
        home, _, part = name.rpartition(".")
        layer = layers[home]
        if home == head:
            role = "head"
        elif isinstance(layer, Conv) and layer.init == "whiten" and part == "bias":
            role = "whiten"
        elif part != "kernel":
            role = "bias"
        else:
            role = "muon" if muon and isinstance(layer, Conv) else "kernel"
        groups[role].append(name)
    return groups
