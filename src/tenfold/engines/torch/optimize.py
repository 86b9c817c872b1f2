"""Optimizers: a recipe's update rule over a module's tensors, and its state as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tenfold.architecture.layers import Architecture, Conv
from tenfold.architecture.weights import specs, walk
from tenfold.engines.schedule import Plan, factor
from tenfold.recipe import Recipe


class Muon(torch.optim.Optimizer):
    """Momentum, then the update orthogonalised (K. Jordan et al. 2024, "Muon").

    Kernels are seen as matrices filters × rest. As in airbench94_muon each is brought to norm √filters before its step;
    batch norm after it makes the scale free. Equal shapes are stacked and orthogonalised together.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, nesterov: bool, steps: int) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "steps": steps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for shape, params in by_shape.items():
                self._step_alike(shape, params, group)

    def _step_alike(self, shape: tuple[int, ...], params: list[Tensor], group: dict[str, Any]) -> None:
        updates = []
        for p in params:
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(p)
            momentum, gradient = state["momentum_buffer"], p.grad
            assert gradient is not None  # only such are passed here
            momentum.mul_(group["momentum"]).add_(gradient)
            update = gradient.add(momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
            updates.append(update.reshape(shape))
        orthogonal = orthogonalize(torch.stack(updates), group["steps"]).to(params[0].dtype)
        for p, update in zip(params, orthogonal.unbind(0), strict=True):
            p.mul_(shape[0] ** 0.5 / p.norm().clamp_min(1e-12))
            p.add_(update.reshape(p.shape), alpha=-group["lr"])


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Nearly U·Vᵀ for each matrix U·S·Vᵀ of a stack K×M×N, by a quintic Newton-Schulz iteration (K. Jordan 2024; the
    coefficients are his). Computed in bfloat16 on CUDA, else in the matrices' own type."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x.mT if tall else x


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

    def _make(self, architecture: Architecture) -> list[torch.optim.Optimizer]:
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
        made: list[torch.optim.Optimizer] = []
        if settings.name in ("sgd", "muon"):
            nesterov = settings.nesterov and settings.momentum > 0
            made.append(torch.optim.SGD(rows, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov))
        else:
            kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
            made.append(kind(rows, lr=settings.lr, betas=settings.betas, eps=settings.eps))
        if settings.name == "muon" and groups["muon"]:
            muon = Muon(
                [self.named[n] for n in groups["muon"]],
                settings.muon_lr,
                settings.muon_momentum,
                settings.nesterov,
                settings.muon_steps,
            )
            muon.param_groups[0].update(peak=settings.muon_lr, role="muon")
            made.append(muon)
        return made

    def set_rate(self, done: float) -> float:
        """Sets every group's rate for ``done`` (0 to 1) of the run; returns the factor."""
        share = factor(self.recipe.schedule, done)
        for optimizer in self._all:
            for group in optimizer.param_groups:
                now = share
                if group["role"] == "whiten" and self._whiten_share is not None:
                    now = max(0.0, 1 - done / self._whiten_share) if self._whiten_share else 0.0
                group["lr"] = group["peak"] * now
        return share

    def step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        for optimizer in self._all:
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
        if scaler is not None:
            scaler.update()

    def zero_grad(self) -> None:
        for tensor in self.named.values():
            tensor.grad = None

    def unscale(self, scaler: torch.amp.GradScaler) -> None:
        for optimizer in self._all:
            scaler.unscale_(optimizer)

    def arrays(self) -> dict[str, np.ndarray]:
        """Every state tensor as ``<weight>#<state>``: float32 on the host."""
        names = {id(t): n for n, t in self.named.items()}
        out = {}
        for optimizer in self._all:
            for tensor, state in optimizer.state.items():
                for key, value in state.items():
                    if isinstance(value, Tensor):
                        out[f"{names[id(tensor)]}#{key}"] = value.detach().cpu().float().contiguous().numpy().copy()
        return out

    @torch.no_grad()
    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The state saved by :meth:`arrays`, brought back before the first step."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                for tensor in group["params"]:
                    name = next(n for n, t in self.named.items() if t is tensor)
                    found = {k.partition("#")[2]: v for k, v in arrays.items() if k.partition("#")[0] == name}
                    for key, value in found.items():
                        loaded = torch.from_numpy(np.array(value))
                        # Adam counts its steps on the host; the rest lies as the weight lies, strides and all
                        optimizer.state[tensor][key] = (
                            loaded if loaded.ndim == 0 else torch.empty_like(tensor).copy_(loaded)
                        )


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
