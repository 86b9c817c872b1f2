"""The rules as arithmetic, with NumPy's arrays, beside those of the PyTorch engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference import NumPy

from tenfold import recipe as recipes
from tenfold.architecture import weights, zoo
from tenfold.architecture.weights import specs
from tenfold.engines import rules
from tenfold.engines.groups import groups
from tenfold.engines.schedule import plan

STEPS = 4
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01, "bias_lr": 0.3},
    "plain": {"name": "sgd", "lr": 0.1, "momentum": 0.0},
    "heavy-ball": {"name": "sgd", "lr": 0.1, "nesterov": False},
    "adam": {"name": "adam", "lr": 0.01, "weight_decay": 0.1},
    "adamw": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "head_lr": 0.02},
    "muon": {"name": "muon", "lr": 0.1, "weight_decay": 0.01, "whiten_bias_epochs": 2},
}


@pytest.mark.parametrize("rule", RULES)
def test_steps_are_those_of_the_pytorch_engine(rule: str) -> None:
    torch = pytest.importorskip("torch", reason="needs tenfold[torch]")
    from tenfold.engines.torch.optimize import Optimizers

    recipe = recipes.override(
        recipes.load("sprint"), {"model.widths": [8, 12], "optimizer": RULES[rule], "epochs": STEPS, "batch_size": 100}
    )
    architecture = zoo.build(recipe.model, 16, 16, 4)
    steps = plan(recipe, 100)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    first = weights.initial(architecture, 0, pictures)
    names = [n for n, s in specs(architecture).items() if s.role == "trained"]
    gradients = [{n: rng.normal(size=first[n].shape).astype(np.float32) for n in names} for _ in range(STEPS)]

    tensors = {n: torch.nn.Parameter(torch.from_numpy(first[n].copy())) for n in names}
    optimizers = Optimizers(recipe, architecture, tensors, steps)
    for step in range(STEPS):
        for name in names:
            tensors[name].grad = torch.from_numpy(gradients[step][name])
        optimizers.set_rate(step / STEPS)
        optimizers.update()
        optimizers.advance()

    own = {n: first[n].astype(np.float64) for n in names}
    held = {
        n: {b: np.zeros(first[n].shape) for b in rules.buffers(g, recipe.optimizer)}
        for g in groups(recipe, architecture, steps)
        for n in g.names
    }
    for step in range(STEPS):
        for group in groups(recipe, architecture, steps):
            now = rules.scalars(group, recipe, step / STEPS, step)
            for n in group.names:
                own[n], held[n] = rules.update(
                    group, recipe.optimizer, own[n], gradients[step][n], held[n], now, NumPy()
                )
    for name in names:
        assert np.abs(tensors[name].detach().numpy() - own[name]).max() < 2e-5, name
        assert np.abs(own[name] - first[name]).max() > 1e-3, name


def test_orthogonalize_brings_singular_values_near_one() -> None:
    for shape in ((8, 20), (20, 8)):
        matrix = np.random.default_rng(0).normal(size=shape)
        values = np.linalg.svd(rules.orthogonalize(matrix, *shape, 5, NumPy()), compute_uv=False)
        assert values.min() > 0.6 and values.max() < 1.3
