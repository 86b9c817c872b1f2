"""Every format: written, reopened, giving the bundle's answers, with all that the bundle says in its own metadata."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold.bundle import store
from tenfold.errors import BundleError, CallError
from tenfold.export.formats import FORMATS

EXACT = ("onnx", "openvino", "saved-model", "litert", "torch-export", "triton")


@pytest.fixture(params=list(FORMATS))
def made(request: pytest.FixtureRequest, every: dict[str, Any]) -> tuple[str, Path, Any]:
    """(format, its folder, its result) of each format that is here."""
    name = request.param
    if name not in every["results"]:
        pytest.skip(_why(name))
    return name, every["folder"] / name, every["results"][name]


def _why(name: str) -> str:
    try:
        FORMATS[name].require(name)
    except CallError as error:
        return error.message
    return "needs a PyTorch that is built for the CPU"


def test_it_passes_the_gate(made: tuple[str, Path, Any]) -> None:
    name, folder, result = made
    assert result["state"] == "exported", result["message"]
    verdict = json.loads((folder / "artifact.json").read_text())["verdict"]
    assert verdict == result["verdict"] and verdict["passed"] is True
    golden, val = verdict["sets"]
    assert (golden["set"], golden["images"], val["set"], val["images"]) == ("golden", 5, "val", 64)
    assert verdict["load_seconds"] > 0 and verdict["device"] == "cpu" and verdict["runtime"].split()[1]
    assert verdict["bytes"] == sum(
        f.stat().st_size for f in folder.rglob("*") if f.is_file() and f.name not in ("artifact.json", "bundle.json")
    )
    if name in EXACT:
        assert max(golden["max_difference"], val["max_difference"]) < 1e-5 and val["lost"] == 0


def test_it_opens_again_with_all_that_the_bundle_says(made: tuple[str, Path, Any], every: dict[str, Any]) -> None:
    name, _, result = made
    bundle, opened = store.open(every["bundle"]), result["opened"]
    manifest = bundle.manifest
    assert (opened["name"], tuple(opened["classes"])) == (manifest.name, manifest.classes)
    assert opened["geometry"] == [16, 16, manifest.geometry.resize]
    assert (opened["threshold"], opened["temperature"]) == (0.3, 1.25)
    assert opened["manifest"] is True and opened["notes"] == []
    off = np.abs(np.array(opened["golden"]) - bundle.golden()[1]).max()
    assert off <= FORMATS[name].tolerance.max_difference
    assert opened["shapes"] == [["float32", count, 4] for count in (0, 1, 700)] and max(opened["off"]) <= 1e-5
    assert "uint8 N×16×16×3" in opened["refused"]


def test_a_byte_changed_is_seen(made: tuple[str, Path, Any], tmp_path: Path) -> None:
    import shutil

    _, folder, _ = made
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    largest = max((f for f in copy.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with pytest.raises(BundleError, match="is not the file that was exported"):
        tenfold.load(copy)


def test_predict_and_evaluate_take_it(made: tuple[str, Path, Any], pictures: Any) -> None:
    opened = made[2]["opened"]
    count, accuracy = opened["evaluated"]
    assert count == 64 and accuracy is not None and opened["label"] in pictures.classes


def test_no_file_names_this_machine(made: tuple[str, Path, Any], every: dict[str, Any]) -> None:
    """Neither the folder that it was made in nor where the code stands."""
    _, folder, _ = made
    code = str(Path(tenfold.__file__).parents[2]).encode()
    for file in folder.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert code not in data and b"tenfold-export-" not in data, file.name


# ---- one by one ------------------------------------------------------------------------------------------------------


def test_onnx_is_the_bundles_own(every: dict[str, Any]) -> None:
    assert (every["folder"] / "onnx/model.onnx").read_bytes() == store.open(every["bundle"]).model()


def test_int8_is_quantised_but_for_its_ends(every: dict[str, Any]) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(every["folder"] / "onnx-int8/model.onnx").graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    products = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    quantised = [made.get(n.input[1]) == "DequantizeLinear" for n in products]
    assert quantised == [False, *[True] * (len(products) - 2), False] and len(products) > 4
    details = every["results"]["onnx-int8"]["details"]
    assert details["quantised"] == len(products) - 2 and details["calibration"]["images"] == 128
    distances = details["calibration"]["mean_difference"]
    assert distances[details["calibration"]["method"]] == min(distances.values())


def test_fp16_normalises_and_ends_in_float32(every: dict[str, Any]) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(every["folder"] / "onnx-fp16/model.onnx").graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    taken = {n.op_type: kinds[n.input[1]] for n in graph.node if len(n.input) > 1 and n.input[1] in kinds}
    assert taken["Conv"] == taken["Gemm"] == onnx.TensorProto.FLOAT16
    assert taken["Sub"] == onnx.TensorProto.FLOAT  # the mean of normalisation


def test_litert_carries_its_metadata_as_an_associated_file(every: dict[str, Any]) -> None:
    if "litert" not in every["results"]:
        pytest.skip("needs LiteRT and TensorFlow")
    with zipfile.ZipFile(every["folder"] / "litert/model.tflite") as archive:
        texts = json.loads(archive.read("tenfold.json"))
    assert json.loads(texts["tenfold.classes"]) == [f"class {i}" for i in range(4)]


def test_torch_export_holds_no_pickle(every: dict[str, Any]) -> None:
    if "torch-export" not in every["results"]:
        pytest.skip("needs PyTorch")
    with zipfile.ZipFile(every["folder"] / "torch-export/model.pt2") as archive:
        pickles = [e for e in archive.infolist() if e.filename.endswith((".pt", ".pkl")) and e.file_size]
    assert pickles == []


def test_a_repository_for_triton(every: dict[str, Any]) -> None:
    folder = every["folder"] / "triton/tiny-run"
    config = (folder / "config.pbtxt").read_text()
    assert 'name: "tiny-run"' in config and 'backend: "onnxruntime"' in config and "dynamic_batching {" in config
    assert 'name: "pixels" data_type: TYPE_UINT8 dims: [ 16, 16, 3 ]' in config
    assert 'label_filename: "labels.txt"' in config and 'key: "tenfold.temperature"' in config
    assert (folder / "labels.txt").read_text() == "class 0\nclass 1\nclass 2\nclass 3\n"
    assert (folder / "1/model.onnx").read_bytes() == store.open(every["bundle"]).model()
    client = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="reads Triton's own configurations")
    from google.protobuf import text_format

    parsed = text_format.Parse(config, client.ModelConfig())
    assert (
        parsed.max_batch_size == 256 and json.loads(parsed.parameters["tenfold.classes"].string_value)[0] == "class 0"
    )


def test_texts_for_triton_escape_what_they_must() -> None:
    from tenfold.export import triton

    assert triton._text('a"\\\n é') == '"a\\042\\134\\012 \\303\\251"'
