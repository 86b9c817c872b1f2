"""A step's arithmetic on the device, against NumPy. Runs with ``--engine opencl``."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tenfold import recipe as recipes
from tenfold.architecture import layers as l
from tenfold.architecture import weights
from tenfold.engines import base, rules
from tenfold.engines.base import Device, Job
from tenfold.engines.draws import draw
from tenfold.engines.groups import groups
from tenfold.engines.schedule import plan
from tenfold.errors import TrainingError, UnsupportedError
from tenfold.recipe import Augment, Recipe

NETWORK = l.Architecture(
    "small", 16, 16, 4,
    (l.Normalize(), l.Conv(6, 3, stride=2), l.Activation(), l.Conv(4, 3, stride=2, bias=True), l.Flatten(), l.Dense(4)),
)  # fmt: skip


def made(cpu: Device, recipe: Recipe, squares: Any) -> Any:
    from tenfold.engines.tinygrad.stepper import Stepper

    first = weights.initial(NETWORK, 0, squares["train"].images)
    return Stepper(Job(NETWORK, recipe, first, squares, cpu), plan(recipe, 256))


def test_a_batch_is_convolved_in_parts_as_a_whole(cpu: Device) -> None:
    from tinygrad import Tensor

    from tenfold.engines.tinygrad import devices
    from tenfold.engines.tinygrad.conv import conv

    rng = np.random.default_rng(0)
    with devices.default(cpu):
        where = devices.place(cpu)
        x, kernel, ahead = (
            Tensor(rng.normal(size=shape).astype(np.float32), device=where).realize()
            for shape in ((6, 3, 7, 5), (4, 3, 3, 3), (6, 4, 4, 3))
        )
        ours, theirs = (
            [y, *(y * ahead).sum().gradient(x, kernel)]
            for y in (conv(x, kernel, None, 2, 1), x.conv2d(kernel, stride=2, padding=1))
        )
        Tensor.realize(*ours, *theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert np.allclose(a.numpy(), b.numpy(), atol=1e-4)


def test_batch_norm_takes_its_statistics_over_unequal_parts(cpu: Device) -> None:
    from tinygrad import Tensor

    from tenfold.engines.tinygrad import build, devices

    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (7, 2, 3, 3)).astype(np.float32)
    layer = l.BatchNorm(momentum=0.75, scale=False, center=False)
    with devices.default(cpu):
        where = devices.place(cpu)
        names = {"00_batchnorm.mean": np.full(2, 5.0), "00_batchnorm.variance": np.full(2, 7.0)}
        held = {n: Tensor(a.astype(np.float32), device=where).realize() for n, a in names.items()}
        training = build.Training(3, Tensor(np.zeros(1, np.uint32), device=where))
        out = build.forward((layer,), held, Tensor(x, device=where), training).numpy()
        statistics = {n: t.numpy() for n, t in training.statistics.items()}
    parts = np.array_split(x, 3)  # 3, 2 and 2 pictures, as torch.tensor_split does
    wanted = [(p - p.mean((0, 2, 3), keepdims=True)) / np.sqrt(p.var((0, 2, 3), keepdims=True) + 1e-5) for p in parts]
    assert np.allclose(out, np.concatenate(wanted), atol=1e-4)
    mean = 0.75 * 5 + 0.25 * np.mean([p.mean((0, 2, 3)) for p in parts], 0)
    variance = 0.75 * 7 + 0.25 * np.mean([p.var((0, 2, 3), ddof=1) for p in parts], 0)
    assert np.allclose(statistics["00_batchnorm.mean"], mean, rtol=1e-5)
    assert np.allclose(statistics["00_batchnorm.variance"], variance, rtol=1e-5)


class Spelled:
    """NumPy's spelling of what the rules need."""

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(len(kernel), -1)

    def kernel(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        return matrix.reshape(like.shape)

    def transpose(self, matrix: np.ndarray) -> np.ndarray:
        return matrix.T

    def total(self, array: np.ndarray) -> np.ndarray:
        return array.sum()


@pytest.mark.parametrize("rule", ["sgd", "muon"])
def test_buffers_weights_and_average_move_together(cpu: Device, squares: Any, rule: str) -> None:
    """All are written in place in one go: each must have been read before it is written, or after, as the rule says.

    The gradient is what the momentum's buffer took in.
    """
    from tenfold.engines.tinygrad import devices

    optimizer = recipes.Optimizer(name=rule, lr=0.1, momentum=0.9, muon_momentum=0.6, weight_decay=0.01)  # type: ignore[arg-type]
    recipe = Recipe(batch_size=32, optimizer=optimizer, ema=0.9, epochs=2, precision="fp32")
    steps = plan(recipe, 256)
    with devices.default(cpu):
        stepper = made(cpu, recipe, squares)
        states = [stepper.state()]
        for step in range(3):
            stepper.take(step, step / 16)
            states.append(stepper.state())
        stepper.close()
    for step, (before, after) in enumerate(itertools.pairwise(states)):
        for group in groups(recipe, NETWORK, steps):
            momentum = 0.6 if group.rule == "muon" else 0.9
            now = rules.scalars(group, recipe, step / 16, step)
            for name in group.names:
                weight = before.part("weight")[name]
                held = {"momentum_buffer": before.part("optimizer")[f"{name}#momentum_buffer"]}
                gradient = after.part("optimizer")[f"{name}#momentum_buffer"] - momentum * held["momentum_buffer"]
                if group.rule == "sgd":
                    gradient = gradient - group.weight_decay * weight
                wanted, _ = rules.update(group, optimizer, weight, gradient, held, now, Spelled())
                found = after.part("weight")[name]
                assert np.allclose(found, wanted, atol=1e-4), (step, name)
                assert not np.allclose(found, weight, atol=1e-6)
                forgotten = 1 - min(0.9, (2 + step) / (11 + step))
                average = before.part("average")[name] * (1 - forgotten) + found * forgotten
                assert np.allclose(after.part("average")[name], average, atol=1e-6)


@pytest.mark.parametrize("more", [{"mixup": 0.5}, {"cutmix": 1.0}])
def test_pictures_are_computed_as_the_draws_say(cpu: Device, more: dict[str, Any]) -> None:
    from tinygrad import Tensor

    from tenfold.engines.tinygrad import devices
    from tenfold.engines.tinygrad.augment import augment

    settings = Augment(cutout=3, color_jitter=0.3, **more)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    drawn = draw(settings, 4, 8, 8, 1, 2)
    assert drawn.color is not None and drawn.cutout is not None and drawn.other is not None
    mean = np.array([10.0, 20.0, 30.0], np.float32)
    x = pixels.astype(np.float64) * drawn.color[0][:, None, None, None]
    luma = np.array([0.299, 0.587, 0.114])
    gray = (x @ luma).mean((1, 2))[:, None, None, None]
    x = gray + (x - gray) * drawn.color[1][:, None, None, None]
    gray = (x @ luma)[..., None]
    x = np.clip(gray + (x - gray) * drawn.color[2][:, None, None, None], 0, 255)
    for i, (top, left) in enumerate(drawn.cutout.T):
        x[i, top : top + 3, left : left + 3] = mean
    if drawn.box is None:
        x = drawn.share * x + (1 - drawn.share) * x[drawn.other]
    else:
        top, left, height, width = drawn.box
        mixed = x[drawn.other]
        x[:, top : top + height, left : left + width] = mixed[:, top : top + height, left : left + width]
    arrays = {"pixels": pixels, "color": drawn.color, "cutout": drawn.cutout, "share": np.atleast_1d(drawn.share)}
    arrays |= {f"mixed_{n}": arrays[n][..., drawn.other] for n in ("color", "cutout")}
    arrays |= {"mixed_pixels": pixels[drawn.other]} | ({"box": drawn.box} if drawn.box is not None else {})
    with devices.default(cpu):
        where = devices.place(cpu)
        inputs = {n: Tensor(np.ascontiguousarray(a), device=where).realize() for n, a in arrays.items()}
        found = augment(inputs, settings, Tensor(mean, device=where), 4).numpy()
    small = x.reshape(4, 4, 2, 4, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    assert np.abs(found - small).max() < 1e-2


def test_dropout_leaves_out_its_share_and_another_each_step(cpu: Device) -> None:
    from tinygrad import Tensor

    from tenfold.engines.tinygrad import build, devices

    with devices.default(cpu):
        where = devices.place(cpu)

        def dropped(seed: int) -> np.ndarray:
            training = build.Training(1, Tensor(np.array([seed], np.uint32), device=where))
            x = Tensor(np.ones((200, 100), np.float32), device=where)
            return build.forward((l.Dropout(0.3),), {}, x, training).numpy()

        a, b = dropped(7), dropped(8)
    assert set(np.unique(a)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
    for found in (a, b):
        assert (found == 0).mean() == pytest.approx(0.3, abs=0.015)
        assert abs((found == 0).mean(0) - 0.3).max() < 0.15  # no column is left out more than others
    assert ((a == 0) & (b == 0)).mean() == pytest.approx(0.09, abs=0.01)


def test_memory_that_runs_out_comes_with_a_way_out(cpu: Device, squares: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold.engines.tinygrad import devices

    def full(inputs: Any) -> None:
        raise RuntimeError("OpenCL Error -4: CL_MEM_OBJECT_ALLOCATION_FAILURE")

    with devices.default(cpu):
        stepper = made(cpu, Recipe(batch_size=32), squares)
        stepper._steps[None] = full
        with pytest.raises(TrainingError, match="batch_size=16"):
            stepper.take(0, 0.0)
        stepper._steps[None] = lambda inputs: 1 / 0
        with pytest.raises(ZeroDivisionError):
            stepper.take(1, 0.0)
        stepper.close()


@pytest.mark.parametrize("changes", [{"precision": "fp16"}, {"precision": "bf16"}])
def test_what_it_does_not_do_is_refused_with_the_engine_that_does(cpu: Device, changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=rf"{next(iter(changes))}=.*torch"):
        base.load("opencl").check(NETWORK, recipes.override(Recipe(), changes), cpu)
