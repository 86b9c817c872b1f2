"""``tenfold evaluate`` through the command line: words for people, one JSON object for scripts, exit codes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.bundle import store
from tenfold.cli.app import run

CLASSES = ("class 0", "class 1", "class 2")


def _folder(where: Path, classes: tuple[str, ...] = CLASSES, each: int = 6) -> Path:
    rng = np.random.default_rng(5)
    for name in classes:
        (where / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(where / name / f"{i}.png")
    return where


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return _folder(tmp_path / "pictures")


def test_words_for_people(bundle_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", str(bundle_folder), "--data", str(pictures), "--split", "all"]) == 0
    out, err = capsys.readouterr()
    for word in ("tiny-run on pictures, all: 18 images", "accuracy", "95 % interval", "macro F1", "ECE", "class 2"):
        assert word in out
    assert "most confused" in out and "top-3" not in out  # three classes: the three first are all
    assert err == ""  # what takes less than a second has no progress to tell
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_json_is_one_object_with_the_published_keys(
    bundle_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(bundle_folder), "--data", str(pictures), "--split", "all", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["n"] == 18 and value["split"] == "all" and value["tta"] == "none" and value["top3"] is None
    assert value["interval"][0] <= value["accuracy"] <= value["interval"][1]
    assert value["classes"] == list(CLASSES)
    assert np.array(value["confusion_matrix"]).trace() == round(18 * value["accuracy"])
    assert [c["support"] for c in value["per_class"]] == [6, 6, 6]
    assert {"loss", "ece", "ece_by_chance", "seconds", "run"} <= set(value) and value["report"] is None


def test_nothing_is_written_into_the_run(bundle_folder: Path, pictures: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in bundle_folder.parent.rglob("*")}
    assert run(["evaluate", str(bundle_folder.parent), "--data", str(pictures)]) == 0
    assert {p: p.stat().st_mtime_ns for p in bundle_folder.parent.rglob("*")} == before


def test_out_has_evaluation_report_and_plots(
    bundle_folder: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epoch = {
        "event": "epoch",
        "epoch": 1,
        "loss": 1.0,
        "accuracy": 0.5,
        "val_loss": None,
        "val_accuracy": None,
        "lr": 0.1,
    }
    (bundle_folder.parent / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")
    out = tmp_path / "deep" / "out"
    call = ["evaluate", str(bundle_folder.parent), "--data", str(pictures), "--split", "all", "--out", str(out)]
    for _ in range(2):  # a second time it is replaced
        assert run([*call, "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
    assert value["report"] == str(out / "report.html")
    assert json.loads((out / "evaluation.json").read_text()) == value
    page = (out / "report.html").read_text()
    assert "tiny-run on pictures, all" in page and "--split all" in page and "learning rate" in page
    assert {"confusion.png", "curves.png"} <= {p.name for p in (out / "plots").iterdir()}


@pytest.mark.parametrize("name", ["run.json", "manifest.json"])
def test_out_may_not_be_a_run_or_a_bundle(
    bundle_folder: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / name).write_text("{}")
    assert run(["evaluate", str(bundle_folder), "--data", str(pictures), "--out", str(tmp_path / "r")]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "r").iterdir()] == [name]


def test_out_may_not_be_a_file(bundle_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(pictures.rglob("*.png"))
    assert run(["evaluate", str(bundle_folder), "--data", str(pictures), "--out", str(file)]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--split", "tset"], 2, "Did you mean test?"),
        (["--tta", "flips"], 2, "Did you mean flip?"),
        (["--data", "cifr10"], 2, "Did you mean cifar10?"),
        (["--splt", "test"], 2, "Did you mean --split?"),
        ([], 2, "--data"),
    ],
)
def test_wrong_calls_end_with_a_line_and_a_way_on(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert run(["evaluate", str(bundle_folder / "model.onnx"), *options]) == code
    err = capsys.readouterr().err
    assert err.startswith("Error: ") and said in err and "Traceback" not in err
    assert len(err.splitlines()) <= 2


def test_unknown_classes_are_named_and_json_carries_the_error(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _folder(tmp_path / "zoo", ("class 0", "zebra"))
    assert run(["evaluate", str(bundle_folder), "--data", str(folder), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "DataError" and "'zebra'" in error["message"]


def test_many_classes_show_the_weakest(
    bundle_content: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write(tmp_path / "run" / "model", bundle_content(60))
    folder = _folder(tmp_path / "many", tuple(f"class {i}" for i in range(60)), each=1)
    assert run(["evaluate", str(tmp_path / "run"), "--data", str(folder), "--split", "all"]) == 0
    out = capsys.readouterr().out
    assert "the 20 weakest of 60" in out and "top-3" in out
    assert len(out.splitlines()) < 50


def test_names_cannot_steer_the_terminal(
    bundle_content: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("\x1b[31mred", "[bold]b", "long-" * 40)
    content = dataclasses.replace(bundle_content(), classes=names)
    store.write(tmp_path / "run" / "model", content)
    table = tmp_path / "t.csv"
    folder = _folder(tmp_path / "p", ("x",), each=3)
    rows = "".join(f'{folder / "x" / f"{i}.png"},"{name}",test\n' for i, name in enumerate(names))
    table.write_text("path,label,split\n" + rows)
    code = run(["evaluate", str(tmp_path / "run"), "--data", str(table)])
    out, err = capsys.readouterr()
    assert "\x1b[31m" not in out + err
    assert code == 0, err
    assert "\\x1b[31mred" in out and "[bold]b" in out and "long-long" in out
    assert max(map(len, out.splitlines())) <= 110


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--data", "--split", "--tta", "--out", "--json"):
        assert option in text


def test_no_framework_and_no_matplotlib_is_imported(bundle_folder: Path, pictures: Path) -> None:
    code = (
        "import sys; from tenfold.cli.app import run; "
        f"assert run(['evaluate', {str(bundle_folder)!r}, '--data', {str(pictures)!r}, '--json']) == 0; "
        "bad = {'torch', 'tensorflow', 'jax', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
