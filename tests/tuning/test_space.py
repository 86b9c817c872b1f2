from __future__ import annotations

from typing import Any

import pytest
import yaml

from tenfold import recipe
from tenfold.architecture import zoo
from tenfold.errors import RecipeError, UnknownNameError
from tenfold.tuning import cost, space

optuna = pytest.importorskip("optuna", reason="needs tenfold[tune]")

TUNE: dict[str, Any] = {
    "optimizer.lr": {"low": 0.5, "high": 5, "log": True},
    "augment.translate": {"low": 0, "high": 4},
    "schedule.name": {"choices": ["linear", "cosine"]},
    "model.widths": {"choices": [[24, 64, 96], [32, 80, 120]]},
}


@pytest.mark.parametrize(
    ("tune", "says"),
    [
        ({"optimizer.lrr": {"low": 1, "high": 2}}, r"optimizer\.lr\?"),
        ({"lr": {"low": 1, "high": 2}}, r"optimizer\.lr"),
        ({"optimizer.lr": {"lo": 1, "high": 2}}, "Did you mean low"),
        ({"epochs": {"low": 1, "high": 2}}, "epochs can't be searched"),
        ({"data.size": {"choices": [16, 32]}}, r"data\.size can't be searched"),
        ({"optimizer.lr": {"low": 2, "high": 1}}, "low must be below high"),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"batch_size": {"choices": [1, 1.0]}}, "twice"),
        ({"batch_size": {"choices": [1]}}, "choices"),
        ({"optimizer.lr": 3}, r"optimizer\.lr"),
    ],
)
def test_a_space_that_is_none_is_refused(tune: dict[str, Any], says: str) -> None:
    with pytest.raises((RecipeError, UnknownNameError), match=says) as caught:
        recipe.from_mapping({"tune": tune})
    assert caught.value.exit_code == 2


def test_a_space_survives_yaml_and_is_no_part_of_a_recipe_without_one() -> None:
    base = recipe.override(recipe.load("quick"), {"tune": TUNE})
    assert recipe.from_mapping(yaml.safe_load(base.to_yaml())) == base
    without = recipe.override(base, {"tune": None})
    assert without == recipe.load("quick")
    assert "tune" not in without.model_dump() and "\ntune:" not in without.to_yaml()


@pytest.mark.parametrize("name", recipe.presets())
def test_every_preset_has_a_space_around_its_own_values(name: str) -> None:
    base = recipe.load(name)
    axes = space.default(base)
    space.check(base, axes)  # also: every bound is allowed in its field
    assert {"optimizer.lr", "batch_size", "schedule.name", "optimizer.weight_decay"} <= set(axes)
    lr = axes["optimizer.lr"]
    assert isinstance(lr, space.Range) and lr.log and lr.low <= base.optimizer.lr / 10
    again = space.changes(space.own_values(base, axes), axes)
    assert recipe.override(base, again) == base


@pytest.mark.parametrize(
    ("tune", "says"),
    [
        ({"optimizer.lr": {"low": 0.1, "high": 0.5}}, "optimizer.lr is 1.25 in the recipe itself"),
        ({"model.dropout": {"low": 0.1, "high": 0.5}}, "is null in the recipe"),
        ({"label_smoothing": {"low": 0.1, "high": 1.5}}, "label_smoothing"),
        ({"batch_size": {"low": 0.5, "high": 600}}, "whole numbers"),
        ({"schedule.name": {"choices": ["linear", "zigzag"]}}, "schedule.name"),
    ],
)
def test_a_space_that_does_not_fit_its_recipe_is_refused(tune: dict[str, Any], says: str) -> None:
    base = recipe.override(recipe.load("quick"), {"tune": tune})
    with pytest.raises(RecipeError, match=says):
        space.check(base, base.tune or {})


def test_what_optuna_draws_fits_the_recipe() -> None:
    base = recipe.override(recipe.load("quick"), {"tune": TUNE})
    axes = base.tune or {}
    study = optuna.create_study()
    for _ in range(10):
        found = space.suggest(study.ask(), base, axes)
        changed = recipe.override(base, found)
        assert 0.5 <= changed.optimizer.lr <= 5
        assert isinstance(found["augment.translate"], int)
        assert changed.model.widths in ((24, 64, 96), (32, 80, 120))


def test_cost_counts_what_is_computed() -> None:
    quick = recipe.override(recipe.load("quick"), {"low_res": None})

    def of(**changes: Any) -> float:
        changed = recipe.override(quick, {name.replace("__", "."): value for name, value in changes.items()})
        return cost.of_an_image(zoo.build(changed.model, 32, 32, 10), changed)

    assert of(model__widths=[48, 128, 192]) > 1.8 * of() > 1.8 * of(model__depth=1)
    assert of(low_res__size=16, low_res__until=1.0) == pytest.approx(of() / 4)
    assert cost.affordable(of(), of(model__widths=[48, 128, 192])) < 0.6
    assert cost.affordable(of(), of(model__depth=1)) == 1.0  # a smaller network makes no more passes than the recipe
