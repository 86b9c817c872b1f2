"""The options --recipe and --set of verbs that only read data: they take the recipe's ``data`` part from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tenfold.recipe import Data

RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME|FILE", help="Take size, resize policy and splits from this recipe."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a field of the recipe's data part, as data.size=64; repeatable."
    ),
]


def data_settings(recipe: str | None, changes: list[str] | None) -> Data:
    """The ``data`` part of a recipe with changes made. Raises RecipeError or UnknownNameError."""
    from tenfold import recipe as recipes

    chosen = recipes.load(recipe) if recipe and recipe != "auto" else recipes.from_mapping({})
    if changes:
        fields: dict[str, Any] = dict(map(recipes.parse_set, changes))
        chosen = recipes.override(chosen, fields)
    return chosen.data
