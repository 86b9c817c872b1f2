"""Options that several verbs have, each declared once: its type, flags, help and panel. Defaults stand at the verb.

What they come to is here too: :func:`overrides_of` makes recipe fields of ``--set`` and the options that are short for
some of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tenfold.errors import CallError, RecipeError

# Panels of --help of the verbs that train.
RECIPE, WHERE, OUT = "The recipe and its fields", "Where it runs", "What is left and printed"

# ---- verbs that train ----------------------------------------------------------------------------------------------

TrainingData = Annotated[
    str | None,
    typer.Argument(
        help="A dataset's name (digits, cifar10, cifar100), a folder of pictures, or a CSV of paths and labels; "
        "digits where left out.",
        show_default=False,
    ),
]
RecipeChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", rich_help_panel=RECIPE, help="Change any field of the recipe; repeatable."
    ),
]
Epochs = Annotated[float | None, typer.Option(rich_help_panel=RECIPE, help="Passes over the training images, 2.5 too.")]
BatchSize = Annotated[int | None, typer.Option(rich_help_panel=RECIPE, help="Images a step.")]
ResultAsJson = Annotated[bool, typer.Option("--json", rich_help_panel=OUT, help="Print one JSON object.")]


def recipe_option(text: str) -> Any:
    return typer.Option("--recipe", metavar="NAME|FILE", rich_help_panel=RECIPE, help=text)


def time_limit_option(text: str, panel: str = RECIPE) -> Any:
    return typer.Option(metavar="TIME", rich_help_panel=panel, help=text)


def where_option(text: str) -> Any:
    """--engine, --device and their like."""
    return typer.Option(metavar="NAME", rich_help_panel=WHERE, help=text)


def out_option(text: str) -> Any:
    return typer.Option(metavar="DIR", rich_help_panel=OUT, show_default=False, help=text)


# ---- verbs that take a trained model -------------------------------------------------------------------------------

AnyModel = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The folder of a run, a bundle or an exported artifact, or a model.onnx."),
]
Split = Annotated[str, typer.Option(metavar="S", help="train, val, test, or all for every picture of the data.")]

# ---- verbs that read data ------------------------------------------------------------------------------------------

Data = Annotated[str, typer.Argument(metavar="DATA", help="A dataset's name, a folder of pictures or a CSV file.")]

# ---- every verb ----------------------------------------------------------------------------------------------------

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

# ---- the recipe's fields --------------------------------------------------------------------------------------------

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:min|[dhms])\s*)+")


def overrides_of(changes: list[str], named: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe fields by dotted name from --set and the named options, which must not contradict each other."""
    fields = _named_fields(named)
    if not changes:
        return {name: value for name, (_, value) in fields.items()}
    from tenfold.recipe import parse_set

    overrides: dict[str, Any] = {}
    for text in changes:
        name, value = parse_set(text)
        if overrides.get(name, value) != value:
            raise CallError(f"--set gives {name} twice: {overrides[name]!r} and {value!r}.", "Leave one out.")
        overrides[name] = value
    for name, (option, value) in fields.items():
        if name in overrides and overrides[name] != value:
            raise CallError(
                f"{option} says {value:g} and --set {name}={overrides[name]} says otherwise.",
                "Leave one of the two out.",
            )
        overrides[name] = value
    return overrides


def _named_fields(named: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Recipe field → (option, value) of the named options that were given."""
    fields = {}
    for option, value in named.items():
        if value is None:
            continue
        if option == "--time-limit":
            value = duration(value)
        if value < 0 or (value == 0 and option != "--seed"):
            least = "must not be below 0" if option == "--seed" else "must be above 0"
            raise RecipeError(f"{option} {value:g}: {least}.")
        fields[option[2:].replace("-", "_")] = (option, value)
    return fields


def duration(text: str) -> float:
    """Seconds of ``30s``, ``10m``, ``2h``, ``1h30m``, ``1d`` or a plain number of seconds."""
    plain = text.strip().lower()
    try:
        value = float(plain)
    except ValueError:
        if not _DURATION.fullmatch(plain):
            raise RecipeError(
                f"--time-limit {text!r} is not a duration.", "Write it as 30s, 10m, 2h or 1h30m; 90 means 90 seconds."
            ) from None
        value = sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"([\d.]+)\s*(min|[dhms])", plain))
    if not 0 < value < float("inf"):
        raise RecipeError(f"--time-limit {text!r}: must be above 0.")
    return value


def names_of(text: str | None, option: str) -> list[str] | None:
    """``torch,jax`` → its names; None where the option was not given."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise CallError(f"{option} {text!r}: a name is empty.", "Write names with commas between: torch,jax.")
    return names
