from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from tenfold import recipe
from tenfold.cli import app, recipe_text


def test_the_table_names_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["recipes"]) == 0
    out = capsys.readouterr().out
    for name in recipe.presets():
        assert f"\n{name} " in out


def test_the_list_as_json_holds_whole_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["recipes"]
    assert sorted(r["name"] for r in listed) == recipe.presets()
    for entry in listed:
        assert recipe.from_mapping(entry["recipe"]) == recipe.load(entry["name"])


@pytest.mark.parametrize("name", recipe.presets())
def test_a_printed_recipe_is_a_recipe_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["recipes", name]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(printed)
    assert recipe.read(tmp_path / "mine.yaml") == recipe.load(name)
    assert max(map(len, printed.splitlines()[2:])) <= recipe_text.WIDTH


def test_changes_are_made_before_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["recipes", "classic", "--set", "optimizer.lr=0.5", "--set", "low_res.size=8", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["recipe"]
    assert printed["optimizer"]["lr"] == 0.5
    assert printed["low_res"]["size"] == 8


def test_every_field_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["recipes", "--fields"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == sorted(
        (name for name, _ in recipe.fields()), key=[row.split("`")[1] for row in rows].index
    )
    for row in rows:
        cells = [c.strip() for c in row.strip("|").split(" | ")]
        assert len(cells) == 4
        assert all(cells), row


def test_what_a_field_may_be_in_words() -> None:
    notes = recipe_text.notes()
    assert notes["data.size"].values == "auto or integer, 4 to 1024"
    assert notes["data.resize"].values == "squash, crop or pad"
    assert notes["model.dropout"].values == "number ≥ 0, < 1 or null"
    assert notes["data.background"].values == "list of 3, each integer, 0 to 255"
    assert notes["low_res.size"].default == recipe_text.REQUIRED


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["quik"], "Did you mean quick?"),
        (["quick", "--set", "optimizer.rate=1"], "No recipe field"),
        (["--set", "seed=1"], "give its name too"),
        (["quick", "--fields"], "can't be given together"),
    ],
)
def test_wrong_calls(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["recipes", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_the_page_of_recipes_has_the_fields_of_the_code() -> None:
    folder = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("update_reference", folder / "update_reference.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (folder / "recipes.md").read_text(encoding="utf-8")
    assert script.updated(page) == page, "run: python docs/update_reference.py"


def test_the_example_of_the_page_is_a_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    assert recipe.from_mapping(yaml.safe_load(example)).model.name == "resnet18"


def test_comments_fit_a_narrow_terminal() -> None:
    lines = [str(line) for line in recipe_text.annotated(recipe.load("classic"), 80)]
    assert max(len(line) for line in lines[2:]) <= 80
    assert recipe.from_mapping(yaml.safe_load("\n".join(lines))) == recipe.load("classic")
