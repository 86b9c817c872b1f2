"""A graph's nodes and weights read from its bytes, and outputs added to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfold.errors import BundleError
from tenfold.export import onnx as export
from tenfold.runtimes import graph, nodes, onnxruntime

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def sound(bundle_content: Any) -> bytes:
    content = bundle_content()
    return export.build(
        content.architecture,
        content.weights,
        classes=content.classes,
        geometry=content.geometry,
        temperature=1.25,
        name="tiny-run",
    )


def test_nodes_as_the_onnx_package_reads_them(sound: bytes) -> None:
    found = nodes.read(sound, "it").all
    wanted = onnx.load_from_string(sound).graph.node
    assert [(n.operator, list(n.inputs), list(n.outputs)) for n in found] == [
        (n.op_type, list(n.input), list(n.output)) for n in wanted
    ]
    for mine, theirs in zip(found, wanted, strict=True):
        values = {a.name: onnx.helper.get_attribute_value(a) for a in theirs.attribute}
        assert {k: list(v) if isinstance(v, tuple) else v for k, v in mine.attributes.items()} == values


def test_weights_as_the_onnx_package_reads_them(sound: bytes) -> None:
    found = nodes.read(sound, "it")
    for tensor in onnx.load_from_string(sound).graph.initializer:
        weight = found.weight(tensor.name)
        assert weight is not None and found.constant(tensor.name)
        np.testing.assert_array_equal(weight, onnx.numpy_helper.to_array(tensor))
    assert found.weight("01_conv") is None and not found.constant("01_conv") and found.constant("")


def test_attributes_of_every_kind() -> None:
    made = onnx.helper.make_node("Any", ["a", ""], ["b"], axis=-1, pads=[0, -2], alpha=0.5, auto_pad="VALID")
    model = onnx.helper.make_model(onnx.helper.make_graph([made], "g", [], []))
    (found,) = nodes.read(model.SerializeToString(), "it").all
    assert found.inputs == ("a", "")
    assert found.attributes == {"axis": -1, "pads": (0, -2), "alpha": 0.5, "auto_pad": "VALID"}
    assert (found.whole("axis", 0), found.whole("pads", 7), found.wholes("axis")) == (-1, 7, ())
    assert (found.real("alpha", 1), found.real("missing", 1), found.real("pads", 1)) == (0.5, 1, 1)


def test_weights_of_other_types_are_none_and_a_wrong_shape_is_damage() -> None:
    make = onnx.numpy_helper.from_array
    tensors = [make(np.arange(3), "whole"), make(np.float64([1]), "double"), make(np.zeros(4, np.float32), "wrong")]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    model.graph.initializer[2].dims[0] = 5
    found = nodes.read(model.SerializeToString(), "it")
    np.testing.assert_array_equal(found.weight("whole"), [0, 1, 2])
    assert found.weight("double") is None
    with pytest.raises(BundleError, match="'wrong' is not of its shape"):
        found.weight("wrong")


def test_outputs_are_added_and_nothing_else_changes(sound: bytes) -> None:
    names = ["01_conv", "é" * 100]  # a length that takes two bytes
    before, after = onnx.load_from_string(sound), onnx.load_from_string(nodes.with_outputs(sound, names))
    assert [o.name for o in after.graph.output] == [graph.OUTPUT, *names]
    del after.graph.output[1:]
    assert after == before


def test_a_session_tells_the_added_values(sound: bytes, bundle_content: Any, reference_logits: Any) -> None:
    content = bundle_content()
    values = onnxruntime.OnnxValues(nodes.with_outputs(sound, ["13_scale", "01_conv"]), where="it")(
        content.golden_images[:1]
    )
    assert list(values) == [graph.OUTPUT, "13_scale", "01_conv"] and values["01_conv"].shape == (1, 4, 7, 7)
    logits = reference_logits(content.architecture, content.weights, content.golden_images[:1])
    np.testing.assert_allclose(values["13_scale"], logits, atol=1e-4)
    with pytest.raises(BundleError, match="it can't be loaded"):
        onnxruntime.OnnxValues(nodes.with_outputs(sound, ["nowhere"]), where="it")


def test_damaged_bytes_are_an_error_of_ours(sound: bytes) -> None:
    for end in range(0, 4000, 7):
        try:
            nodes.read(sound[:end], "it")
        except BundleError as error:
            assert "it is damaged" in error.message
        else:
            pytest.fail(f"{end} bytes were read as a graph")
