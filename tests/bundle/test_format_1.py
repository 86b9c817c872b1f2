"""The bundle kept in format-1 was written by tenfold 0.1.0. Every later tenfold must load it and get its answers.

It is never written anew: where this test fails, the change has broken the bundles that users have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tenfold import load
from tenfold.bundle import golden, store
from tenfold.data.dataset import Geometry
from tenfold.runtimes import onnxruntime

KEPT = Path(__file__).with_name("format-1")


def test_opens() -> None:
    found = store.open(KEPT).manifest
    assert (found.format, found.name, found.tenfold) == (1, "kept", "0.1.0")
    assert found.classes == ("cat", "dog", "Füchse")
    assert found.geometry == Geometry(8, 8, "pad", (12, 34, 56))
    assert found.temperature == 1.5 and found.parameters == 1273
    assert found.metrics["test"] == {"accuracy": 0.75, "n": 4, "loss": 0.9, "ece": 0.05}
    assert found.weights_sha256 == "221baec4d4b9b1ae718266193932dcba0682f77ee8de52151e6af94b255c9149"


def test_weights_mean_what_they_meant(reference_logits: Any) -> None:
    bundle = store.open(KEPT)
    images, probabilities = bundle.golden()
    logits = reference_logits(bundle.manifest.architecture, bundle.weights(), images)
    np.testing.assert_allclose(golden.expected(logits, 1.5), probabilities, atol=1e-6)


def test_answers_as_it_did() -> None:
    images, probabilities = store.open(KEPT).golden()
    np.testing.assert_allclose(probabilities[0], [0.28469723, 0.34093267, 0.3743701], atol=1e-7)
    assert golden.replay(store.open(KEPT), onnxruntime.open(KEPT / "model.onnx")).passed
    for source in (KEPT, KEPT / "model.onnx"):
        prediction = load(source).predict(images[0])
        assert [name for name, _ in prediction.top] == ["Füchse", "dog", "cat"]
        np.testing.assert_allclose([p for _, p in prediction.top], np.sort(probabilities[0])[::-1], atol=1e-6)
