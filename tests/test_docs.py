"""What the documentation names must exist: files, pictures, commands, options, recipe fields. Its code must be code."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tenfold import errors, recipe
from tenfold.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
MAX_PICTURE_BYTES = 300_000

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def fences(text: str, *languages: str) -> list[str]:
    """The code blocks of these languages; "" is a block that names none."""
    return [body for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if language in languages]


def calls(text: str) -> list[list[str]]:
    """Every ``tenfold VERB …`` in code, split as a shell would; words after a # or in [brackets] are no part of it."""
    blocks = []
    for block in fences(text, "", "bash", "sh", "console"):
        prompted = [line for line in block.splitlines() if line.startswith("$ ")]
        blocks.append("\n".join(prompted) if prompted else block)  # with prompts, the other lines are output
    code = "\n".join([*blocks, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])
    found = []
    for line in re.findall(r"(?:^|[\s$(])tenfold ([a-z]+\b[^\n|)&;]*)", code, re.M):
        words = shlex.split(re.sub(r"\[[A-Z]+[^\]]*\]|…", "", line).replace("\\", ""), comments=True)
        found.append(words)
    return found


@by_page
def test_links_and_pictures_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in heads}
            assert anchor in slugs, f"{page.name} links to {target}"


def test_pictures_are_small_and_every_one_is_shown() -> None:
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in ROOT.glob("docs/images/*"):
        assert picture.stat().st_size <= MAX_PICTURE_BYTES, picture.name
        assert f"images/{picture.name}" in shown, f"{picture.name} is shown on no page"


@by_page
def test_commands_and_options_exist(page: Path) -> None:
    for words in calls(page.read_text(encoding="utf-8")):
        verb = words[0]
        assert verb in app.VERBS, f"{page.name}: tenfold {verb}"
        params = app._command(verb).params
        known = {o for p in params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{page.name}: tenfold {verb} {word}"


@by_page
def test_recipe_fields_that_are_set_exist(page: Path) -> None:
    known = {name for name, _ in recipe.fields()}
    for words in calls(page.read_text(encoding="utf-8")):
        for before, word in itertools.pairwise(words):
            if before == "--set" and word != "KEY=VALUE":
                name, _ = recipe.parse_set(word)
                assert name in known, f"{page.name}: --set {word}"
            if before == "--recipe" and word.isalpha() and word.islower() and "quik" not in word:
                assert word in ("auto", *recipe.presets()), f"{page.name}: --recipe {word}"


@by_page
def test_code_parses(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for body in fences(text, "python"):
        ast.parse(body)
    for body in fences(text, "json"):
        json.loads(body)
    for body in fences(text, "yaml"):
        yaml.safe_load(body)


def test_every_verb_has_a_page_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for verb in app.VERBS:
        assert f"({verb}.md)" in index


def test_the_table_of_errors_is_the_tree() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.M)
    classes = {c.__name__: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)}
    del classes["TenfoldError"]
    assert {name: int(code) for name, code in rows} == {name: c.exit_code for name, c in classes.items()}


def test_every_option_of_train_is_documented() -> None:
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    for param in app._command("train").params:
        for option in param.opts:
            if option.startswith("--"):
                assert option in text, option


def test_the_lock_names_versions_and_nothing_else() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 30
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins), pins
    assert "://" not in "\n".join(lines)
