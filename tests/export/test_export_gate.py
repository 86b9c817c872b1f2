"""What the gate lets through and what it doesn't, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold.bundle import store
from tenfold.data.dataset import Dataset
from tenfold.errors import BundleError, CallError, DataError, MissingExtraError, UnknownNameError
from tenfold.export import artifact, fold, formats, gate, job, onnx, onnx_copy
from tenfold.export.gate import EXACT, INT8, Tolerance

pytest.importorskip("onnx", reason="needs the package onnx")


def spoilt(bundle: Path, **changes: Any) -> bytes:
    """The bundle's graph from other weights, or under other class names."""
    opened = store.open(bundle)
    manifest, weights = opened.manifest, opened.weights()
    if shift := changes.get("mean"):
        weights["00_normalize.mean"] = weights["00_normalize.mean"] + np.float32(shift)
    if changes.get("rolled"):
        last = [name for name in weights if "dense" in name][-1]
        weights[last] = np.roll(weights[last], 1, axis=0)
    return onnx.build(
        manifest.architecture,
        weights,
        classes=changes.get("classes", manifest.classes),
        geometry=manifest.geometry,
        temperature=manifest.temperature,
        name=manifest.name,
        threshold=manifest.threshold,
    )


def write(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format onnx writes ``data``, and int8 quantises it."""

    def other(source: Any, folder: Path) -> tuple[str, dict[str, Any]]:
        (folder / "model.onnx").write_bytes(data)
        return "model.onnx", {}

    monkeypatch.setattr(onnx_copy, "write", other)
    before = fold.load
    monkeypatch.setattr(fold, "load", lambda _, purpose: before(data, purpose))


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
@pytest.mark.parametrize("change", [{"rolled": True}, {"mean": 3}], ids=["classes shuffled", "other normalisation"])
def test_an_artifact_spoilt_on_purpose_is_refused(
    four: Path, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: dict[str, Any]
) -> None:
    write(spoilt(four, **change), monkeypatch)
    found = job.export_model(four, name, data=pictures, out=tmp_path / "out")
    (result,) = found.results
    assert (result.state, result.path, found.passed) == ("refused", None, False)
    assert "have another first class" in (result.message or "") or "is off by" in (result.message or "")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("in_process")
def test_other_class_names_are_no_drift(
    four: Path, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same probabilities under other names: kept for nobody."""
    names = tuple(f"class {i}" for i in (1, 0, 2, 3))
    write(spoilt(four, classes=names), monkeypatch)
    found = job.export_model(four, "onnx", data=pictures, out=tmp_path / "out", allow_drift=True)
    assert found.results[0].state == "failed"
    assert found.results[0].message == (
        "model.onnx: its metadata give other classes than the bundle that it was made from."
    )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("in_process")
def test_drift_that_is_allowed_is_kept_and_said(
    four: Path, pictures: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(spoilt(four, rolled=True), monkeypatch)
    found = job.export_model(four, "onnx", data=pictures, out=tmp_path, allow_drift=True)
    assert found.results[0].state == "kept" and found.passed
    verdict = json.loads((tmp_path / "onnx/artifact.json").read_text())["verdict"]
    assert verdict["passed"] is False and verdict["reasons"]
    model = tenfold.load(tmp_path / "onnx")
    assert "kept with --allow-drift" in model.notes[0]
    assert model.notes[0] in tenfold.evaluate(tmp_path / "onnx", data=pictures, split="val").notes


@pytest.mark.usefixtures("in_process")
def test_one_that_is_refused_leaves_the_one_before(
    four: Path, pictures: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.export_model(four, ["onnx"], data=pictures).passed
    place = four.parent / "exports/onnx"
    before = (place / "artifact.json").read_bytes()
    with monkeypatch.context() as patch:
        write(spoilt(four, rolled=True), patch)
        assert not job.export_model(four, ["onnx"], data=pictures).passed
    assert (place / "artifact.json").read_bytes() == before
    assert job.export_model(four, ["onnx"], data=pictures).passed  # and one that passes takes its place


def test_in_processes_of_their_own(four: Path, pictures: Dataset) -> None:
    found = job.export_model(four, ["onnx", "onnx-int8"], data=pictures)
    assert [r.state for r in found.results] == ["exported", "exported"] and found.notes == ()
    assert sorted(p.name for p in (four.parent / "exports").iterdir()) == ["onnx", "onnx-int8"]
    assert sorted(p.name for p in (four.parent / "exports/onnx").iterdir()) == [
        "artifact.json",
        "bundle.json",
        "model.onnx",
    ]


def test_without_its_data_golden_images_alone_are_replayed(four: Path) -> None:
    found = job.export_model(four, "onnx")
    assert found.passed and found.notes[0].startswith("Only the golden images were replayed.")
    verdict = found.results[0].verdict
    assert verdict is not None and [part.set for part in verdict.sets] == ["golden"]
    with pytest.raises(CallError, match=r"can't be loaded"):
        job.export_model(four, "onnx-int8")  # nothing to calibrate with


def test_images_of_other_classes_are_refused(four: Path, squares: Dataset) -> None:
    with pytest.raises(DataError, match="does not know"):
        job.export_model(four, "onnx", data=squares)


def test_wrong_calls(four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CallError, match=r"No format is named.*onnx-int8"):
        job.export_model(four, [])
    with pytest.raises(UnknownNameError, match="Did you mean onnx-int8"):
        job.export_model(four, "onxx-int8")
    (tmp_path / "out/onnx").mkdir(parents=True)
    with pytest.raises(CallError, match="is no exported artifact"):
        job.export_model(four, "onnx", out=tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(CallError, match="is a file"):
        job.export_model(four, "onnx", out=tmp_path / "file")
    missing = formats.Format("x", "x", "x", EXACT, (("no_such_package_anywhere", "extra"),))
    monkeypatch.setitem(formats.FORMATS, "other", missing)
    with pytest.raises(MissingExtraError, match=r"Exporting to other .* pip install 'tenfold\[extra\]'"):
        job.export_model(four, "other")


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_figures_of_a_replay() -> None:
    expected = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], np.float32)
    actual = np.array([[0.8, 0.2], [0.2, 0.8], [0.4, 0.6], [0.4, 0.6]], np.float32)
    found = gate.replay("val", expected, actual, np.array([0, 1, 0, 0]))
    assert found.top1_changed == 1  # the last is a tie
    assert found.max_difference == pytest.approx(0.2) and found.mean_difference == pytest.approx(0.1)
    assert (found.accuracy, found.expected_accuracy, found.lost) == (0.5, 1.0, 1)
    assert found.reasons(Tolerance(0.3, 0.01, 0.01)) == []  # shares are rounded up to whole images
    assert len(found.reasons(Tolerance(0.1, 0, 0))) == 3
    broken = gate.replay("golden", expected, np.full_like(actual, np.nan))
    assert not np.isfinite(broken.max_difference) and broken.reasons(INT8)


def test_more_right_than_the_bundle_is_no_loss() -> None:
    expected, actual = np.array([[0.6, 0.4]], np.float32), np.array([[0.4, 0.6]], np.float32)
    assert gate.replay("val", expected, actual, np.array([1])).lost == -1


# ---- folding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
def test_a_batch_norm_that_turns_the_order_round_stays_behind_its_pool(turned: bool, tmp_path: Path) -> None:
    import onnx as package
    from onnx import TensorProto, helper, numpy_helper

    from tenfold.runtimes import onnxruntime

    rng = np.random.default_rng(0)
    gamma = np.array([1, -1 if turned else 2, 0.5], np.float32)
    values = {
        "kernel": rng.normal(size=(3, 3, 2, 2)).astype(np.float32),
        "gamma": gamma,
        "beta": rng.normal(size=3).astype(np.float32),
        "mean": rng.normal(size=3).astype(np.float32),
        "variance": rng.uniform(0.5, 2, 3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x"], to=1),
        helper.make_node("Conv", ["x", "kernel"], ["conv"]),
        helper.make_node("MaxPool", ["conv"], ["pool"], kernel_shape=[2, 2]),
        helper.make_node("BatchNormalization", ["pool", "gamma", "beta", "mean", "variance"], ["norm"]),
        helper.make_node("Relu", ["norm"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 6, 6, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = rng.integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    before = onnxruntime.values(model.SerializeToString(), images, ["out"], "it")[0]
    folded = fold.folded(package, model)
    assert any(n.op_type == "BatchNormalization" for n in folded.graph.node) == turned
    after = onnxruntime.values(folded.SerializeToString(), images, ["out"], "it")[0]
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_what_the_step_to_gelu_turns_into_inputs_are_weights() -> None:
    """ReduceMean's axes and Split's sizes, attributes before opset 18: a transformer's graph has them beside GELU."""
    import onnx as package
    from onnx import TensorProto, helper, numpy_helper

    from tenfold.runtimes import graph as reader
    from tenfold.runtimes import onnxruntime

    numbers = {"root": np.sqrt(2), "one": 1.0, "half": 0.5}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=1),
        helper.make_node("ReduceMean", ["x"], ["rows"], axes=[1], keepdims=0),
        helper.make_node("Div", ["rows", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["raised"]),
        helper.make_node("Mul", ["rows", "raised"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 6, 6, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    before = onnxruntime.values(model.SerializeToString(), images, ["out"], "it")[0]
    folded = fold.folded(package, model)
    assert [node.op_type for node in folded.graph.node] == ["Cast", "ReduceMean", "Gelu"]
    reader.inspect(folded.SerializeToString(), "it")
    np.testing.assert_allclose(onnxruntime.values(folded.SerializeToString(), images, ["out"], "it")[0], before, 1e-5)


# ---- what strangers send ---------------------------------------------------------------------------------------------


@pytest.fixture
def folder(four: Path, tmp_path: Path, in_process: None) -> Path:
    job.export_model(four, "onnx", out=tmp_path / "out")
    return tmp_path / "out/onnx"


def change(folder: Path, **fields: Any) -> None:
    value = json.loads((folder / "artifact.json").read_text())
    (folder / "artifact.json").write_text(json.dumps({**value, **fields}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": 2}, "A newer tenfold wrote it"),
        ({"runtime": "os"}, "runtime 'os' is not known"),
        ({"model": "../model.onnx"}, "model is not one of its files"),
        ({"files": {}}, "does not name 1 to"),
        ({"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}, "which is no file of the folder"),
        ({"files": {"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}}, "which is no file of the folder"),
        ({"more": 1}, "unknown field 'more'"),
        ({"kind": 3}, "kind is not a text"),
    ],
)
def test_an_artifact_json_that_is_no_good(folder: Path, fields: dict[str, Any], said: str) -> None:
    change(folder, **fields)
    with pytest.raises(BundleError, match=said):
        artifact.open(folder)


def test_links_and_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    model = folder / "model.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        artifact.open(folder)
    model.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="is a link"):
        artifact.open(folder)


def test_a_runtime_asked_for_is_a_wrong_call(folder: Path) -> None:
    with pytest.raises(CallError, match="runtime of its format"):
        tenfold.load(folder, runtime="openvino")


@pytest.mark.parametrize(("kind", "quick"), [("onnx", True), ("onnx-int8", False)])
def test_a_few_pictures_are_computed_as_the_gate_did(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, quick: bool
) -> None:
    """Quantised, the graph as it is written gives other answers than the kernels that it is joined into."""
    from tenfold.runtimes import onnxruntime

    asked: list[bool] = []
    monkeypatch.setattr(onnxruntime, "start", lambda data, metadata, *, quick, **more: asked.append(quick))
    change(folder, kind=kind)
    artifact.open(folder, quick=True).start()
    assert asked == [quick]


def test_heat_maps_of_the_bundles_own_graph_alone(folder: Path, pictures: Dataset) -> None:
    assert tenfold.load(folder).explains == tenfold.load(folder.parents[1] / "run/model").explains


def test_served_artifacts_of_one_bundle_have_versions_of_their_own(folder: Path, four: Path) -> None:
    from tenfold.serving.handler import _version

    assert _version(tenfold.load(folder), folder) != _version(tenfold.load(four), four)
