"""``tenfold export`` through the command line: words for people, one JSON object for scripts, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenfold.cli import export as verb
from tenfold.cli.app import run
from tenfold.export import formats
from tenfold.export.formats import FORMATS
from tenfold.export.gate import Tolerance


def test_words_for_people(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(bundle_folder.parent), "--format", "onnx"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiny-run: 1 artifact of 1 format\n")
    line = next(line for line in out.splitlines() if line.startswith("onnx  "))
    assert line.endswith("exported") and "kB" in line
    assert str(bundle_folder.parent / "exports/onnx") in out
    assert "Note: Only the golden images were replayed." in out and "Traceback" not in err
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_json_is_one_object(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(bundle_folder), "--format", "triton", "--out", str(tmp_path / "o"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["run"] == str(bundle_folder) and value["model"] == "tiny-run" and value["passed"] is True
    (result,) = value["results"]
    assert result["path"] == str(tmp_path / "o/triton") and result["verdict"]["passed"] is True


def test_a_refusal_ends_with_1(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = formats.Format("x", "onnx_copy", "onnxruntime", Tolerance(-1, 0, 0))
    monkeypatch.setitem(formats.FORMATS, "onnx", strict)
    assert run(["export", str(bundle_folder), "--format", "onnx"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("tiny-run: 0 artifacts of 1 format\n") and "refused: on 5 golden images a probability" in out
    assert not (bundle_folder.parent / "exports/onnx").exists()
    assert run(["export", str(bundle_folder), "--format", "onnx", "--allow-drift"]) == 0
    assert "kept, too far off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "No format is named."),
        (["--format", "onx"], "Did you mean onnx?"),
        (["--format", "onnx", "--data", "digts"], "Did you mean digits?"),
    ],
)
def test_wrong_calls_end_with_a_line_and_a_way_on(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(["export", str(bundle_folder), *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ") and said in err and "Traceback" not in err


def test_its_help_and_its_page_name_every_format() -> None:
    page = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
    for name in FORMATS:
        assert name in (verb.export.__doc__ or "").replace(",", " ").replace(";", " ").split()
        assert f"`{name}`" in page
