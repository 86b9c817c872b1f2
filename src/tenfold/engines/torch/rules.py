"""Update rules over lists of tensors: a few kernels a group instead of a few a weight, and none the host waits for.

What changes from step to step (rates, Adam's bias corrections) lies in 0-dim tensors on the weights' device, filled by
``prepare`` before the step. ``update`` is device work alone, so a CUDA graph can hold it; ``advance`` counts the step.
``step`` is the three together. The numbers are those of ``torch.optim`` up to rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]


class Rule(torch.optim.Optimizer, ABC):
    """A rule over parameter groups. ``group["lr"]`` is the rate that the next ``prepare`` sends to the device, and
    ``group["count"]`` the steps that the group has taken; one that is ``resting`` takes none."""

    scalars: tuple[str, ...] = ("rate",)  # what a group has on the device
    buffers: tuple[str, ...] = ()  # what a weight has, zero at first

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.count = 0  # steps taken
        for group in self.param_groups:
            device = group["params"][0].device
            group["count"], group["resting"] = 0, False
            group["scalars"] = {name: torch.zeros((), device=device) for name in self.scalars}
            for p in group["params"]:
                for name in self.buffers:
                    self.state[p][name] = torch.zeros_like(p)

    def prepare(self) -> None:
        for group in self.param_groups:
            for name, value in self.values(group).items():
                group["scalars"][name].fill_(value)

    def values(self, group: Group) -> dict[str, float]:
        """The scalars of a group for the step after its ``count``."""
        return {"rate": group["lr"]}

    @torch.no_grad()
    def update(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self.update_group(group, params, [p.grad for p in params])

    @abstractmethod
    def update_group(self, group: Group, params: list[Tensor], gradients: list[Tensor]) -> None:
        """One update of a group's weights from their gradients, rates from ``group["scalars"]``."""

    def advance(self) -> None:
        self.count += 1
        for group in self.param_groups:
            group["count"] += not group["resting"]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.prepare()
        self.update()
        self.advance()

    def of(self, name: str, params: Iterable[Tensor]) -> list[Tensor]:
        return [self.state[p][name] for p in params]


class SGD(Rule):
    """As ``torch.optim.SGD`` without dampening; ``weight_decay`` is added to the gradients."""

    def __init__(self, params: Any, lr: float, momentum: float, nesterov: bool, weight_decay: float = 0.0) -> None:
        if momentum:
            self.buffers = ("momentum_buffer",)
        nesterov = nesterov and momentum > 0
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay})

    def update_group(self, group: Group, params: list[Tensor], gradients: list[Tensor]) -> None:
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, params, alpha=group["weight_decay"])  # type: ignore[assignment]
        updates: Sequence[Tensor] = gradients
        if group["momentum"]:
            buffers = self.of("momentum_buffer", params)
            updates = _momentum(buffers, gradients, group["momentum"], group["nesterov"])
        torch._foreach_sub_(params, torch._foreach_mul(list(updates), group["scalars"]["rate"]))


class Adam(Rule):
    """As ``torch.optim.Adam``, and as ``AdamW`` where the weight decay is ``decoupled``."""

    scalars = ("rate", "root", "kept")
    buffers = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, decoupled: bool, weight_decay: float = 0.0
    ) -> None:
        self.decoupled = decoupled
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def values(self, group: Group) -> dict[str, float]:
        """The rate over the first correction, the root of the second, and what decoupled decay leaves of a weight."""
        first, second = (1 - beta ** (group["count"] + 1) for beta in group["betas"])
        return {"rate": group["lr"] / first, "root": second**0.5, "kept": 1 - group["lr"] * group["weight_decay"]}

    def update_group(self, group: Group, params: list[Tensor], gradients: list[Tensor]) -> None:
        first, second = group["betas"]
        scalars = group["scalars"]
        if group["weight_decay"] and self.decoupled:
            torch._foreach_mul_(params, scalars["kept"])
        elif group["weight_decay"]:
            gradients = torch._foreach_add(gradients, params, alpha=group["weight_decay"])  # type: ignore[assignment]
        means, squares = self.of("exp_avg", params), self.of("exp_avg_sq", params)
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, scalars["root"])
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(means, roots)
        torch._foreach_mul_(updates, scalars["rate"])
        torch._foreach_sub_(params, updates)


class Muon(Rule):
    """Momentum, then the update orthogonalised (K. Jordan et al. 2024, "Muon").

    Kernels are seen as matrices filters × rest. As in airbench94_muon each is brought to norm √filters before its step;
    batch norm after it makes the scale free. Equal shapes are stacked and orthogonalised together.
    """

    buffers = ("momentum_buffer",)

    def __init__(self, params: Any, lr: float, momentum: float, nesterov: bool, steps: int) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "steps": steps})

    def update_group(self, group: Group, params: list[Tensor], gradients: list[Tensor]) -> None:
        buffers = self.of("momentum_buffer", params)
        updates = _momentum(buffers, gradients, group["momentum"], group["nesterov"])
        orthogonal: list[Tensor] = list(updates)
        for alike in _by_shape(updates):
            stack = torch.stack([_matrix(updates[i]) for i in alike])
            stack = orthogonalize(stack, group["steps"]).to(params[0].dtype)
            for i, matrix in zip(alike, stack.unbind(0), strict=True):
                orthogonal[i] = _kernel(matrix, params[i])
        norms = torch._foreach_norm(params)
        torch._foreach_clamp_min_(norms, 1e-12)
        wanted = torch._foreach_reciprocal(norms)
        torch._foreach_mul_(wanted, [p.shape[0] ** 0.5 for p in params])
        torch._foreach_mul_(params, wanted)
        torch._foreach_sub_(params, torch._foreach_mul(orthogonal, group["scalars"]["rate"]))


def _momentum(
    buffers: list[Tensor], gradients: list[Tensor], momentum: float, nesterov: bool
) -> list[Tensor] | tuple[Tensor, ...]:
    """Heavy-ball momentum brought up to date; returns the update."""
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, gradients)
    return torch._foreach_add(gradients, buffers, alpha=momentum) if nesterov else buffers


def _by_shape(tensors: Sequence[Tensor]) -> list[list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, tensor in enumerate(tensors):
        groups.setdefault(tuple(tensor.shape), []).append(i)
    return list(groups.values())


def _matrix(kernel: Tensor) -> Tensor:
    """filters × rest, the rest in the order in which channels-last memory holds it: no copy there."""
    return kernel.permute(0, 2, 3, 1).reshape(kernel.shape[0], -1)


def _kernel(matrix: Tensor, like: Tensor) -> Tensor:
    out, channels, rows, columns = like.shape
    return matrix.view(out, rows, columns, channels).permute(0, 3, 1, 2)


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
