from __future__ import annotations

from pathlib import Path

import pytest

from tenfold import recipe
from tenfold.errors import RecipeError, UnknownNameError


@pytest.mark.parametrize("name", recipe.presets())
def test_a_preset_survives_yaml_and_says_its_own_name(name: str, tmp_path: Path) -> None:
    preset = recipe.load(name)
    path = tmp_path / "r.yaml"
    path.write_text(preset.to_yaml())
    assert recipe.load(path) == preset
    assert preset.name == name
    assert preset.description


def test_the_presets_are_those_that_are_promised() -> None:
    assert recipe.presets() == ["accurate", "balanced", "classic", "finetune", "quick", "sprint", "strong"]


def test_override_sets_dotted_fields_and_makes_and_removes_parts() -> None:
    base = recipe.load("classic")
    changed = recipe.override(base, {"optimizer.lr": 0.5, "low_res.size": 16, "epochs": 3})
    assert (changed.optimizer.lr, changed.low_res.size, changed.epochs) == (0.5, 16, 3)  # type: ignore[union-attr]
    assert recipe.override(changed, {"low_res": None}).low_res is None
    assert base.optimizer.lr == 0.001


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("optimzer.lr", "optimizer.lr"),
        ("optimizer.learning_rate", "optimizer"),
        ("epoch", "epochs"),
        ("lr", "optimizer.lr"),
        ("augment.flips", "augment.flip"),
        ("tensorboard", "log.tensorboard"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest(key: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        recipe.override(recipe.load("quick"), {key: 1})
    assert near in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs: -1", "epochs"),
        ("epochs: .nan", "epochs"),
        ("batch_size: 1.5", "batch_size"),
        ("optimizer: {name: sgdd}", "optimizer.name"),
        ("augment: {mixup: 1, cutmix: 1}", "can't both"),
        ("data: {background: [1, 2, 300]}", "background"),
        ("- a\n- b", "mapping"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("name: ../../x", "name"),
    ],
)
def test_a_bad_recipe_file_is_told_by_field(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says):
        recipe.load(path)


def test_unknown_keys_in_a_file_are_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("optimizer: {lrr: 1}")
    with pytest.raises(UnknownNameError, match=r"optimizer\.lr"):
        recipe.load(path)


def test_an_unknown_recipe_and_an_unreadable_file() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean quick"):
        recipe.load("quik")
    with pytest.raises(RecipeError, match="can't be read"):
        recipe.load("nowhere/at-all.yaml")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("optimizer.lr=0.1", ("optimizer.lr", 0.1)),
        ("log.tensorboard=true", ("log.tensorboard", True)),
        ("model.widths=[8, 16]", ("model.widths", [8, 16])),
        ("low_res=null", ("low_res", None)),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_set_reads_its_value_as_yaml(text: str, wanted: tuple) -> None:
    assert recipe.parse_set(text) == wanted


def test_set_without_a_value_is_told() -> None:
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        recipe.parse_set("epochs")


def test_every_field_is_explained() -> None:
    plain = {"name", "description", "batch_size", "seed", "label_smoothing", "optimizer.name", "schedule.name"}
    unexplained = {name for name, field in recipe.fields() if not field.description} - plain
    assert unexplained == set()
