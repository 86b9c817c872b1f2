"""An ONNX file by a stranger: read without a runtime, and refused where it reaches out of itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenfold import load
from tenfold.architecture import layers as l
from tenfold.architecture import weights as canonical
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError
from tenfold.export import onnx as export
from tenfold.runtimes import graph

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def sound(bundle_content: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    content = bundle_content()
    return export.build(
        content.architecture,
        content.weights,
        classes=content.classes,
        geometry=content.geometry,
        temperature=1.25,
        name="tiny-run",
    )


def refused(model: Any, path: Path, said: str) -> None:
    """Refused by the inspection, and by ``load``, which must not hand it to the runtime."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    path.write_bytes(data)
    for use in (lambda: graph.inspect(data, path.name), lambda: load(path)):
        with pytest.raises(BundleError, match=said) as caught:
            use()
        assert path.name in caught.value.message


# ---- what it reads -----------------------------------------------------------------------------------------


def test_metadata_as_the_onnx_package_reads_it(sound: bytes) -> None:
    metadata = graph.inspect(sound, "it")
    assert metadata == {p.key: p.value for p in onnx.load_from_string(sound).metadata_props}
    said = graph.describe(metadata, "it")
    assert said == graph.Description("tiny-run", ("class 0", "class 1", "class 2"), Geometry(8, 8), 1.25)


def test_operators_are_those_of_the_export(sound: bytes) -> None:
    """Every operator that the export writes is admitted as its own; the rest is for other libraries' networks."""
    pools = (l.Pool("max"), l.Pool("average"), l.GlobalPool("max"))
    layers = (l.Normalize(), *pools, l.BatchNorm(), l.Activation("relu"), l.Dense(3))
    architecture = l.Architecture("rest", 8, 8, 3, layers)
    weights = canonical.initial(architecture, 0, np.zeros((1, 8, 8, 3), np.uint8))
    rest = export.build(architecture, weights, classes="abc", geometry=Geometry(8, 8), temperature=1.0, name="rest")
    used = {n.op_type for data in (sound, rest) for n in onnx.load_from_string(data).graph.node}
    assert used == graph.OWN < graph.OPERATORS


# ---- what it refuses ---------------------------------------------------------------------------------------


def external(tensor: Any, location: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_weights_in_another_file(sound: bytes, tmp_path: Path, location: str) -> None:
    model = onnx.load_from_string(sound)
    external(model.graph.initializer[0], location)
    refused(model, tmp_path / "m.onnx", "weights kept in another file")


def test_weights_in_another_file_without_the_flag(sound: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(sound)
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    refused(model, tmp_path / "m.onnx", "weights kept in another file")


def node(model: Any, op: str, **attributes: Any) -> Any:
    added = onnx.helper.make_node(op, [], ["added"], **attributes)
    model.graph.node.append(added)
    return model.graph.node[-1]


@pytest.mark.parametrize("op", ["Loop", "If", "Scan", "ConstantOfShape", "Expand", "RandomNormal", "PyOp", "conv", ""])
def test_operators_that_are_never_written(sound: bytes, tmp_path: Path, op: str) -> None:
    model = onnx.load_from_string(sound)
    node(model, op)
    if not op:
        model.graph.node[-1].op_type = " "
    refused(model, tmp_path / "m.onnx", "operator")


def test_operators_of_another_domain(sound: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(sound)
    model.graph.node[0].domain = "com.example"
    refused(model, tmp_path / "m.onnx", "another domain")


def test_tensors_and_graphs_within_a_node(sound: bytes, tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "t")
    external(tensor, "/etc/passwd")
    for value in (tensor, [tensor], onnx.load_from_string(sound).graph, [onnx.load_from_string(sound).graph]):
        model = onnx.load_from_string(sound)
        node(model, "Add", value=value)
        refused(model, tmp_path / "m.onnx", "within an operator")


@pytest.mark.parametrize("name", ["pads", "strides", "kernel_shape"])
@pytest.mark.parametrize("number", [65, 10_000, 2**62, -2, -(2**63)])
def test_sizes_without_bounds(sound: bytes, tmp_path: Path, name: str, number: int) -> None:
    """A padding of 10,000 would make the runtime ask for gigabytes."""
    model = onnx.load_from_string(sound)
    conv = next(n for n in model.graph.node if n.op_type == "Conv")
    attribute = next(a for a in conv.attribute if a.name == name)
    attribute.ints[-1] = number
    refused(model, tmp_path / "m.onnx", "a size or padding above 64")


@pytest.mark.parametrize("name, number, sound_one", [("axis", -8, True), ("axis", -9, False), ("group", 65537, False)])
def test_axes_and_groups_have_bounds_of_their_own(sound: bytes, name: str, number: int, sound_one: bool) -> None:
    model = onnx.load_from_string(sound)
    node(model, "Softmax", **{name: number})
    if sound_one:
        graph.inspect(model.SerializeToString(), "it")
        return
    with pytest.raises(BundleError, match="a size or padding"):
        graph.inspect(model.SerializeToString(), "it")


@pytest.mark.parametrize("amounts", [[0, 64], [0, 65], [-1, 0], [0] * 17, None])
def test_padding_without_bounds(sound: bytes, amounts: list[int] | None) -> None:
    """How much is padded is a weight of the graph, which must be there and small."""
    model = onnx.load_from_string(sound)
    model.graph.node.append(onnx.helper.make_node("Pad", ["x", "amounts"], ["added"]))
    if amounts is not None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(amounts, np.int64), "amounts"))
    if amounts == [0, 64]:
        graph.inspect(model.SerializeToString(), "it")
        return
    with pytest.raises(BundleError, match="a size or padding above 64"):
        graph.inspect(model.SerializeToString(), "it")


def test_functions_training_and_sparse_weights(sound: bytes, tmp_path: Path) -> None:
    changes: list[Callable[[Any], Any]] = [
        lambda m: m.functions.add(name="f", domain="d"),
        lambda m: m.training_info.add().algorithm.node.add(op_type="Add"),
        lambda m: m.graph.sparse_initializer.add().values.ParseFromString(b""),
    ]
    for change in changes:
        model = onnx.load_from_string(sound)
        change(model)
        refused(model, tmp_path / "m.onnx", "functions or training graphs|sparse weights")


def test_two_graphs_hide_nothing(sound: bytes, tmp_path: Path) -> None:
    """protobuf merges a field given twice: the second graph's nodes would run as well."""
    other = onnx.load_from_string(sound)
    other.graph.node[0].op_type = "Loop"
    refused(sound + other.SerializeToString(), tmp_path / "m.onnx", "damaged|Loop|twice")


def test_a_field_given_twice_hides_nothing(sound: bytes, tmp_path: Path) -> None:
    """A tensor's data_location first EXTERNAL and then DEFAULT, and an op_type first Loop and then Add."""
    model = onnx.load_from_string(sound)
    refused(sound + b"\x3a" + length(b"\x0a" + length(b"\x22\x04Loop\x22\x03Add")), tmp_path / "m.onnx", "m.onnx")
    assert model.graph.node


def length(data: bytes) -> bytes:
    size, out = len(data), b""
    while size > 127:
        out += bytes([size & 127 | 128])
        size >>= 7
    return out + bytes([size]) + data


def test_more_parts_than_a_network_has() -> None:
    with pytest.raises(BundleError, match="more parts"):
        graph.inspect(b"\x08\x01" * (graph.MAX_PARTS + 1), "it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"not an onnx file",
        b"\x80\x04.",
        b"PK\x03\x04",
        b"\x3a" + b"\xff" * 9 + b"\x01",  # a graph of 2^64 - 1 bytes
        b"\x3b\x3c",  # a group
        b"\xff" * 40,
        b"\x08" + b"\xff" * 12,
        b"\x3a\x05abc",
    ],
)
def test_what_is_no_model(data: bytes, tmp_path: Path) -> None:
    refused(data, tmp_path / "m.onnx", "damaged, or not an ONNX model")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_anywhere(sound: bytes, data: st.DataObject) -> None:
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    with contextlib.suppress(BundleError):
        graph.describe(graph.inspect(bytes(damaged), "it"), "it")


# ---- metadata ----------------------------------------------------------------------------------------------


def with_metadata(sound: bytes, **changes: str | None) -> bytes:
    model = onnx.load_from_string(sound)
    metadata = {p.key: p.value for p in model.metadata_props}
    for key, value in changes.items():
        metadata.pop(f"tenfold.{key}")
        if value is not None:
            metadata[f"tenfold.{key}"] = value
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"format": None}, "without tenfold's metadata"),
        ({"format": "2"}, "Upgrade"),
        ({"format": "x"}, "format"),
        ({"name": None}, "tenfold.name"),
        ({"classes": None}, "lacks the metadata tenfold.classes"),
        ({"classes": "[1]"}, "classes"),
        ({"classes": '["a", "a", "b"]'}, "twice"),
        ({"classes": "[" * 5000}, "nested"),
        ({"classes": '["a", "b"]'}, "other sizes"),
        ({"geometry": json.dumps(Geometry(9, 8).to_dict())}, "other sizes"),
        ({"geometry": json.dumps(Geometry(10**6, 8).to_dict())}, "height"),
        ({"geometry": "{}"}, "geometry"),
        ({"temperature": "NaN"}, "temperature"),
        ({"temperature": "0"}, "temperature"),
    ],
)
def test_metadata_that_does_not_fit(sound: bytes, tmp_path: Path, changes: dict[str, str | None], said: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_metadata(sound, **changes))
    with pytest.raises(BundleError, match=said) as caught:
        load(path)
    assert "m.onnx" in caught.value.message


def test_metadata_given_twice(sound: bytes) -> None:
    model = onnx.load_from_string(sound)
    model.metadata_props.add(key="tenfold.classes", value='["x", "y", "z"]')
    with pytest.raises(BundleError, match=r"'tenfold\.classes' twice"):
        graph.inspect(model.SerializeToString(), "it")


def test_metadata_without_bounds(sound: bytes) -> None:
    model = onnx.load_from_string(sound)
    model.metadata_props.add(key="x", value="y" * (graph.MAX_METADATA + 1))
    with pytest.raises(BundleError, match="more than 8 MiB of metadata"):
        graph.inspect(model.SerializeToString(), "it")


# ---- models that are sound for the inspection and yet no tenfold model -----------------------------------------


def test_other_inputs_and_outputs(sound: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(sound)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "answer"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"m\.onnx does not take pixels and give probabilities"):
        load(tmp_path / "m.onnx")


def test_a_graph_that_the_runtime_refuses(sound: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(sound)
    del model.graph.initializer[3]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"m\.onnx can't be loaded by ONNX Runtime") as caught:
        load(tmp_path / "m.onnx")
    assert "\n" not in caught.value.message
