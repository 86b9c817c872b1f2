"""Whole profiles: a training's steps and a bundle's prediction, what they leave and what they refuse."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tenfold.cli import app
from tenfold.data.dataset import Dataset
from tenfold.profiling import page
from tenfold.profiling.work import profile

SMALL: dict[str, Any] = {"model.widths": [8, 16], "low_res": None, "batch_size": 32, "virtual_batch_size": 16}
SMALL["optimizer.name"] = "sgd"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait for each other many times a step; where anything else computes, one is faster."""
    torch = pytest.importorskip("torch", reason="needs tenfold[torch]")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_training_is_profiled_and_its_parts_add_up(squares: Dataset, tmp_path: Path, one_thread: None) -> None:
    out = tmp_path / "profile"
    found = profile(squares, recipe="quick", device="cpu", overrides=SMALL, steps=2, out=out, command="tenfold …")
    assert found.kind == "training" and found.units == 2 and found.images == 32
    assert found.whole == pytest.approx(found.profiled, rel=1e-6)
    assert {p.key for p in found.parts} == {"data", "host", "device", "idle"} and found.share("device") > 0
    kinds = {cost.name for cost in found.kinds}
    assert {"convolution forward", "convolution backward", "optimizer", "augmentation", "batch norm"} <= kinds
    assert sum(c.seconds for c in found.kinds) == pytest.approx(
        sum(p.seconds for p in found.parts if p.key == "device"), rel=0.02
    )
    assert found.advice and found.operations[0].seconds >= found.operations[-1].seconds
    assert sorted(p.name for p in out.iterdir()) == ["profile.html", "profile.json", "trace.json.gz"]
    said = json.loads((out / "profile.json").read_text())
    assert (said["format"], said["version"]) == ("tenfold-profile", 1) and "timeline" not in said
    events = json.loads(gzip.decompress((out / "trace.json.gz").read_bytes()))["traceEvents"]
    names = {e.get("name") for e in events}
    assert {"tenfold: step", "tenfold: data", "tenfold: share", "tenfold: optimizer"} <= names


def test_a_model_is_profiled_by_parts_and_nodes(bundle_folder: Path, tmp_path: Path) -> None:
    (bundle_folder.parent / "run.json").write_text('{"result": {"seconds": {"train": 3.0, "save": 1.0, "total": 4.0}}}')
    found = profile(bundle_folder.parent, batch_size=8, steps=3, out=tmp_path / "profile")
    assert found.kind == "prediction" and [p.key for p in found.parts] == ["decode", "copy", "model", "answers"]
    assert found.phases == {"train": 3.0, "save": 1.0, "total": 4.0} and "train had 75 %" in found.advice[-1]
    assert {"Conv", "Softmax"} <= {cost.name for cost in found.kinds}
    inner = sum(o.seconds for o in found.operations)
    assert 0 < inner <= found.share("model") * found.whole * 1.0001
    text = (tmp_path / "profile" / page.PAGE).read_text()
    assert "<script" not in text and "http" not in text.replace("http-equiv", "") and "golden images" in text


def test_what_openvino_counts_is_told_too(bundle_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs tenfold[openvino]")
    found = profile(bundle_folder, runtime="openvino", batch_size=4, steps=2, out=tmp_path / "profile")
    assert found.computed_by == "openvino" and "Convolution" in {cost.name for cost in found.kinds}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["digits", "--runtime", "openvino"], "digits is no model: --runtime can't be given with it."),
        (["MODEL", "--recipe", "quick", "--at", "0.5"], "--recipe, --at can't be given with it."),
        (["digits", "--steps", "0"], "steps must be 1 or more, not 0."),
        (["digits", "--at", "1"], "at must be from 0 to below 1, not 1."),
        (["MODEL", "--batch-size", "0"], "batch_size must be 1 or more, not 0."),
        (["MODEL", "--out", "FULL"], "exists and is not empty."),
        (["nowhere-at-all"], "nowhere-at-all"),
    ],
)
def test_a_wrong_call_is_told_in_a_line(
    args: list[str], said: str, bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    named = {"MODEL": str(bundle_folder), "FULL": str(tmp_path / "full")}
    assert app.run(["profile", *(named.get(arg, arg) for arg in args)]) in (1, 2)
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told


def test_the_verb_prints_a_table_or_json(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["profile", str(bundle_folder), "--batch-size", "4", "--steps", "2", "--out"]
    assert app.run([*call, str(tmp_path / "a")]) == 0
    shown = capsys.readouterr()
    assert "decode: pictures to pixels" in shown.out and "slowest nodes" in shown.out and "Page" in shown.err
    assert app.run([*call, str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"][0]["key"] == "decode"
