"""An exporter's graph brought to a bundle's form: without arithmetic on shapes, right for any number of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold.architecture.layers import Architecture, External, Normalize
from tenfold.bundle import store
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError
from tenfold.export import external
from tenfold.runtimes import graph, onnxruntime

onnx = pytest.importorskip("onnx")

SIZE, CLASSES = 4, 3


def exported(break_it: bool = False) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A graph as an exporter writes one, with its weight and token: a row in front of each image's rows (a class
    token), all of it by arithmetic on shapes; logits are the flattened rows times the weight."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.1, ((SIZE + 1) * SIZE * 3, CLASSES)).astype(np.float32)
    token = rng.normal(0, 1, (1, 1, SIZE * 3)).astype(np.float32)
    make, give = onnx.helper.make_node, onnx.numpy_helper.from_array
    constant = lambda name, value: make("Constant", [], [name], value=give(np.array(value), name))  # noqa: E731
    nodes = [
        make("Cast", ["pixels"], ["float"], to=1, doc_string="a path of the machine"),
        make("Shape", ["float"], ["shape"]),
        constant("zero", 0),
        make("Gather", ["shape", "zero"], ["count"], axis=0),
        constant("first", [0]),
        make("Unsqueeze", ["count", "first"], ["counted"]),
        constant("tail", [SIZE, SIZE * 3]),
        make("Concat", ["counted", "tail"], ["rows_shape"], axis=0),
        make("Reshape", ["float", "rows_shape"], ["rows"]),
        constant("ones", [1, 1]),
        make("Concat", ["counted", "ones"], ["tokens_shape"], axis=0),
        make("Expand", ["token", "tokens_shape"], ["tokens"]),
        make("Identity", ["tokens"], ["same"]),
        make("Concat", ["same", "rows"], ["all"], axis=1),
        constant("flat", [0, -1]),
        make("Reshape", ["all", "flat"], ["features"]),
        make("MatMul", ["features", "weight"], ["product"]),
        make("Sqrt", ["four"], ["two"]),
        make("Cast", ["count"], ["how_many"], to=1),
        make("Div", ["product", "how_many" if break_it else "two"], ["logits"]),
    ]
    values = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "main",
            [values("pixels", 2, ["N", SIZE, SIZE, 3])],
            [values("logits", 1, ["N", CLASSES])],
            [give(weight, "weight"), give(token, "token"), give(np.array(4, np.float32), "four")],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(), weight, token


def logits(images: np.ndarray, weight: np.ndarray, token: np.ndarray) -> np.ndarray:
    rows = images.astype(np.float32).reshape(len(images), SIZE, SIZE * 3)
    every = np.concatenate([np.repeat(token, len(images), 0), rows], 1)
    return every.reshape(len(images), -1) @ weight / 2


def content(data: bytes | None, weight: np.ndarray, token: np.ndarray) -> store.BundleContent:
    network = External(
        "timm", "tiny", CLASSES, weights=(("weight", weight.shape, "trained"), ("token", token.shape, "trained"))
    )
    images = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    return store.BundleContent(
        name="external",
        classes=("a", "b", "c"),
        geometry=Geometry(SIZE, SIZE),
        architecture=Architecture("timm:tiny", SIZE, SIZE, CLASSES, (Normalize(), network)),
        weights={
            "00_normalize.mean": np.zeros(3, np.float32),
            "00_normalize.std": np.ones(3, np.float32),
            "01_external.weight": weight,
            "01_external.token": token,
        },
        temperature=2.0,
        metrics={},
        provenance={},
        golden_images=images,
        golden_logits=logits(images, weight, token),
        graph=data,
    )


@pytest.mark.parametrize("both", [False, True])
def test_a_norm_spread_over_what_it_divides_is_left_to_the_division(both: bool) -> None:
    """As PyTorch's ``normalize`` is exported. Where both sides are spread, nothing else would give the shape."""
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["pixels"], ["float"], to=1),
        make("ReduceL2", ["float"], ["norm"], axes=[3], keepdims=1),
        make("Shape", ["float"], ["shape"]),
        make("Expand", ["norm", "shape"], ["spread"]),
        *([make("Expand", ["norm", "shape"], ["again"])] if both else []),
        make("Div", ["again" if both else "float", "spread"], ["parts"]),
        make("Flatten", ["parts"], ["logits"]),
    ]
    values = onnx.helper.make_tensor_value_info
    graph_of = onnx.helper.make_graph(
        nodes, "main", [values("pixels", 2, ["N", SIZE, SIZE, 3])], [values("logits", 1, ["N", SIZE * SIZE * 3])]
    )
    model = onnx.helper.make_model(graph_of, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    if both:
        with pytest.raises(BundleError, match="any number of images"):
            external.simplified(model.SerializeToString(), SIZE, SIZE)
        return
    found = external.simplified(model.SerializeToString(), SIZE, SIZE)
    assert [node.op_type for node in found.graph.node] == ["Cast", "ReduceL2", "Div", "Flatten"]
    images = np.random.default_rng(0).integers(1, 256, (4, SIZE, SIZE, 3), np.uint8)
    wide = images.astype(np.float32)
    expected = (wide / np.linalg.norm(wide, axis=3, keepdims=True)).reshape(4, -1)
    np.testing.assert_allclose(
        onnxruntime.values(found.SerializeToString(), images, ["logits"], "it")[0], expected, 1e-5
    )


def test_no_arithmetic_on_shapes_is_left_and_no_text() -> None:
    data, _, _ = exported()
    model = external.simplified(data, SIZE, SIZE)
    used = {node.op_type for node in model.graph.node}
    assert not used & {"Shape", "Expand", "Constant", "Identity", "Gather", "Unsqueeze", "Sqrt"}
    assert used <= graph.OPERATORS
    assert b"a path" not in model.SerializeToString()
    assert "four" not in {tensor.name for tensor in model.graph.initializer}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_it_answers_for_any_number_of_images(count: int) -> None:
    data, weight, token = exported()
    model = external.simplified(data, SIZE, SIZE)
    images = np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    found = onnxruntime.values(model.SerializeToString(), images, ["logits"], "it")[0]
    assert np.abs(found - logits(images, weight, token)).max() < 1e-3  # logits of some hundreds


def test_what_depends_on_the_number_of_images_is_refused() -> None:
    """Logits divided by how many images there are: no graph without arithmetic on shapes can say that."""
    data, _, _ = exported(break_it=True)
    with pytest.raises(BundleError, match="any number of images"):
        external.simplified(data, SIZE, SIZE)


def test_a_bundle_of_it_is_written_opened_and_asked(tmp_path: Path) -> None:
    made: Any = content(*exported())
    written = store.write(tmp_path / "model", made)
    opened = store.open(tmp_path / "model")
    assert opened.manifest.architecture == made.architecture
    assert opened.manifest.provenance["parity"]["max_difference"] <= 1e-4
    assert set(opened.weights()) == set(made.weights)
    assert written.manifest.parameters == sum(w.size for n, w in made.weights.items() if "external" in n)
    answers = tenfold.load(tmp_path / "model").probabilities(made.golden_images)
    scaled = made.golden_logits / 2
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    assert np.abs(answers - powers / powers.sum(1, keepdims=True)).max() < 1e-4


def test_a_bundle_without_the_engine_s_graph_is_refused(tmp_path: Path) -> None:
    _, weight, token = exported()
    with pytest.raises(BundleError, match="its engine's to write"):
        store.write(tmp_path / "model", content(None, weight, token))
    assert not (tmp_path / "model").exists()


def test_a_graph_of_other_weights_does_not_pass_the_gate(tmp_path: Path) -> None:
    data, weight, token = exported()
    with pytest.raises(BundleError, match="does not give the answers"):
        store.write(tmp_path / "model", content(data, weight[:, ::-1].copy(), token))


def test_what_could_not_become_a_bundle_is_told_beforehand() -> None:
    data, weight, token = exported()
    made: Any = content(data, weight, token)
    architecture, asked = made.architecture, (made.golden_images, made.golden_logits)
    store.require_graph(architecture, data, *asked)
    with pytest.raises(BundleError, match="its graph does not give the network's answers"):
        store.require_graph(architecture, data, made.golden_images, made.golden_logits[:, ::-1])
    model = onnx.load_from_string(data)
    model.graph.node.insert(1, onnx.helper.make_node("NonZero", ["float"], ["found"]))
    model.graph.node.append(onnx.helper.make_node("Mul", ["logits", "logits"], ["more"]))
    model.graph.node[-1].op_type = "Mod"
    model.graph.output[0].name = "more"
    with pytest.raises(BundleError, match=r"timm:tiny can't be kept as a bundle.*Mod"):
        store.require_graph(architecture, model.SerializeToString(), *asked)
