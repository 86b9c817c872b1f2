"""The opencl engine, on tinygrad: any graphics card with an OpenCL driver, and processors through PoCL."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tenfold.architecture.layers import Architecture
from tenfold.engines import base, loop
from tenfold.engines.low_res import check_low_res
from tenfold.engines.schedule import plan
from tenfold.engines.tinygrad import devices
from tenfold.errors import UnsupportedError
from tenfold.evaluation.tta import averaged
from tenfold.recipe import Recipe


class TinygradEngine(base.Engine):
    name = "opencl"

    def versions(self) -> dict[str, str]:
        return {"tinygrad": importlib.metadata.version("tinygrad")}

    def devices(self) -> list[base.Device]:
        return devices.found()

    def device(self, name: str) -> base.Device:
        return devices.find(name)

    def check(self, architecture: Architecture, recipe: Recipe, device: base.Device) -> None:
        if recipe.precision in ("fp16", "bf16"):
            raise UnsupportedError(
                f"precision={recipe.precision} is not what the opencl engine computes in; it takes fp32.",
                "Take --set precision=auto, or --engine torch.",
            )
        check_low_res(architecture, recipe)

    @contextlib.contextmanager
    def steps(self, job: base.Job) -> Iterator[base.Steps]:
        from tenfold.engines.tinygrad.stepper import Stepper

        steps = plan(job.recipe, len(job.dataset["train"]))
        with devices.default(job.device):
            stepper = Stepper(job, steps)
            try:
                yield base.Steps(stepper, steps, "fp32")
            finally:
                stepper.feed.close()

    def fit(self, job: base.Job) -> base.FitResult:
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
        from tenfold.engines.tinygrad.inference import logits

        sent = _sent(weights, device)
        with devices.default(device):
            return averaged(lambda x: logits(architecture, sent, x, device, batch_size), images, tta)

    def answers(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
        device: base.Device,
        *,
        precision: str = "fp32",
    ) -> Callable[[np.ndarray], np.ndarray]:
        from tenfold.engines.tinygrad.inference import logits

        sent = _sent(weights, device)

        def answer(images: np.ndarray) -> np.ndarray:
            with devices.default(device):
                return logits(architecture, sent, images, device)

        return answer


def _sent(weights: Mapping[str, np.ndarray], device: base.Device) -> dict[str, Any]:
    """The weights as realized tensors on the device."""
    from tinygrad import Tensor

    with devices.default(device):
        where = devices.place(device)
        sent = {name: Tensor(np.array(array, np.float32), device=where) for name, array in weights.items()}
        Tensor.realize(*sent.values())
    return sent


def engine(name: str) -> base.Engine:
    """The engine of this folder called ``name``."""
    return TinygradEngine()
