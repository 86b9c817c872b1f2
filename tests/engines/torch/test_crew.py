from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold import recipe as recipes  # noqa: E402
from tenfold.architecture import weights, zoo  # noqa: E402
from tenfold.data.dataset import Dataset  # noqa: E402
from tenfold.engines import base  # noqa: E402
from tenfold.engines.base import Job  # noqa: E402
from tenfold.engines.schedule import plan  # noqa: E402
from tenfold.engines.torch import build  # noqa: E402
from tenfold.engines.torch.stepper import Stepper  # noqa: E402
from tenfold.recipe import Augment, Model, Recipe  # noqa: E402

RECIPE = Recipe(
    model=Model(name="sprint", widths=(8, 16)),
    augment=Augment(flip="alternating", translate=2, cutout=3),
    batch_size=64,
    virtual_batch_size=16,
    epochs=2,
    precision="fp32",
)


def stepper(recipe: Recipe, dataset: Dataset) -> Stepper:
    return Stepper(job(recipe, dataset), recipe.precision, plan(recipe, len(dataset["train"])))


def job(recipe: Recipe, dataset: Dataset) -> Job:
    architecture = zoo.build(recipe.model, 16, 16, len(dataset.classes))
    first = weights.initial(architecture, 0, dataset["train"].images)
    return Job(architecture, recipe, first, dataset, base.load("torch").device("cpu"))


def trained(recipe: Recipe, dataset: Dataset, threads: int) -> dict[str, np.ndarray]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return base.load("torch").fit(job(recipe, dataset)).weights
    finally:
        torch.set_num_threads(before)


def changed(recipe: Recipe, **fields: Any) -> Recipe:
    return recipes.override(recipe, {k.replace("__", "."): v for k, v in fields.items()})


def test_parts_on_threads_give_what_one_module_with_grouped_statistics_gives(squares: Dataset) -> None:
    plain = changed(RECIPE, augment={})
    crew, whole = stepper(plain, squares), stepper(plain, squares)
    assert crew.crew is not None
    whole.crew = None
    for norm in build.batch_norms(whole.net):
        norm.groups = whole.plan.parts
    for one in (crew, whole):
        loss, right = one.forward_backward(one.feed.take(0))
        one.found = (float(loss), int(right))  # type: ignore[attr-defined]
    assert crew.found == pytest.approx(whole.found, rel=1e-5)  # type: ignore[attr-defined]
    for name, tensor in crew.tensors.items():
        other = whole.tensors[name]
        assert torch.allclose(tensor, other, atol=1e-6), name  # the running statistics among them
        if tensor.grad is not None:
            assert torch.allclose(tensor.grad, other.grad, atol=1e-5), name


def test_a_part_has_its_own_statistics(squares: Dataset) -> None:
    plain = changed(RECIPE, augment={})
    parts, whole = stepper(plain, squares), stepper(changed(plain, virtual_batch_size=None), squares)
    assert whole.crew is None
    for one in (parts, whole):
        one.forward_backward(one.feed.take(0))
    name = next(n for n in whole.tensors if n.endswith("variance"))  # of parts it leaves out what lies between them
    assert float((whole.tensors[name] - parts.tensors[name]).mean()) > 1e-4


@pytest.mark.parametrize("network", [{}, {"model": {"name": "cnn", "widths": [4], "dropout": 0.3}}])
def test_the_number_of_threads_does_not_change_the_result(squares: Dataset, network: dict[str, Any]) -> None:
    recipe = changed(RECIPE, augment__flip="random", **network)
    one, two = (trained(recipe, squares, threads) for threads in (1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_dropout_in_parts_keeps_its_share_and_its_mean() -> None:
    layer = next(build.dropouts(build.build(zoo.build(Model(name="cnn", widths=(4,), dropout=0.3), 16, 16, 4))))
    layer.rng = torch.Generator().manual_seed(0)
    x = torch.ones(200, 500)
    out = layer.train()(x)
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(out.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(x), x)


def test_a_part_that_fails_fails_the_step(squares: Dataset) -> None:
    one = stepper(RECIPE, squares)
    assert one.crew is not None

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one.crew.forward_backward(fail, [0] * one.plan.parts)
