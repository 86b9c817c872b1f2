from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tenfold.architecture import layers as l
from tenfold.architecture import weights as canonical
from tenfold.data.dataset import Geometry
from tenfold.explanation import Explainer
from tenfold.export import onnx as export
from tenfold.runtimes import graph


@pytest.fixture(scope="session")
def network() -> Callable[..., tuple[l.Architecture, dict[str, np.ndarray]]]:
    """(layers after Normalize, classes=3, size=8, seed=0) → an architecture and weights as if trained."""

    def made(*layers: l.Layer, classes: int = 3, size: int = 8, seed: int = 0) -> Any:
        architecture = l.Architecture("it", size, size, classes, (l.Normalize(), *layers))
        rng = np.random.default_rng(seed)
        weights = canonical.initial(architecture, seed, rng.integers(0, 256, (9, size, size, 3), np.uint8))
        for name, value in weights.items():
            if name.endswith((".variance", ".gamma")):
                weights[name] = rng.uniform(0.5, 2, value.shape).astype(np.float32)
            elif name.endswith("_dense.kernel"):
                weights[name] = 4 * value
            elif name.endswith((".beta", ".mean", ".bias")) and "normalize" not in name:
                weights[name] = rng.normal(0, 0.3, value.shape).astype(np.float32)
        return architecture, weights

    return made


@pytest.fixture(scope="session")
def explainer() -> Callable[..., Explainer]:
    """(architecture, weights, temperature=1.25, graph=None) → an explainer of the model.onnx written from them."""
    pytest.importorskip("onnx", reason="needs tenfold[torch]")

    def made(architecture: Any, weights: Any, temperature: float = 1.25, graph_of: bytes | None = None) -> Explainer:
        data = export.build(
            architecture,
            weights,
            classes=[f"class {i}" for i in range(architecture.classes)],
            geometry=Geometry(architecture.height, architecture.width),
            temperature=temperature,
            name="it",
            graph=graph_of,
        )
        return Explainer(data, graph.describe(graph.inspect(data, "it"), "it"), threads=1, where="it")

    return made


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8)
