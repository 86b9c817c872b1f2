"""The bundle kept in format-2, the first with a threshold. As in test_format_1: never written anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tenfold import load
from tenfold.bundle import golden, store
from tenfold.runtimes import graph, onnxruntime

KEPT = Path(__file__).with_name("format-2")


def test_opens() -> None:
    found = store.open(KEPT).manifest
    assert (found.format, found.name, found.tenfold) == (2, "kept", "0.1.0")
    assert found.classes == ("cat", "dog", "Füchse")
    assert (found.temperature, found.threshold, found.parameters) == (1.25, 0.38, 1273)
    assert found.weights_sha256 == "221baec4d4b9b1ae718266193932dcba0682f77ee8de52151e6af94b255c9149"


def test_the_graph_says_the_same() -> None:
    metadata = graph.inspect((KEPT / "model.onnx").read_bytes(), "model.onnx")
    assert graph.describe(metadata, "model.onnx").threshold == 0.38


def test_answers_as_it_did() -> None:
    images, probabilities = store.open(KEPT).golden()
    assert golden.replay(store.open(KEPT), onnxruntime.open(KEPT / "model.onnx")).passed
    known = probabilities.max(axis=1) >= 0.38
    assert known.any() and not known.all()
    for source in (KEPT, KEPT / "model.onnx"):
        model = load(source)
        found = model.predict(list(images))
        assert [not p.unknown for p in found] == known.tolist()
        np.testing.assert_allclose([p.probability for p in found], probabilities.max(axis=1), atol=1e-6)
