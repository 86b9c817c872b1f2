"""Update rules as plain arithmetic, for any framework whose arrays have NumPy's operators.

What a framework spells in its own way (a kernel as a matrix, a sum) it gives as :class:`Arrays`. A rule changes nothing
in place: it takes a weight, its gradient and its buffers, and returns the weight and the buffers after the step. What
changes from step to step comes in as numbers (``scalars``), so a compiled step holds for all of them. PyTorch's engine
has the same rules over lists of tensors (``engines/torch/rules.py``).
"""

from __future__ import annotations

from typing import Any, Protocol

from tenfold.engines.groups import Group
from tenfold.recipe import Optimizer, Recipe

Array = Any
Buffers = dict[str, Array]


class Arrays(Protocol):
    def matrix(self, kernel: Array) -> Array:
        """A convolution's kernel as filters × rest."""

    def kernel(self, matrix: Array, like: Array) -> Array:
        """Such a matrix as a kernel of ``like``'s layout."""

    def transpose(self, matrix: Array) -> Array: ...

    def total(self, array: Array) -> Array:
        """The sum of all elements, 0-dim."""


def buffers(group: Group, settings: Optimizer) -> tuple[str, ...]:
    """Names of what a weight of the group has beside it, zero at first and of its shape."""
    if group.rule in ("adam", "adamw"):
        return ("exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if group.rule == "muon" or settings.momentum else ()


def scalars(group: Group, recipe: Recipe, done: float, count: int) -> dict[str, float]:
    """What the group's step needs when ``done`` of the run and ``count`` steps are behind."""
    rate = group.rate(recipe, done)
    if group.rule not in ("adam", "adamw"):
        return {"rate": rate}
    first, second = (1 - beta ** (count + 1) for beta in recipe.optimizer.betas)
    return {"rate": rate / first, "root": second**0.5, "kept": 1 - rate * group.weight_decay}


def update(
    group: Group, settings: Optimizer, weight: Array, gradient: Array, held: Buffers, now: Buffers, arrays: Arrays
) -> tuple[Array, Buffers]:
    """(weight, buffers) after a step. ``held``: the weight's buffers; ``now``: the group's scalars."""
    if group.rule in ("adam", "adamw"):
        return _adam(group, settings, weight, gradient, held, now)
    if group.rule == "muon":
        return _muon(settings, weight, gradient, held, now, arrays)
    if group.weight_decay:
        gradient = gradient + group.weight_decay * weight
    if not settings.momentum:
        return weight - now["rate"] * gradient, {}
    buffer, step = _momentum(held["momentum_buffer"], gradient, settings.momentum, settings.nesterov)
    return weight - now["rate"] * step, {"momentum_buffer": buffer}


def _momentum(buffer: Array, gradient: Array, momentum: float, nesterov: bool) -> tuple[Array, Array]:
    buffer = momentum * buffer + gradient
    return buffer, gradient + momentum * buffer if nesterov else buffer


def _adam(
    group: Group, settings: Optimizer, weight: Array, gradient: Array, held: Buffers, now: Buffers
) -> tuple[Array, Buffers]:
    """Kingma and Ba 2015; where the decay is decoupled, Loshchilov and Hutter 2019."""
    first, second = settings.betas
    if group.weight_decay and group.rule == "adamw":
        weight = weight * now["kept"]
    elif group.weight_decay:
        gradient = gradient + group.weight_decay * weight
    mean = first * held["exp_avg"] + (1 - first) * gradient
    square = second * held["exp_avg_sq"] + (1 - second) * gradient * gradient
    step = mean / (square**0.5 / now["root"] + settings.eps)
    return weight - now["rate"] * step, {"exp_avg": mean, "exp_avg_sq": square}


def _muon(
    settings: Optimizer, weight: Array, gradient: Array, held: Buffers, now: Buffers, arrays: Arrays
) -> tuple[Array, Buffers]:
    """Momentum, then the update orthogonalised (K. Jordan et al. 2024, "Muon"); each kernel is brought to norm √filters
    before its step, as in airbench94_muon."""
    buffer, step = _momentum(held["momentum_buffer"], gradient, settings.muon_momentum, settings.nesterov)
    matrix = arrays.matrix(step)
    rows, columns = (int(d) for d in matrix.shape)
    orthogonal = arrays.kernel(orthogonalize(matrix, rows, columns, settings.muon_steps, arrays), weight)
    norm = arrays.total(weight * weight) ** 0.5
    # a norm of 0 stays 0: what is added is far below any other norm's last digit
    weight = weight * (rows**0.5 / (norm + 1e-12))
    return weight - now["rate"] * orthogonal, {"momentum_buffer": buffer}


def orthogonalize(matrix: Array, rows: int, columns: int, steps: int, arrays: Arrays) -> Array:
    """Nearly U·Vᵀ for a matrix U·S·Vᵀ, by a quintic Newton-Schulz iteration (K. Jordan 2024; the coefficients are
    his)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (arrays.total(matrix * matrix) ** 0.5 + 1e-7)
    x = arrays.transpose(x) if rows > columns else x
    for _ in range(steps):
        gram = x @ arrays.transpose(x)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return arrays.transpose(x) if rows > columns else x
