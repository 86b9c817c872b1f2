"""Which weights a rule steps together, and at which rate: the same for every engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tenfold.architecture.layers import Architecture, Conv, External
from tenfold.architecture.weights import specs, walk
from tenfold.engines.schedule import Plan, factor
from tenfold.recipe import Recipe

Role = Literal["kernel", "bias", "whiten", "head", "muon"]
Rule = Literal["sgd", "adam", "adamw", "muon"]


@dataclass(frozen=True)
class Group:
    """``names`` of weights stepped by ``rule``, ``peak`` the rate where the schedule's factor is 1.

    role           kernel, bias (and batch norm), whiten (a whitening layer's bias), head (the last layer), muon
    weight_decay   as the rule takes it: for SGD and Adam added to the gradients, for AdamW decoupled
    until          share of the run after which a whitening layer's bias rests; None where its rate is the others'
    start          share of the run before which the group rests: 0, or the frozen part of a fine-tuning
    """

    role: Role
    rule: Rule
    names: tuple[str, ...]
    peak: float
    weight_decay: float
    until: float | None = None
    start: float = 0.0

    def resting(self, done: float) -> bool:
        """Whether the group's weights stay as they are when ``done`` (0 to 1) of the run is behind."""
        return done < self.start

    def rate(self, recipe: Recipe, done: float) -> float:
        """The learning rate when ``done`` (0 to 1) of the run is behind."""
        if self.resting(done):
            return 0.0
        if self.until is None:
            return self.peak * factor(recipe.schedule, done)
        return self.peak * (max(0.0, 1 - done / self.until) if self.until else 0.0)


def groups(recipe: Recipe, architecture: Architecture, plan: Plan) -> list[Group]:
    """The trained weights of an architecture in groups, none of them empty; Muon's last.

    In a fine-tuning all but the last layer's rest at first, and then take ``body_lr`` of their rates.
    """
    settings = recipe.optimizer
    trained = [name for name, spec in specs(architecture).items() if spec.role == "trained"]
    peaks: dict[Role, float] = {
        "kernel": settings.lr,
        "bias": settings.bias_lr or settings.lr,
        "whiten": settings.bias_lr or settings.lr,
        "head": settings.head_lr or settings.lr,
        "muon": settings.muon_lr,
    }
    made = []
    for role, names in _by_role(architecture, trained, settings.name == "muon").items():
        rule: Rule = settings.name
        decay = settings.weight_decay if role in ("kernel", "head") else 0.0
        if settings.name == "muon" and role == "muon":
            decay = 0.0
        elif settings.name == "muon":
            # SGD's term is times the rate; the recipe's is the share itself
            rule, decay = "sgd", settings.weight_decay / peaks[role]
        until = None
        if role == "whiten" and settings.whiten_bias_epochs is not None:
            until = min(1.0, settings.whiten_bias_epochs * plan.steps_per_epoch / plan.steps)
        start, share = 0.0, 1.0
        if recipe.finetune is not None and role != "head":
            start, share = frozen(recipe, plan), recipe.finetune.body_lr
        if names:
            made.append(Group(role, rule, tuple(names), share * peaks[role], decay, until, start))
    return made


def frozen(recipe: Recipe, plan: Plan) -> float:
    """The share of the run in which all but the last layer rests, batch norm's statistics with it; 0 where none is."""
    if recipe.finetune is None:
        return 0.0
    return min(1.0, recipe.finetune.frozen_epochs * plan.steps_per_epoch / plan.steps)


def body(architecture: Architecture) -> tuple[str, ...]:
    """The trained weights that are not the last layer's."""
    trained = [name for name, spec in specs(architecture).items() if spec.role == "trained"]
    return tuple(n for role, names in _by_role(architecture, trained, False).items() if role != "head" for n in names)


def _by_role(architecture: Architecture, names: Iterable[str], muon: bool) -> dict[Role, list[str]]:
    names = list(names)
    if architecture.external is not None:
        return _by_role_of(architecture.external, names)
    layers = {name: layer for name, layer, _, _ in walk(architecture)}
    head = [n for n in names if n.endswith(".kernel")][-1].rpartition(".")[0]
    found: dict[Role, list[str]] = {"kernel": [], "bias": [], "whiten": [], "head": [], "muon": []}
    for name in names:
        home, _, part = name.rpartition(".")
        layer = layers[home]
        role: Role
        if home == head:
            role = "head"
        elif isinstance(layer, Conv) and layer.init == "whiten" and part == "bias":
            role = "whiten"
        elif part != "kernel":
            role = "bias"
        else:
            role = "muon" if muon and isinstance(layer, Conv) else "kernel"
        found[role].append(name)
    return found


def _by_role_of(external: External, names: list[str]) -> dict[Role, list[str]]:
    """As timm and most others group them: weight decay is for matrices and kernels, not for biases, norms, positions
    and tokens."""
    found: dict[Role, list[str]] = {"kernel": [], "bias": [], "head": []}
    shapes = {name: shape for name, shape, _ in external.weights}
    for name in names:
        native = name.partition(".")[2]
        if any(native == module or native.startswith(f"{module}.") for module in external.head):
            found["head"].append(name)
        elif len(shapes[native]) >= 2 and native.endswith(("weight", "kernel")):
            found["kernel"].append(name)
        else:
            found["bias"].append(name)
    return found
