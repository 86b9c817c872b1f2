from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.cli import app


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for label in ("cat", "dog [brackets]"):
            place = tmp_path / "photos" / split / label
            place.mkdir(parents=True)
            for i in range(count):
                cells = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
                Image.fromarray(cells).resize((50, 40)).save(place / f"{i}.png")
    (tmp_path / "photos" / "train" / "cat" / "empty.png").write_bytes(b"")
    return tmp_path / "photos"


def test_show_draws_a_sheet_and_counts(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert app.run(["show", str(photos), "--per-class", "4", "--set", "data.size=24"]) == 0
    said = capsys.readouterr().out
    assert "dog [brackets]" in said
    assert "24×24" in said
    assert "cat/empty.png" in said
    sheet = Image.open("photos-samples.png")
    assert sheet.format == "PNG"
    assert sheet.width > 4 * 64
    colors = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    assert (colors == (0, 114, 178)).all(1).sum() > 500  # the bars of train


def test_show_as_json_has_all_counts(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert app.run(["show", str(photos), "--json", "--split", "test", "--out", "new/sheet.png"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == ["cat", "dog [brackets]"]
    assert np.add(told["counts"]["train"], told["counts"]["val"]).tolist() == [12, 12]
    assert told["counts"]["test"] == [6, 6]
    assert told["skipped"] == [{"path": "train/cat/empty.png", "reason": "the file is empty."}]
    assert told["sheet"] == str(Path("new/sheet.png"))
    assert Path("new/sheet.png").is_file()


def test_show_digits_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert app.run(["show", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], sum(told["images"].values())) == ("digits", 1797)
    assert Path("digits-samples.png").is_file()


def test_samples_are_the_same_each_time_and_keep_their_pixels() -> None:
    from tenfold.data import load_dataset
    from tenfold.data.sheet import CELL, GAP, mosaic

    digits = load_dataset("digits")
    pictures = mosaic(digits, "train", 5)
    assert pictures.shape == (10 * (CELL + GAP), 5 * (CELL + GAP), 3)
    assert (pictures == mosaic(digits, "train", 5)).all()
    times = CELL // digits.geometry.height
    first = pictures[GAP // 2 : GAP // 2 + CELL : times, GAP // 2 : GAP // 2 + CELL : times]
    part = digits["train"]
    assert (part.images[part.labels == 0] == first).all((1, 2, 3)).any()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "photos", "--split", "trian"], "Did you mean train?"),
        (["show", "photos", "--out", "sheet.jpg"], "sheet.png"),
        (["show", "nowhere/at/all"], "does not exist"),
        (["show", "cifr10"], "Did you mean cifar10?"),
        (["show", "photos", "--set", "data.sizes=3"], "data.size"),
        (["check", "photos", "--recipe", "quik"], "Did you mean quick?"),
        (["check", "photos", "--out", "/proc/none"], "can't be written to"),
    ],
)
def test_wrong_calls(arguments: list[str], expected: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(arguments) == 2
    assert expected in capsys.readouterr().err


def test_an_empty_split_can_not_be_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["show", "--split", "val", "--set", "data.val_fraction=0"]) == 2
    assert "Split val of digits is empty." in capsys.readouterr().err


def test_show_without_matplotlib_names_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [m for m in sys.modules if m.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert app.run(["show"]) == 2
    assert "pip install 'tenfold[torch]'" in capsys.readouterr().err


def test_check_writes_its_findings_and_a_page(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied = (photos / "train" / "cat" / "3.png").read_bytes()
    (photos / "test" / "cat" / "again.png").write_bytes(copied)
    assert app.run(["check", str(photos)]) == 0
    said = capsys.readouterr().out
    assert "2 errors" in said
    assert "Files that could not be used" in said
    kept = json.loads(Path("photos-check/check.json").read_text())
    leak = next(f for f in kept["findings"] if f["name"] == "test-leak")
    assert {"train/cat/3.png", "test/cat/again.png"} == {p["origin"] for p in leak["groups"][0]["pictures"]}
    assert "again.png" in Path("photos-check/check.html").read_text()


def test_check_fails_on_errors_only_where_it_is_strict(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", str(photos), "--json", "--out", "here"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["errors"] == 1
    assert told["page"] == str(Path("here/check.html"))
    assert app.run(["check", str(photos), "--json", "--strict", "--out", "here"]) == 1
    assert json.loads(capsys.readouterr().out)["errors"] == 1
    (photos / "train" / "cat" / "empty.png").unlink()
    assert app.run(["check", str(photos), "--json", "--strict", "--out", "here"]) == 0


def test_check_of_a_table(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"photos/train/cat/{i}.png,cat" for i in range(12)] + [f"photos/test/cat/{i}.png,dog" for i in range(6)]
    (photos / "copy.png").write_bytes((photos / "train" / "cat" / "0.png").read_bytes())
    rows.append("photos/copy.png,dog")
    Path("table.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    assert app.run(["check", "table.csv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "labels" in {f["name"] for f in told["findings"]}
