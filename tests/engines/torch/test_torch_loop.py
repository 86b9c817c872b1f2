from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold import recipe as recipes  # noqa: E402
from tenfold.architecture import weights, zoo  # noqa: E402
from tenfold.data.dataset import Dataset  # noqa: E402
from tenfold.engines import base  # noqa: E402
from tenfold.engines.base import Job, Notice  # noqa: E402
from tenfold.engines.batches import order  # noqa: E402
from tenfold.engines.schedule import plan  # noqa: E402
from tenfold.engines.torch import build  # noqa: E402
from tenfold.engines.torch.optimize import Optimizers  # noqa: E402
from tenfold.engines.torch.rules import Muon, orthogonalize  # noqa: E402
from tenfold.engines.torch.stepper import Stepper  # noqa: E402
from tenfold.errors import TrainingError  # noqa: E402
from tenfold.recipe import Model, Recipe  # noqa: E402

SMALL = Recipe(model=Model(name="cnn", widths=(4,), dropout=0.0), batch_size=32, epochs=1, precision="fp32")


def job(recipe: Recipe, dataset: Dataset, **more: Any) -> Job:
    architecture = zoo.build(recipe.model, 16, 16, len(dataset.classes))
    first = weights.initial(architecture, 0, dataset["train"].images)
    return Job(architecture, recipe, first, dataset, base.load("torch").device("cpu"), **more)


def test_orthogonalize_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), 5))
        assert values.min() > 0.6 and values.max() < 1.3


def test_muon_steps_a_stack_as_it_steps_each_alone() -> None:
    torch.manual_seed(0)
    first = [torch.randn(6, 4, 3, 3) for _ in range(3)]
    together = [torch.nn.Parameter(t.clone()) for t in first]
    alone = [torch.nn.Parameter(t.clone()) for t in first]
    optimizers = [Muon(together, 0.1, 0.6, True, 3)] + [Muon([p], 0.1, 0.6, True, 3) for p in alone]
    for _ in range(3):
        for a, b in zip(together, alone, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_each_weight_has_the_rate_of_its_kind(squares: Dataset) -> None:
    rates = {"optimizer.bias_lr": 100.0, "optimizer.head_lr": 5.0, "optimizer.muon_lr": 0.24}
    recipe = recipes.override(recipes.load("quick"), {**rates, "optimizer.whiten_bias_epochs": 1, "epochs": 4})
    architecture = zoo.build(recipe.model, 16, 16, 4)
    net = build.build(architecture)
    steps = plan(recipe, 1000)
    optimizers = Optimizers(recipe, architecture, build.tensors(net, architecture), steps)
    optimizers.set_rate(0.5)
    now = {g["group"].role: g["lr"] for o in optimizers._all for g in o.param_groups}
    assert now == pytest.approx({"bias": 50.0, "whiten": 0.0, "head": 2.5, "muon": 0.12})


@pytest.mark.parametrize("pieces", [2, 3])
def test_gradients_of_parts_add_up_to_those_of_the_whole(squares: Dataset, pieces: int) -> None:
    whole, parts = (Stepper(job(SMALL, squares), "fp32", plan(SMALL, len(squares["train"]))) for _ in range(2))
    parts.pieces = pieces
    for stepper in (whole, parts):
        for module in stepper.net.modules():  # batch norm's statistics are of a part; the rest must agree
            if isinstance(module, build._BatchNorm):
                module.forward = lambda x: x  # type: ignore[method-assign]
        stepper.forward_backward(stepper.feed.take(0))
    for name, tensor in whole.tensors.items():
        if tensor.grad is not None:
            assert torch.allclose(tensor.grad, parts.tensors[name].grad, atol=1e-5), name


def test_out_of_memory_halves_the_batch_says_so_and_goes_on(squares: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Any) -> Any:
        if self.training and len(x) > 10:
            raise torch.OutOfMemoryError("no room")
        return forward_before(self, x)

    forward_before = build._Normalize.forward
    monkeypatch.setattr(build._Normalize, "forward", forward)
    notices: list[str] = []
    result = base.load("torch").fit(
        job(SMALL, squares, report=lambda e: notices.append(e.message) if isinstance(e, Notice) else None)
    )
    assert result.steps == 8
    assert [n.split(":")[0] for n in notices] == ["Out of memory"] * 2
    assert "4 parts of 8" in notices[-1]


def test_memory_too_small_for_one_image_is_an_error_with_a_way_out(
    squares: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Any, x: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(build._Normalize, "forward", forward)
    with pytest.raises(TrainingError, match="one image at a time") as caught:
        base.load("torch").fit(job(SMALL, squares))
    assert "data.size" in str(caught.value)


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs(squares: Dataset) -> None:
    from tenfold.engines.torch.feed import Feed
    from tenfold.recipe import Augment

    train = squares["train"]
    steps = plan(Recipe(epochs=2, batch_size=64), len(train))
    feed = Feed(train, steps, Augment(flip="alternating"), 0, torch.device("cpu"))
    ways: dict[int, list[bool]] = {i: [] for i in range(len(train))}
    for step in range(steps.steps):
        batch = feed.take(step).batch(feed.settings, torch.zeros(3), None)
        pixels = batch.images.permute(0, 2, 3, 1).to(torch.uint8)
        start = step % steps.steps_per_epoch * 64
        index = order(0, steps.epoch_of(step), len(train))[start : start + 64]
        for image, i in zip(pixels.numpy(), index, strict=True):
            ways[int(i)].append(bool(np.array_equal(image, train.images[i])))
    assert all(sorted(w) == [False, True] for w in ways.values())


def test_training_leaves_the_processor_as_it_was(squares: Dataset) -> None:
    smallest = np.array([1e-310])
    inside: list[float] = []

    def listen(event: base.Event) -> None:
        inside.append((smallest * 1).item())

    base.load("torch").fit(job(SMALL, squares, report=listen))
    assert set(inside) == {0.0}
    assert (smallest * 1).item() == 1e-310
