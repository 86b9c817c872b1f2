"""Whether a network can be trained on smaller pictures first: the same answer from every engine."""

from __future__ import annotations

from tenfold.architecture.layers import Architecture, Flatten
from tenfold.architecture.weights import output_shapes
from tenfold.engines.batches import shrunk
from tenfold.errors import BundleError, UnsupportedError
from tenfold.recipe import Recipe


def check_low_res(architecture: Architecture, recipe: Recipe) -> None:
    """Raises UnsupportedError where ``low_res`` asks for pictures that the network can't take."""
    if recipe.low_res is None:
        return
    if architecture.external is not None:
        raise UnsupportedError(
            f"low_res is for tenfold's own networks, not {architecture.name}.", "Take --set low_res=null."
        )
    if any(isinstance(layer, Flatten) for layer in architecture.layers):
        raise UnsupportedError(
            f"low_res needs a network that takes any size; {architecture.name} flattens its pixels.",
            "Take model.name=sprint or resnet18, or --set low_res=null.",
        )
    size = recipe.low_res.size
    height, width = shrunk(architecture.height, architecture.width, size)
    try:
        output_shapes(Architecture(architecture.name, height, width, architecture.classes, architecture.layers))
    except BundleError as error:
        raise UnsupportedError(f"low_res.size={size}: {error.message}", "Take a larger one.") from None
