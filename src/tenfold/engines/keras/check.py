"""What these engines refuse."""

from __future__ import annotations

from tenfold.architecture.layers import Architecture, Flatten
from tenfold.architecture.weights import output_shapes
from tenfold.errors import BundleError, UnsupportedError
from tenfold.recipe import Recipe


def check(engine: str, architecture: Architecture, recipe: Recipe) -> None:
    """Raises UnsupportedError for the first field that ``engine`` can't honour."""
    if recipe.precision == "fp16":
        raise UnsupportedError(
            f"precision=fp16 needs a loss scale, which the {engine} engine does not have.",
            "Take bf16, fp32 or auto, or --engine torch.",
        )
    if recipe.low_res is None:
        return
    if any(isinstance(layer, Flatten) for layer in architecture.layers):
        raise UnsupportedError(
            f"low_res needs a network that takes any size; {architecture.name} flattens its pixels.",
            "Take model.name=sprint or resnet18, or --set low_res=null.",
        )
    size = recipe.low_res.size
    scale = min(1.0, size / max(architecture.height, architecture.width))
    height, width = (max(1, round(d * scale)) for d in (architecture.height, architecture.width))
    try:
        output_shapes(Architecture(architecture.name, height, width, architecture.classes, architecture.layers))
    except BundleError as error:
        raise UnsupportedError(f"low_res.size={size}: {error.message}", "Take a larger one.") from None
