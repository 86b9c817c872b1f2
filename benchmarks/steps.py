"""A recipe's training steps on real pictures, for the scripts beside this file that time and profile them."""

from __future__ import annotations

import time

import torch

from tenfold import recipe as recipes
from tenfold.architecture import weights, zoo
from tenfold.data import load_dataset
from tenfold.engines import base
from tenfold.engines.base import Job
from tenfold.engines.loop import Training
from tenfold.engines.schedule import plan
from tenfold.engines.torch import devices
from tenfold.engines.torch.stepper import Stepper
from tenfold.recipe import Recipe
from tenfold.training import fit_to_data


def prepared(name: str, data: str, device: str, overrides: dict[str, object]) -> tuple[Job, str]:
    """The job that ``tenfold train DATA --recipe NAME`` would give the engine, and its precision."""
    engine = base.load("torch")
    where = engine.device(device)
    recipe = recipes.override(recipes.load(name), overrides)
    dataset = load_dataset(data, recipe.data)
    recipe, _ = fit_to_data(recipe, dataset)
    geometry = dataset.geometry
    architecture = zoo.build(recipe.model, geometry.height, geometry.width, len(dataset.classes))
    first = weights.initial(architecture, recipe.seed, dataset["train"].images)
    return Job(architecture, recipe, first, dataset, where), devices.precision(recipe.precision, where)


def started(job: Job, precision: str) -> Training:
    """A training that waits for its first step."""
    steps = plan(job.recipe, len(job.dataset["train"]))
    return Training(job, Stepper(job, precision, steps), steps, precision)


def at_full_size(recipe: Recipe) -> Recipe:
    return recipes.override(recipe, {"low_res": None})


def device(training: Training) -> torch.device:
    return torch.device(training.job.device.name)


def wait(training: Training) -> None:
    if device(training).type == "cuda":
        torch.cuda.synchronize(device(training))


def seconds_a_step(training: Training, steps: int, warm_up: int = 2) -> float:
    """The median over ``steps`` steps, each waited for, after ``warm_up`` that do not count."""
    taken = []
    for number in range(warm_up + steps):
        wait(training)
        start = time.perf_counter()
        training.take_step()
        wait(training)
        if number >= warm_up:
            taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]
