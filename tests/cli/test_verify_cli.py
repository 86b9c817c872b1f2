"""``tenfold verify`` through the command line: words for people, one JSON object for scripts, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tenfold.bundle import store, tensors
from tenfold.cli.app import run
from tenfold.engines.base import Entry
from tenfold.verification import backends

QUICK = ["--engines", "none", "--runtimes", "onnxruntime"]


def test_words_for_people(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "ENGINES", {"other": Entry("other", ("no_such_package_anywhere",), "other")})
    assert run(["verify", str(bundle_folder), "--runtimes", "onnxruntime"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("tiny-run: 1 runtime gives the answers the model must give\n")
    assert "5 golden images, compared with the probabilities stored in the bundle" in out
    line = next(line for line in out.splitlines() if line.startswith("onnxruntime"))
    assert "5/5" in line and line.endswith("same")
    assert "other  not installed: pip install 'tenfold[other]'" in out
    assert "Note: Only the golden images were replayed." in out
    assert err == ""
    assert max(map(len, out.splitlines())) <= 110 and not any(line.endswith(" ") for line in out.splitlines())


def test_json_is_one_object(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(bundle_folder.parent), *QUICK, "--golden", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["path"] == str(bundle_folder.parent) and value["model"] == "tiny-run" and value["passed"] is True
    assert [(r["kind"], r["name"], r["set"], r["state"]) for r in value["rows"]] == [
        ("runtime", "onnxruntime", "golden", "passed")
    ]


def test_weights_changed_by_hand_end_with_1(
    bundle_folder: Path, reseal: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    weights = store.open(bundle_folder).weights()
    changed = {name: value * np.float32(1.1) if "dense" in name else value for name, value in weights.items()}
    (bundle_folder / "weights.safetensors").write_bytes(tensors.save(changed))
    call = ["verify", str(bundle_folder), "--golden", "--engines", "torch", "--runtimes", "onnxruntime"]
    assert run(call) == 1  # the digest is another
    assert "weights.safetensors" in capsys.readouterr().err
    reseal(bundle_folder, lambda value: value.update(weights_sha256=store.weights_sha256(changed)))
    assert run(call) == 1  # the digests are right; the answers are not
    out, err = capsys.readouterr()
    assert out.startswith("tiny-run: other answers from torch\n") and "Traceback" not in err
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert lines["torch"].endswith("differs") and lines["onnxruntime"].endswith("same")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engines", "troch"], "Did you mean torch?"),
        (["--runtimes", "onnxruntim"], "Did you mean onnxruntime?"),
        (["--split", "tset"], "Did you mean test?"),
        (["--data", "digts", *QUICK], "Did you mean digits?"),
        (["--data", "digits", "--golden"], "can't both"),
    ],
)
def test_wrong_calls_end_with_a_line_and_a_way_on(
    bundle_folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run(["verify", str(bundle_folder), *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ") and said in err and "Traceback" not in err


def test_a_model_file_alone_is_not_enough(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(bundle_folder / "model.onnx")]) == 1
    assert "Give a run folder or a bundle folder." in capsys.readouterr().err


def test_a_device_that_is_not_there_fails(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    call = ["verify", str(bundle_folder), "--golden", "--engines", "torch", "--runtimes", "none", "--device", "moon"]
    assert run(call) == 1
    assert "torch  failed: No device is called 'moon'" in capsys.readouterr().out
