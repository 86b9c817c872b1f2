"""The PyTorch engine: CPU, CUDA (ROCm through PyTorch's HIP build), Apple's MPS and Intel's XPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from tenfold.architecture.layers import Architecture
from tenfold.distributed import Peers, World
from tenfold.engines import base, loop
from tenfold.engines.external import Library
from tenfold.engines.low_res import check_low_res
from tenfold.engines.schedule import plan
from tenfold.engines.torch import build, compiled, devices
from tenfold.engines.torch.inference import logits
from tenfold.engines.torch.stepper import Stepper
from tenfold.errors import UnsupportedError
from tenfold.evaluation.tta import averaged
from tenfold.recipe import Recipe

if TYPE_CHECKING:
    from tenfold.engines.recording import Recording


class TorchEngine(base.Engine):
    name = "torch"
    finetunes = True

    def library(self, name: str) -> Library:
        from tenfold.engines.torch import external

        return external.Timm()

    def versions(self) -> dict[str, str]:
        found = {"torch": str(torch.__version__)}
        if torch.version.cuda:
            found["cuda"] = torch.version.cuda
            if torch.backends.cudnn.is_available():
                found["cudnn"] = str(torch.backends.cudnn.version())
        if torch.version.hip:
            found["hip"] = torch.version.hip
        return found

    def devices(self) -> list[base.Device]:
        return devices.found()

    def check(self, architecture: Architecture, recipe: Recipe, device: base.Device) -> None:
        if recipe.precision == "fp16" and not device.name.startswith(("cuda", "xpu")):
            raise UnsupportedError(
                f"precision=fp16 needs a CUDA or XPU device, not {device.name}.",
                "Take bf16, fp32 or auto.",
            )
        if recipe.precision == "bf16" and device.name == "mps":
            raise UnsupportedError("precision=bf16 is not available on mps.", "Take fp32 or auto.")
        if recipe.compile:
            compiled.check(device)
        check_low_res(architecture, recipe)

    def join(self, world: World) -> Peers:
        if not torch.distributed.is_available():
            raise UnsupportedError("This build of PyTorch has no torch.distributed: it trains in one process.")
        from tenfold.engines.torch.distributed import Group

        return Group(world)

    def precisions(self, device: base.Device) -> list[str]:
        return list(dict.fromkeys(["fp32", devices.precision("auto", device)]))

    def warm_up(self, device: base.Device) -> None:
        devices.warm_up(torch.device(device.name))

    @contextlib.contextmanager
    def steps(self, job: base.Job) -> Iterator[base.Steps]:
        steps = plan(job.recipe, len(job.dataset["train"]))
        precision = devices.precision(job.recipe.precision, job.device)
        watched = job.peers.watched()
        with watched, devices.without_subnormals(), devices.own_stream(torch.device(job.device.name)):
            yield base.Steps(Stepper(job, precision, steps), steps, precision)

    def record(self, steps: base.Steps, take: Callable[[], None], count: int) -> Recording:
        from tenfold.engines.torch.profile import record

        assert isinstance(steps.stepper, Stepper)
        return record(take, steps.stepper.sums, count, steps.stepper.device)

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
        if not len(images):
            return np.empty((0, architecture.classes), np.float32)
        where = torch.device(device.name)
        net = _built(architecture, weights, where)
        return averaged(lambda x: logits(net, x, where, batch_size, precision), images, tta)

    def answers(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
        device: base.Device,
        *,
        precision: str = "fp32",
    ) -> Callable[[np.ndarray], np.ndarray]:
        where = torch.device(device.name)
        net = _built(architecture, weights, where)
        return lambda images: logits(net, images, where, 500, precision)


def _built(architecture: Architecture, weights: Mapping[str, np.ndarray], where: torch.device) -> torch.nn.Module:
    net = build.build(architecture)
    build.load_weights(net, architecture, weights)
    net.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def engine(name: str) -> base.Engine:
    """The engine of this folder called ``name``."""
    return TorchEngine()
