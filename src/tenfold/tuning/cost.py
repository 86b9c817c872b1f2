"""How much a recipe's training computes, beside another's: the same on every machine, however busy it is."""

from __future__ import annotations

import math

from tenfold.architecture import weights
from tenfold.architecture.layers import Architecture, Conv, Dense
from tenfold.recipe import Recipe

BACKWARD = 2  # forward passes' worth: the gradients of a layer's input and of its weights


def of_an_image(architecture: Architecture, recipe: Recipe) -> float:
    """Multiply-adds of one training image in convolutions and dense layers, averaged over the run where its first part
    is on smaller pictures; 0 for another library's network, of which they are not known."""
    total = 0.0
    for _, layer, before, after in weights.walk(architecture):
        if isinstance(layer, Conv):
            forward = math.prod(after) * layer.kernel**2 * before[-1]
            total += forward * (1 if layer.frozen else 1 + BACKWARD)
        elif isinstance(layer, Dense):
            total += math.prod(before) * layer.units * (1 + BACKWARD)
    low = recipe.low_res
    if low is not None:
        total *= low.until * (low.size / architecture.height) ** 2 + (1 - low.until)
    return total


def affordable(base: float, own: float) -> float:
    """The share of the recipe's passes (``base`` an image) that cost a trial (``own`` an image) no more than all of
    them cost the recipe."""
    return min(1.0, base / own) if base > 0 and own > 0 else 1.0
