"""The search space: which fields of a recipe are tried with which values. The recipe's ``tune:`` section is one.

tune:
  optimizer.lr: {low: 0.1, high: 10, log: true}
  augment.translate: {low: 0, high: 6}              # whole numbers, for the field is one
  schedule.name: {choices: [linear, cosine]}
  model.widths: {choices: [[24, 64, 96], [32, 96, 128]]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from tenfold.errors import RecipeError, UnknownNameError
from tenfold.recipe_keys import unknown_field

if TYPE_CHECKING:
    from optuna.trial import Trial

    from tenfold.recipe import Recipe

# Passes, seeds and splits are the same in all trials: they would be compared with more training or easier images.
SEARCHED = ("model", "optimizer", "schedule", "augment", "low_res", "finetune")
SEARCHED_ALONE = ("batch_size", "virtual_batch_size", "label_smoothing", "class_weights", "ema")
NOT_SEARCHED = ("model.pretrained", "model.pretrained_file")

Value = bool | int | float | str | None | list[int] | list[float]


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, both allowed; whole ones where the recipe's field takes no others. ``log``
    draws them evenly over orders of magnitude."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("with log, low must be above 0")
        return self

    def holds(self, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

    def words(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


class Choices(BaseModel):
    """One of these values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    choices: Annotated[tuple[Value, ...], Field(min_length=2, max_length=100)]

    @model_validator(mode="after")
    def _different(self) -> Choices:
        if len({key(value) for value in self.choices}) < len(self.choices):
            raise ValueError("a choice stands there twice")
        return self

    def holds(self, value: Any) -> bool:
        return key(value) in {key(choice) for choice in self.choices}

    def words(self) -> str:
        return ", ".join(map(key, self.choices))


def _kind(value: Any) -> str:
    """Which of the two an axis is; an unknown key is refused with the nearest known one."""
    if not isinstance(value, Mapping):
        return "choices" if isinstance(value, Choices) else "range"
    for name in value:
        if name not in (*Range.model_fields, *Choices.model_fields):
            known = [*Range.model_fields, *Choices.model_fields]
            raise UnknownNameError("part of a range", str(name), known, where=" (tune)")
    return "choices" if "choices" in value else "range"


Axis = Range | Choices
# How a recipe holds one: which it is is asked first, so that an error speaks of one of them only.
Read = Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)]
Space = Mapping[str, Axis]


def key(value: Any) -> str:
    """A choice as text: what Optuna stores and shows, for it knows no lists. 1 and 1.0 are the same."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(key, value)) + "]"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def refuse_unsearchable(name: str, fields: Sequence[str]) -> None:
    """Raises UnknownNameError for what is no field, RecipeError for one that is the same in all trials."""
    if name not in fields:
        raise unknown_field(name, [f for f in fields if _searchable(f)], "tune")
    if not _searchable(name):
        raise RecipeError(
            f"tune: {name} can't be searched: it is the same in all trials.",
            f"Fields of {', '.join(SEARCHED)} can, and {', '.join(SEARCHED_ALONE)}.",
        )


def _searchable(name: str) -> bool:
    part, dot, _ = name.partition(".")
    return name not in NOT_SEARCHED and (part in SEARCHED if dot else name in SEARCHED_ALONE)


def check(recipe: Recipe, space: Space) -> None:
    """Raises RecipeError where a bound or a choice is not allowed in its field, or the recipe's own value is not among
    those to be tried: the recipe is the first trial, by which the others are measured."""
    from tenfold.recipe import override

    for name, axis in space.items():
        own = value_of(recipe, name)
        if not axis.holds(own):
            raise RecipeError(
                f"tune: {name} is {key(own)} in the recipe itself, which is not among {axis.words()}.",
                "The recipe is the first trial: widen the range, or set the field to a value within it.",
            )
        for value in ends(recipe, name, axis) if isinstance(axis, Range) else axis.choices:
            override(recipe, {name: value}, f"tune: {name}")


def ends(recipe: Recipe, name: str, axis: Range) -> tuple[float, float]:
    """Both ends of a range, as ints where the field is whole."""
    if not whole(recipe, name):
        return axis.low, axis.high
    if not (axis.low.is_integer() and axis.high.is_integer()):
        raise RecipeError(f"tune: {name} takes whole numbers; {axis.words()} are none.")
    return int(axis.low), int(axis.high)


def whole(recipe: Recipe, name: str) -> bool:
    return type(value_of(recipe, name)) is int


def value_of(recipe: Recipe, name: str) -> Any:
    """The value of a dotted field; None where its part is off."""
    value: Any = recipe
    for part in name.split("."):
        value = None if value is None else getattr(value, part)
    return list(value) if isinstance(value, tuple) else value


def own_values(recipe: Recipe, space: Space) -> dict[str, Any]:
    """The recipe's own values as Optuna's parameters."""
    return {n: key(value_of(recipe, n)) if isinstance(a, Choices) else value_of(recipe, n) for n, a in space.items()}


def suggest(trial: Trial, recipe: Recipe, space: Space) -> dict[str, Any]:
    """Values for every field of the space, as recipe overrides."""
    for name, axis in space.items():
        if isinstance(axis, Choices):
            trial.suggest_categorical(name, [key(choice) for choice in axis.choices])
        elif whole(recipe, name):
            low, high = ends(recipe, name, axis)
            trial.suggest_int(name, int(low), int(high), log=axis.log)
        else:
            trial.suggest_float(name, axis.low, axis.high, log=axis.log)
    return changes(trial.params, space)


def changes(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Optuna's parameters as recipe overrides; numbers of four digits, which is more than a search can tell apart."""
    found = {}
    for name, value in params.items():
        axis = space[name]
        if isinstance(axis, Choices):
            found[name] = next(choice for choice in axis.choices if key(choice) == value)
        else:
            found[name] = _rounded(value, axis) if isinstance(value, float) else value
    return found


def _rounded(value: float, axis: Range) -> float:
    """``value`` with four significant digits, never past the ends of its range."""
    return min(max(float(f"{value:.4g}"), axis.low), axis.high)


# ---- where the recipe has none -------------------------------------------------------------------------------


def default(recipe: Recipe) -> dict[str, Axis]:
    """The space around a recipe that has none: its rates from a twentieth to five times (a rate that is too high is
    the more common mistake), momentum, weight decay, batch size, schedule, augmentation, widths and depth."""
    found: dict[str, Axis] = {}
    optimizer = recipe.optimizer
    rates = ["lr", "muon_lr", "head_lr", "bias_lr"] if optimizer.name == "muon" else ["lr", "head_lr", "bias_lr"]
    for rate in rates:
        value = getattr(optimizer, rate)
        if value is not None:
            found[f"optimizer.{rate}"] = Range(low=_short(value / 20), high=_short(value * 5), log=True)
    if optimizer.name in ("sgd", "muon"):
        found["optimizer.momentum"] = _around(optimizer.momentum, 0.5, 0.97)
    if optimizer.name == "muon":
        found["optimizer.muon_momentum"] = _around(optimizer.muon_momentum, 0.4, 0.95)
    decay = optimizer.weight_decay
    found["optimizer.weight_decay"] = (
        Range(low=_short(decay / 10), high=_short(decay * 10), log=True) if decay else Range(low=0, high=1e-3)
    )
    batch = recipe.batch_size
    found["batch_size"] = _choices([max(1, batch // 2), batch, 2 * batch])
    found["schedule.name"] = _choices(["linear", "cosine", "onecycle", recipe.schedule.name])
    found["label_smoothing"] = _around(recipe.label_smoothing, 0.0, 0.3)
    found |= _augmentation(recipe)
    return found | _network(recipe)


def _augmentation(recipe: Recipe) -> dict[str, Axis]:
    augment, size = recipe.augment, recipe.data.size
    pixels = 32 if size == "auto" else size
    return {
        "augment.translate": Range(low=0, high=max(augment.translate, pixels // 8)),
        "augment.cutout": _choices([0, pixels // 4, pixels * 3 // 8, augment.cutout]),
        "augment.color_jitter": _around(augment.color_jitter, 0.0, 0.3),
    }


def _network(recipe: Recipe) -> dict[str, Axis]:
    """Widths and depth of a network of tenfold's own; another library's is as it is."""
    model = recipe.model
    if ":" in model.name:
        return {}
    found: dict[str, Axis] = {}
    if model.widths is not None:
        scaled = [[max(8, 8 * round(w * factor / 8)) for w in model.widths] for factor in (0.75, 1.25, 1.5)]
        found["model.widths"] = _choices([scaled[0], list(model.widths), *scaled[1:]])
    if model.name == "sprint":
        found["model.depth"] = Range(low=1, high=max(3, model.depth))
    return found


def _around(value: float, low: float, high: float) -> Range:
    return Range(low=min(low, value), high=max(high, value))


def _choices(values: Sequence[Any]) -> Choices:
    return Choices(choices=tuple({key(value): value for value in values}.values()))


def _short(value: float) -> float:
    return value if value == 0 or not math.isfinite(value) else float(f"{value:.6g}")
