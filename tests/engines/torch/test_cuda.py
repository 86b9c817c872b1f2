"""The CUDA path against the CPU one. Run by ``benchmarks/gpu/check.sh`` first of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold import recipe as recipes  # noqa: E402
from tenfold.architecture import weights, zoo  # noqa: E402
from tenfold.data.dataset import Dataset  # noqa: E402
from tenfold.engines import base  # noqa: E402
from tenfold.engines.base import FitResult, Job, Notice, State  # noqa: E402
from tenfold.recipe import Model, Recipe  # noqa: E402

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

PLAIN = Recipe(
    model=Model(name="sprint", widths=(16, 32)),
    batch_size=32,
    epochs=3,
    precision="fp32",
    checkpoint=recipes.Checkpoint(seconds=0),
)


class Memory:
    def __init__(self) -> None:
        self.states: list[State] = []

    def save(self, state: State) -> None:
        self.states.append(state)


def fit(recipe: Recipe, dataset: Dataset, device: str, **more: Any) -> FitResult:
    engine = base.load("torch")
    architecture = zoo.build(recipe.model, 16, 16, len(dataset.classes))
    first = weights.initial(architecture, recipe.seed, dataset["train"].images)
    return engine.fit(Job(architecture, recipe, first, dataset, engine.device(device), **more))


@pytest.mark.parametrize("network", ["cnn", "sprint", "resnet18"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 6e-2), ("fp16", 1e-2)])
def test_same_logits_as_on_the_cpu(squares: Dataset, network: str, precision: str, tolerance: float) -> None:
    engine = base.load("torch")
    architecture = zoo.build(Model(name=network, widths=(8, 16)), 16, 16, 4)
    first = weights.initial(architecture, 0, squares["train"].images)
    images = squares["test"].images
    cpu = engine.logits(architecture, first, images, engine.device("cpu"))
    card = engine.logits(architecture, first, images, engine.device("cuda"), precision=precision)
    assert np.abs(card - cpu).max() <= tolerance * max(1.0, np.abs(cpu).max())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2)])
def test_same_first_step_as_on_the_cpu(squares: Dataset, optimizer: str, precision: str, tolerance: float) -> None:
    changes = {"optimizer": {"name": optimizer, "lr": 0.01}, "batch_size": 256, "epochs": 1}
    recipe = recipes.override(PLAIN, changes)
    cpu = fit(recipe, squares, "cpu")
    card = fit(recipes.override(recipe, {"precision": precision}), squares, "cuda")
    assert card.steps == cpu.steps == 1
    assert card.history[0].loss == pytest.approx(cpu.history[0].loss, rel=tolerance)
    if optimizer == "sgd":  # Adam's first step is the sign of a gradient, which rounding can turn
        for name, value in cpu.weights.items():
            assert np.abs(card.weights[name] - value).max() <= tolerance * max(1.0, np.abs(value).max()), name


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_resumed_equals_unbroken_bit_for_bit(squares: Dataset, optimizer: str, precision: str) -> None:
    recipe = recipes.override(
        PLAIN,
        {
            "precision": precision,
            "optimizer": {"name": optimizer, "lr": 0.01},
            "augment": {"flip": "random", "translate": 2},
            "low_res": {"size": 12, "until": 0.5},
        },
    )
    memory = Memory()
    whole = fit(recipe, squares, "cuda", checkpoints=memory)
    for state in memory.states[:: max(1, len(memory.states) // 4)]:
        resumed = fit(recipe, squares, "cuda", resume=state)
        assert all(np.array_equal(resumed.weights[n], whole.weights[n]) for n in whole.weights)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mixed_precision_learns_without_nan(squares: Dataset, precision: str) -> None:
    recipe = recipes.override(recipes.load("sprint"), {"precision": precision, "batch_size": 32, "epochs": 10})
    recipe = recipes.override(recipe, {"model.widths": [16, 32], "augment.flip": "none", "min_steps": 0})
    result = fit(recipe, squares, "cuda")
    assert all(np.isfinite(w).all() for w in result.weights.values())
    assert (result.history[-1].val_accuracy or 0) > 0.9


def test_out_of_memory_halves_the_batch_and_goes_on(squares: Dataset) -> None:
    recipe = recipes.override(PLAIN, {"model": {"name": "resnet18"}, "batch_size": 256, "epochs": 2})
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    notices: list[str] = []
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 480 * 2**20) / total)
    try:
        result = fit(
            recipe,
            squares,
            "cuda",
            report=lambda e: notices.append(e.message) if isinstance(e, Notice) else None,
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert result.steps == 2
    assert any("Out of memory" in n for n in notices)
