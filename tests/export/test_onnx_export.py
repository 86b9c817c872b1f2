"""The ONNX graph says what the architecture says, in the form that others can read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.architecture import layers as l
from tenfold.architecture import weights as canonical
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError, MissingExtraError
from tenfold.export import onnx as export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def given(architecture: l.Architecture, temperature: float = 1.0) -> dict[str, Any]:
    return {
        "classes": [f"class {i}" for i in range(architecture.classes)],
        "geometry": Geometry(architecture.height, architecture.width, "crop", (1, 2, 3)),
        "temperature": temperature,
        "name": "a run",
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_graph_gives_the_reference_answer(tiny_network: Any, reference_logits: Any, temperature: float) -> None:
    architecture, weights = tiny_network()
    kinds = {layer.kind for _, layer, _, _ in canonical.walk(architecture)} | {"residual"}
    assert kinds == set(l.LAYERS) - {"external"}, "the tiny network must hold every layer"
    session = onnxruntime.InferenceSession(export.build(architecture, weights, **given(architecture, temperature)))
    for n in (1, 9):
        images = np.random.default_rng(n).integers(0, 256, (n, 8, 8, 3), np.uint8)
        answer = session.run(None, {"pixels": images})[0]
        expected = softmax(reference_logits(architecture, weights, images) / temperature)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, atol=2e-6)


@pytest.mark.parametrize("padding, stride, kernel", [(0, 2, 3), (2, 3, 5), (1, 2, 2)])
def test_convolution_geometry(reference_logits: Any, padding: int, stride: int, kernel: int) -> None:
    layers = (
        l.Normalize(),
        l.Conv(5, kernel, stride=stride, padding=padding, bias=True),
        l.Pool("average", 3, 2),
        l.GlobalPool("max"),
        l.Dense(4),
    )
    architecture = l.Architecture("odd", 23, 17, 4, layers)
    images = np.random.default_rng(0).integers(0, 256, (3, 23, 17, 3), np.uint8)
    weights = canonical.initial(architecture, 1, images)
    session = onnxruntime.InferenceSession(export.build(architecture, weights, **given(architecture)))
    expected = softmax(reference_logits(architecture, weights, images))
    np.testing.assert_allclose(session.run(None, {"pixels": images})[0], expected, atol=2e-6)


def test_same_arguments_same_bytes(tiny_network: Any, tmp_path: Path) -> None:
    architecture, weights = tiny_network()
    turned = dict(reversed(weights.items()))
    export.write(architecture, weights, path=tmp_path / "a.onnx", **given(architecture))
    export.write(architecture, turned, path=tmp_path / "b.onnx", **given(architecture))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_weights_names_metadata_and_versions(tiny_network: Any) -> None:
    architecture, weights = tiny_network()
    model = onnx.load_from_string(export.build(architecture, weights, **given(architecture, 1.5)))
    onnx.checker.check_model(model, full_check=True)
    assert [o.version for o in model.opset_import] == [17] and model.ir_version == 8
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for name, value in weights.items():
        assert np.array_equal(stored[name].reshape(value.shape), value), name
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["tenfold.format"] == "1" and metadata["tenfold.name"] == "a run"
    assert json.loads(metadata["tenfold.classes"]) == ["class 0", "class 1", "class 2"]
    geometry = {"height": 8, "width": 8, "resize": "crop", "background": [1, 2, 3]}
    assert json.loads(metadata["tenfold.geometry"]) == geometry
    assert float(metadata["tenfold.temperature"]) == 1.5


def test_runtime_folds_batch_norms_and_fuses_gelu(tiny_network: Any, tmp_path: Path) -> None:
    """The graph is written for ONNX Runtime's fusions; this would fail if its form no longer met them."""
    architecture, weights = tiny_network()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(export.build(architecture, weights, **given(architecture)), options)
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "Gelu" in kinds and "Erf" not in kinds
    before = [
        n.op_type for n in onnx.load_from_string(export.build(architecture, weights, **given(architecture))).graph.node
    ]
    assert kinds.count("BatchNormalization") == before.count("BatchNormalization") - 2  # those after a convolution


def test_refuses_what_does_not_fit(tiny_network: Any) -> None:
    architecture, weights = tiny_network()
    with pytest.raises(BundleError, match="2 class names for a network with 3"):
        export.build(architecture, weights, **{**given(architecture), "classes": ["a", "b"]})
    weights = {k: v for k, v in weights.items() if k != "01_conv.bias"}
    with pytest.raises(BundleError, match=r"01_conv\.bias"):
        export.build(architecture, weights, **given(architecture))


def test_says_how_to_get_onnx(tiny_network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[torch\]'"):
        export.build(*tiny_network(), **given(tiny_network()[0]))
