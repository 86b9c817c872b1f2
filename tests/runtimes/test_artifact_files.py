"""What is read of an exported model before its runtime sees it, and what is refused there."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path

import pytest

from tenfold.errors import BundleError
from tenfold.runtimes import ir, torchexport

IR = '<net name="x"><layers>{}</layers><rt_info><tenfold><name value="x"/></tenfold></rt_info></net>'
LAYER = '<layer id="0" type="{}" version="{}"/>'


def test_an_ir_tells_its_texts() -> None:
    assert ir.inspect(IR.format(LAYER.format("Convolution", "opset1")).encode(), "it") == {"tenfold.name": "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (IR.format(LAYER.format("Loop", "opset5")), "the layer 'Loop'"),
        (IR.format(LAYER.format("ReadValue", "opset6")), "the layer 'ReadValue'"),
        (IR.format(LAYER.format("Add", "extension")), "of 'extension'"),
        ('<!DOCTYPE net [<!ENTITY a "aa">]>' + IR.format(""), "declarations"),
        ("<net><layers>", "damaged"),
        ("<html/>", "not an OpenVINO model"),
    ],
)
def test_an_ir_with_what_tenfold_never_writes(text: str, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        ir.inspect(text.encode(), "it")


PROGRAM = {"graph_module": {"graph": {"nodes": [{"target": "torch.ops.aten.relu.default", "metadata": {}}]}}}


def pt2(path: Path, program: object = PROGRAM, config: object = None, **more: bytes) -> Path:
    entries = {
        "models/model.json": json.dumps(program).encode(),
        "data/weights/model_weights_config.json": json.dumps({"config": config or {}}).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "data/sample_inputs/model.pt": b"",
        "extra/tenfold.json": b'{"tenfold.name": "x"}',
        **{name.replace("__", "/"): data for name, data in more.items()},
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"m/{name}", data)
    return path


def node(target: str, **more: object) -> dict[str, object]:
    return {"graph_module": {"graph": {"nodes": [{"target": target, "metadata": {}, **more}]}}}


def test_a_program_tells_its_texts(tmp_path: Path) -> None:
    assert torchexport.inspect(pt2(tmp_path / "m.pt2"), "it") == {"tenfold.name": "x"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"program": node("torch.ops.aten.from_file.default")}, "from_file"),
        ({"program": node("os.system")}, "os.system"),
        ({"program": node("torch.ops.aten.add.Tensor", x={"expr_str": "__import__('os').system('id')"})}, "the size"),
        ({"program": {**PROGRAM, "guards_code": ["print(1)"]}}, "code"),
        ({"config": {"w": {"use_pickle": True}}}, "a pickle"),
        ({"data__sample_inputs__model.pt": b"\x80\x04."}, "a pickle"),
        ({"data__aotinductor__model__x.so": b"\x7fELF"}, "the file"),
        ({"extra__other.json": b"{}"}, "the file"),
        ({"extra__tenfold.json": b'{"tenfold.name": 1}'}, "no text"),
    ],
)
def test_a_program_with_what_tenfold_never_writes(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        torchexport.inspect(pt2(tmp_path / "m.pt2", **changes), "it")  # type: ignore[arg-type]


def test_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"PK")
    with pytest.raises(BundleError, match="damaged"):
        torchexport.inspect(tmp_path / "m.pt2", "it")
    with pytest.raises(BundleError, match=r"none\.pt2 can't be read"):
        torchexport.inspect(tmp_path / "none.pt2", "it")


@pytest.mark.parametrize(
    ("operator", "calls", "said"),
    [("ReadFile", False, "'ReadFile'"), ("SaveV2", True, "writes or reads files"), ("Relu", True, None)],
)
def test_a_saved_model_that_reaches_for_files(tmp_path: Path, operator: str, calls: bool, said: str | None) -> None:
    pytest.importorskip("tensorflow")
    from tensorflow.core.protobuf import saved_model_pb2

    from tenfold.runtimes import savedmodel

    proto = saved_model_pb2.SavedModel()
    library = proto.meta_graphs.add().graph_def.library
    inner, outer = library.function.add(), library.function.add()
    inner.signature.name, outer.signature.name = "inner", "outer"
    inner.node_def.add(name="x", op=operator)
    call = outer.node_def.add(name="y", op="PartitionedCall")
    if calls:
        call.attr["f"].func.name = "inner"
    (tmp_path / "saved_model.pb").write_bytes(proto.SerializeToString())
    if said is None:
        savedmodel._inspect(tmp_path / "saved_model.pb", "it")
        return
    with pytest.raises(BundleError, match=said):
        savedmodel._inspect(tmp_path / "saved_model.pb", "it")


def test_litert_without_tenfolds_metadata(tmp_path: Path) -> None:
    from tenfold.runtimes import litert

    (tmp_path / "m.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3")
    with pytest.raises(BundleError, match="without tenfold's metadata"):
        litert.metadata(tmp_path / "m.tflite", "it")


# ---- archives that are damaged -------------------------------------------------------------------------------------


def deflated(path: Path, entry: str, head: bytes = b"") -> Path:
    """A ZIP archive after ``head`` whose one entry begins with a block type that deflate hasn't got."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, b'{"tenfold.name": "x"}' * 20)
    data = bytearray(file.getvalue())
    start = 30 + len(entry)  # after the local header and the name
    data[start] |= 0b110
    path.write_bytes(head + bytes(data))
    return path


def test_a_litert_model_whose_archive_is_damaged(tmp_path: Path) -> None:
    from tenfold.runtimes import litert

    path = deflated(tmp_path / "m.tflite", "tenfold.json", b"\x1c\x00\x00\x00TFL3")
    with zipfile.ZipFile(path) as archive, pytest.raises(zlib.error):
        archive.read("tenfold.json")
    with pytest.raises(BundleError, match="it is damaged, or a TFLite model without"):
        litert.metadata(path, "it")


@pytest.mark.parametrize("entry", ["models/model.json", "extra/tenfold.json"])
def test_a_program_whose_archive_is_damaged(tmp_path: Path, entry: str) -> None:
    data = bytearray(pt2(tmp_path / "m.pt2").read_bytes())
    name = f"m/{entry}".encode()
    at = data.index(name)
    data[at + len(name)] ^= 1  # the first byte of the entry: its checksum is another
    (tmp_path / "m.pt2").write_bytes(data)
    with pytest.raises(BundleError, match=r"it is damaged, or no torch\.export program"):
        torchexport.inspect(tmp_path / "m.pt2", "it")


def test_what_a_program_compresses_is_not_inflated(tmp_path: Path) -> None:
    path = deflated(tmp_path / "m.pt2", "m/models/model.json")
    with pytest.raises(BundleError, match="what is compressed"):
        torchexport.inspect(path, "it")


def test_a_fault_in_inflating_is_told_of_a_program_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pt2(tmp_path / "m.pt2")

    def fails(*_: object, **__: object) -> bytes:
        raise zlib.error("Error -3 while decompressing data: invalid block type")

    monkeypatch.setattr(zipfile.ZipFile, "read", fails)
    with pytest.raises(BundleError, match="it is damaged"):
        torchexport.inspect(path, "it")
