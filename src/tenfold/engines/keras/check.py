"""What these engines refuse."""

from __future__ import annotations

from tenfold.architecture.layers import Architecture
from tenfold.engines.low_res import check_low_res
from tenfold.errors import UnsupportedError
from tenfold.recipe import Recipe


def check(engine: str, architecture: Architecture, recipe: Recipe) -> None:
    """Raises UnsupportedError for the first field that ``engine`` can't honour."""
    if recipe.precision == "fp16":
        raise UnsupportedError(
            f"precision=fp16 needs a loss scale, which the {engine} engine does not have.",
            "Take bf16, fp32 or auto, or --engine torch.",
        )
    check_low_res(architecture, recipe)
