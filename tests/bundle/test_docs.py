"""docs/bundle.md says how to read a bundle without tenfold; here it is done, word for word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tenfold import load
from tenfold.bundle import manifest, store
from tenfold.runtimes import graph

PAGE = Path(__file__).parents[2] / "docs" / "bundle.md"


@pytest.fixture
def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(code: str, folder: Path) -> str:
    assert "tenfold" not in re.sub(r"tenfold\.(classes|geometry)", "", code)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_model_answers_without_tenfold(blocks: list[str], tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).with_name("format-1"), tmp_path / "model")
    images, _ = store.open(tmp_path).golden()
    Image.fromarray(images[1]).save(tmp_path / "photo.jpg", "PNG")
    name, probability = run(blocks[0], tmp_path).rsplit(maxsplit=1)
    top = load(tmp_path).predict(tmp_path / "photo.jpg").top
    assert name == top[0][0] and float(probability) == pytest.approx(top[0][1], abs=1e-5)


def test_the_tensors_are_read_without_tenfold(blocks: list[str], bundle_folder: Path) -> None:
    code = blocks[1] + "\nprint(sorted(weights), golden['images'].shape, golden['probabilities'].shape)"
    names = sorted(store.open(bundle_folder).weights())
    assert run(code, bundle_folder.parent) == f"{names} (5, 8, 8, 3) (5, 3)\n"


def test_every_field_and_count_is_told(bundle_folder: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in json.loads((bundle_folder / "manifest.json").read_bytes()):
        assert f"| `{name}` |" in page, name
    for name in ("manifest.json", *manifest.FILES):
        assert f"| `{name}` |" in page
    assert len(graph.OWN) == 18 and "the eighteen that tenfold writes" in page
    assert len(graph.OPERATORS) == 52 and "thirty-one more" in page and "three of [exported]" in page
