"""``tenfold export`` through the command line: words for people, one JSON object for scripts, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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


# ---- stopped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_what_is_whole_and_no_process(bundle_folder: Path, tmp_path: Path, number: int) -> None:
    pytest.importorskip("onnx", reason="the second format needs the package onnx")
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    # a job in a script's background inherits SIGINT ignored
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heard}; from tenfold.__main__ import main; main()", "export"]
    process = subprocess.Popen(
        [*command, str(bundle_folder), "--format", "onnx", "--format", "onnx-fp16", "--out", str(out), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not list(out.glob(".onnx-fp16.*")):  # where the second is being written
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(number)
        told, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and json.loads(told)["error"]["message"] == "Interrupted."
    assert "Traceback" not in said
    assert [path.name for path in out.iterdir()] == ["onnx"] and (out / "onnx/artifact.json").exists()
    assert list(temporary.iterdir()) == []
    end = time.monotonic() + 10
    while (left := _using(tmp_path)) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


def _using(folder: Path) -> list[str]:
    """Processes whose TMPDIR is in the folder: those that were started with it, and their children."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={folder}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found
