from __future__ import annotations

import numpy as np
import pytest

from tenfold import recipe as recipes
from tenfold.architecture import zoo
from tenfold.architecture.weights import specs
from tenfold.engines.groups import groups
from tenfold.engines.schedule import plan


def test_every_trained_weight_is_in_one_group() -> None:
    for preset in recipes.presets():
        recipe = recipes.load(preset)
        architecture = zoo.build(recipe.model, 32, 32, 10)
        names = [n for g in groups(recipe, architecture, plan(recipe, 50_000)) for n in g.names]
        trained = [n for n, s in specs(architecture).items() if s.role == "trained"]
        assert sorted(names) == sorted(trained), preset


def test_decay_is_of_kernels_and_muon_has_none() -> None:
    recipe = recipes.override(recipes.load("classic"), {"optimizer.weight_decay": 0.5, "optimizer.name": "sgd"})
    architecture = zoo.build(recipe.model, 32, 32, 10)
    decays = {g.role: g.weight_decay for g in groups(recipe, architecture, plan(recipe, 1000))}
    assert decays == {"kernel": 0.5, "bias": 0.0, "head": 0.5}
    muon = recipes.override(recipe, {"optimizer.name": "muon", "optimizer.lr": 0.1, "optimizer.head_lr": 5.0})
    found = {g.role: (g.rule, g.weight_decay) for g in groups(muon, architecture, plan(muon, 1000))}
    # the share by which weights shrink at the peak rate, whatever the rate is
    assert found["head"] == ("sgd", pytest.approx(0.5 / 5.0))
    assert found["muon"] == ("muon", 0.0)


def test_the_whitening_bias_rests_after_its_epochs() -> None:
    recipe = recipes.override(
        recipes.load("sprint"), {"optimizer.whiten_bias_epochs": 3, "epochs": 12, "schedule": {"name": "linear"}}
    )
    architecture = zoo.build(recipe.model, 32, 32, 10)
    by_role = {g.role: g for g in groups(recipe, architecture, plan(recipe, 50_000))}
    rates = [by_role["whiten"].rate(recipe, done) / by_role["whiten"].peak for done in (0, 0.125, 0.25, 0.5)]
    assert np.allclose(rates, [1, 0.5, 0, 0])
    assert by_role["muon"].rate(recipe, 0.5) == pytest.approx(by_role["muon"].peak / 2)
