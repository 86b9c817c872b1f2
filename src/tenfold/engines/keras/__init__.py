"""The engines ``tensorflow`` and ``jax``: one implementation on Keras 3. Which of the two a process has is chosen when
the first is loaded, and stays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tenfold.architecture.layers import Architecture
from tenfold.engines import base
from tenfold.engines.external import Library
from tenfold.engines.keras import framework
from tenfold.recipe import Recipe


class KerasEngine(base.Engine):
    finetunes = True

    def __init__(self, name: str) -> None:
        self.name = name

    def library(self, name: str) -> Library:
        from tenfold.engines.keras import external

        return external.Applications()

    def versions(self) -> dict[str, str]:
        import keras

        return {**framework.chosen().versions(), "keras": keras.__version__}

    def devices(self) -> list[base.Device]:
        from tenfold.engines.keras import devices

        return devices.found()

    def check(self, architecture: Architecture, recipe: Recipe, device: base.Device) -> None:
        from tenfold.engines.keras.check import check

        check(self.name, architecture, recipe)

    def precisions(self, device: base.Device) -> list[str]:
        from tenfold.engines.keras import devices

        return list(dict.fromkeys(["fp32", devices.precision("auto", device)]))

    def warm_up(self, device: base.Device) -> None:
        import keras  # noqa: F401 (a second of imports, while data is read)

    @contextlib.contextmanager
    def steps(self, job: base.Job) -> Iterator[base.Steps]:
        from tenfold.engines.keras import devices
        from tenfold.engines.keras.stepper import Stepper
        from tenfold.engines.schedule import plan

        steps = plan(job.recipe, len(job.dataset["train"]))
        precision = devices.precision(job.recipe.precision, job.device)
        framework.chosen().prepare(job.device, precision)
        yield base.Steps(Stepper(job, precision, steps), steps, precision)

    def fit(self, job: base.Job) -> base.FitResult:
        from tenfold.engines import loop

        with self.steps(job) as steps:
            return loop.fit(job, steps.stepper, steps.plan, steps.precision)

    def logits(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
        images: np.ndarray,
        device: base.Device,
        *,
        batch_size: int = 500,
        precision: str = "fp32",
        tta: str = "none",
    ) -> np.ndarray:
        from tenfold.engines.keras import build, inference
        from tenfold.evaluation.tta import averaged

        if not len(images):
            return np.empty((0, architecture.classes), np.float32)
        chosen = framework.chosen()
        chosen.prepare(device, precision)
        sent = chosen.send(build.native(weights), device)
        return averaged(lambda x: inference.logits(architecture, sent, x, device, batch_size, precision), images, tta)

    def answers(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
        device: base.Device,
        *,
        precision: str = "fp32",
    ) -> Callable[[np.ndarray], np.ndarray]:
        from tenfold.engines.keras import build, inference

        chosen = framework.chosen()
        chosen.prepare(device, precision)
        sent = chosen.send(build.native(weights), device)
        return lambda images: inference.logits(architecture, sent, images, device, 500, precision)


def engine(name: str) -> base.Engine:
    """The engine of this folder called ``name``. Raises UnsupportedError where Keras is loaded with another one."""
    framework.load(name)
    return KerasEngine(name)
