"""Which network a recipe names and the weights it starts from: tenfold's own, or another library's by its engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tenfold import recipe as recipes
from tenfold.architecture import weights, zoo
from tenfold.architecture.layers import Architecture
from tenfold.bundle import store
from tenfold.data.dataset import Interpolation
from tenfold.engines import external
from tenfold.engines.base import Engine
from tenfold.outcome import Work
from tenfold.recipe import Model, Recipe
from tenfold.run import Run

TRIED = 4  # training images on which a network's graph is compared with the network before it is trained


def is_external(overrides: Mapping[str, Any]) -> bool:
    """Whether these changes of a recipe name another library's network."""
    model = overrides.get("model")
    name = overrides.get("model.name", model.get("name") if isinstance(model, Mapping) else None)
    return isinstance(name, str) and external.library(name) is not None


def build(engine: Engine, model: Model, height: int, width: int, classes: int) -> Architecture:
    """The architecture that ``model`` names, for pixels of ``height`` × ``width`` and ``classes`` logits."""
    library = external.library(model.name)
    if library is None:
        return zoo.build(model, height, width, classes)
    return engine.library(library).architecture(model, height, width, classes)


def as_made_for(engine: Engine, recipe: Recipe) -> Recipe:
    """Another library's network gets pictures of the size and interpolation that it was made for, where the recipe
    asks for none."""
    library = external.library(recipe.model.name)
    if library is None:
        return recipe
    changes: dict[str, Any] = {}
    pixels = engine.library(library).pixels(recipe.model)
    if recipe.data.size == "auto":
        changes["data.size"] = pixels.size
    if recipe.data.interpolation == "auto" and pixels.interpolation in get_args(Interpolation):
        changes["data.interpolation"] = pixels.interpolation
    if recipe.model.pretrained_file is not None:  # the run may be resumed from another folder
        changes["model.pretrained_file"] = str(Path(recipe.model.pretrained_file).absolute())
    return recipes.override(recipe, changes) if changes else recipe


def first_weights(work: Work, run: Run, say: Callable[[str], None], resumed: bool) -> Mapping[str, np.ndarray]:
    """Weights to start from, float32 by canonical name; ``say`` is given what the user must be told of them. A resumed
    run has its own, so pretrained ones are not had again."""
    architecture, recipe = work.architecture, work.recipe
    if architecture.external is None:
        return weights.initial(architecture, recipe.seed, work.dataset["train"].images)
    library = work.engine.library(architecture.external.library)
    if resumed:
        return library.first_weights(architecture, Model(name=recipe.model.name), recipe.seed).weights
    first = library.first_weights(architecture, recipe.model, recipe.seed)
    # a network that can't become a bundle is told now, not after it was trained
    images = np.array(work.dataset["train"].images[:TRIED])
    tried = _stirred(architecture, first.weights)
    logits = work.engine.logits(architecture, tried, images, work.device)
    store.require_graph(architecture, library.graph(architecture, tried), images, logits)
    run.update(pretrained=dict(first.origin))
    for sentence in [*first.notes, *_notes(recipe, first, library.pixels(recipe.model))]:
        say(sentence)
    return first.weights


def _stirred(architecture: Architecture, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights with random numbers for those that are all the same: many networks start their last layer, or the
    end of each block, with zeros, and no answer would tell a wrong graph of them from a right one."""
    rng = np.random.default_rng(0)
    out = dict(given)
    for name, spec in weights.specs(architecture).items():
        value = given[name]
        if spec.role == "trained" and (value == value.flat[0]).all():
            out[name] = (value + rng.normal(0, 0.1, value.shape)).astype(np.float32)
    return out


def _notes(recipe: Recipe, first: external.First, pixels: external.Pixels) -> list[str]:
    differs = pixels.differs()
    if first.origin and differs:
        return [f"These weights were made on pictures {differs}; from now on the network sees them as it says here."]
    if not first.origin and recipe.finetune is not None and recipe.finetune.frozen_epochs:
        return [
            "All weights are random, and at first only the last layer is trained (finetune.frozen_epochs): "
            "--set model.pretrained=true starts from weights that know something."
        ]
    return []
