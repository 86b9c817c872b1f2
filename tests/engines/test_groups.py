from __future__ import annotations

import numpy as np
import pytest

from tenfold import recipe as recipes
from tenfold.architecture import zoo
from tenfold.architecture.layers import Architecture, External, Normalize
from tenfold.architecture.weights import specs
from tenfold.engines.groups import body, frozen, groups
from tenfold.engines.schedule import plan


def test_every_trained_weight_is_in_one_group() -> None:
    for preset in recipes.presets():
        recipe = recipes.load(preset)
        if preset == "finetune":  # timm's network, which is not here
            recipe = recipes.override(recipe, {"model": {"name": "resnet18"}})
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


@pytest.mark.parametrize("network", ["sprint", "resnet18"])
def test_a_fine_tuning_trains_the_last_layer_first(network: str) -> None:
    changes = {"model": {"name": network}, "schedule": {"name": "cosine", "warmup": 0}, "epochs": 8, "batch_size": 100}
    recipe = recipes.override(recipes.load("finetune"), changes)
    architecture = zoo.build(recipe.model, 32, 32, 10)
    length = plan(recipe, 1000)
    made = groups(recipe, architecture, length)
    head = next(g for g in made if g.role == "head")
    assert head.rate(recipe, 0) == head.peak == recipe.optimizer.lr
    assert not head.resting(0)
    rest = [g for g in made if g.role != "head"]
    assert sorted(n for g in rest for n in g.names) == sorted(body(architecture))
    for group in rest:
        # an epoch is ten steps
        assert [group.rate(recipe, step / length.steps) for step in (0, 9)] == [0, 0]
        assert group.resting(9 / length.steps) and not group.resting(10 / length.steps)
        share = group.rate(recipe, 10 / length.steps) / head.rate(recipe, 10 / length.steps)
        assert share == pytest.approx(0.1)


def test_the_frozen_part_is_a_share_of_the_run() -> None:
    recipe = recipes.override(recipes.load("finetune"), {"epochs": 4, "batch_size": 100})
    for epochs, share in ((0, 0.0), (1, 0.25), (2.5, 0.625), (9, 1.0)):
        found = recipes.override(recipe, {"finetune.frozen_epochs": epochs})
        assert frozen(found, plan(found, 1000)) == share
    plain = recipes.override(recipe, {"finetune": None})
    assert frozen(plain, plan(plain, 1000)) == 0


def test_weights_of_another_library_are_grouped_by_its_names() -> None:
    weights = (
        ("pos_embed", (1, 5, 4), "trained"),
        ("stem.weight", (4, 3, 2, 2), "trained"),
        ("norm.weight", (4,), "trained"),
        ("norm.mean", (4,), "statistic"),
        ("fixed.weight", (4, 4), "frozen"),
        ("header.weight", (4, 4), "trained"),
        ("head.weight", (3, 4), "trained"),
        ("head.bias", (3,), "trained"),
    )
    architecture = Architecture("timm:x", 8, 8, 3, (Normalize(), External("timm", "x", 3, 0.0, ("head",), weights)))
    recipe = recipes.load("finetune")
    made = {g.role: g for g in groups(recipe, architecture, plan(recipe, 1000))}
    assert {role: [n.partition(".")[2] for n in g.names] for role, g in made.items()} == {
        "kernel": ["stem.weight", "header.weight"],
        "bias": ["pos_embed", "norm.weight"],
        "head": ["head.weight", "head.bias"],
    }
    assert (made["kernel"].weight_decay, made["bias"].weight_decay) == (0.05, 0.0)
    assert made["kernel"].peak == pytest.approx(0.1 * made["head"].peak)
