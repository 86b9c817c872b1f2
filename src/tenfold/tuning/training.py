"""One training of a search: the recipe with some fields changed, on data that is there already, without a run folder.

The steps are the engine's own, as in every training; what is here only watches its events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tenfold import networks
from tenfold import recipe as recipes
from tenfold.architecture import weights
from tenfold.architecture.layers import Architecture
from tenfold.data import load_dataset
from tenfold.data.dataset import Dataset
from tenfold.engines import base as engines
from tenfold.engines.base import Device, Engine, EpochEnd, Event, FitResult, Job, Started, Step
from tenfold.recipe import Recipe
from tenfold.training import fit_to_data
from tenfold.tuning import cost, space

if TYPE_CHECKING:
    from optuna.trial import Trial

SAY_SECONDS = 1.0


class Watch:
    """Hears a training's events: tells how far it is, and stops it where asked or where it is pruned.

    say      called with ``event="step"`` and ``event="epoch"`` and their figures
    stopped  asked after every step
    prune    asked at every epoch's end but the last, with the epoch and its validation accuracy
    """

    def __init__(
        self,
        say: Callable[..., None],
        stopped: Callable[[], bool],
        prune: Callable[[int, float], bool] = lambda epoch, accuracy: False,
    ) -> None:
        self._say, self._stopped, self._prune = say, stopped, prune
        self.reason: Literal["pruned", "stopped"] | None = None
        self._steps, self._told = 1, 0.0
        self._best = 0.0

    def report(self, event: Event) -> None:
        if isinstance(event, Started):
            self._steps = event.steps
        elif isinstance(event, Step) and time.monotonic() - self._told >= SAY_SECONDS:
            self._told = time.monotonic()
            self._say(event="step", done=event.step / self._steps)
        elif isinstance(event, EpochEnd):
            accuracy = event.val_accuracy or 0.0
            self._best = max(self._best, accuracy)
            self._say(event="epoch", epoch=event.epoch, value=accuracy, done=event.step / self._steps)
            if self._prune(event.epoch, accuracy) and event.step < self._steps:
                self.reason = "pruned"

    def stop(self) -> str | None:
        if self.reason is None and self._stopped():
            self.reason = "stopped"
        return self.reason

    def accuracy(self, fitted: FitResult) -> float:
        """Of the weights that the training leaves: the last, or with ``patience`` the best."""
        last = fitted.history[-1].val_accuracy if fitted.history else None
        return self._best if fitted.ended == "patience" or last is None else last


@dataclass(frozen=True)
class Ground:
    """What all trainings of a process share. ``recipe`` has the space in ``tune``."""

    engine: Engine
    device: Device
    recipe: Recipe
    dataset: Dataset

    @classmethod
    def open(cls, recipe: Path, data: str, engine: str, device: str) -> Ground:
        framework = engines.load(engine)
        where = framework.device(device)
        named = recipes.read(recipe)
        return cls(framework, where, named, load_dataset(data, named.data))

    def suggest(self, trial: Trial) -> dict[str, Any]:
        return space.suggest(trial, self.recipe, self.recipe.tune or {})

    def train(
        self, changes: Mapping[str, Any], watch: Watch, *, slower: bool = True, seed: int | None = None
    ) -> FitResult:
        """Trains with ``changes``; without ``slower`` a network that computes more makes fewer passes.

        Raises RecipeError or UnsupportedError for what can't be trained, TrainingError for what failed.
        """
        every: dict[str, Any] = dict(changes) if seed is None else {**changes, "seed": seed}
        recipe, architecture = self._resolved(every)
        if not slower:
            own, first = self._resolved({})
            share = cost.affordable(cost.of_an_image(first, own), cost.of_an_image(architecture, recipe))
            if share < 1:
                recipe, architecture = self._resolved({**every, "epochs": round(share * own.epochs, 2)})
        engines.check(self.engine, architecture, recipe, self.device)
        return self.engine.fit(
            Job(
                architecture,
                recipe,
                self._first_weights(architecture, recipe),
                self.dataset,
                self.device,
                report=watch.report,
                stop=watch.stop,
            )
        )

    def test(self, changes: Mapping[str, Any], trained: Mapping[str, np.ndarray]) -> tuple[int, int]:
        """Images of the test split that are classified right, and all of them."""
        _, architecture = self._resolved(changes)
        test = self.dataset["test"]
        logits = self.engine.logits(architecture, trained, test.images, self.device)
        return int((logits.argmax(1) == test.labels).sum()), len(test)

    def _resolved(self, changes: Mapping[str, Any]) -> tuple[Recipe, Architecture]:
        recipe, _ = fit_to_data(recipes.override(self.recipe, {**changes, "tune": None}, "trial"), self.dataset)
        geometry = self.dataset.geometry
        return recipe, networks.build(
            self.engine, recipe.model, geometry.height, geometry.width, len(self.dataset.classes)
        )

    def _first_weights(self, architecture: Architecture, recipe: Recipe) -> Mapping[str, np.ndarray]:
        if architecture.external is None:
            return weights.initial(architecture, recipe.seed, self.dataset["train"].images)
        library = self.engine.library(architecture.external.library)
        return library.first_weights(architecture, recipe.model, recipe.seed).weights
