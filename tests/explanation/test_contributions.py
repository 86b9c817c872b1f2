"""What cells add to a logit, against the logits of the network in NumPy and against measured gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tenfold.architecture import layers as l
from tenfold.architecture import weights as canonical
from tenfold.architecture import zoo
from tenfold.explanation import steps
from tenfold.recipe import Model

pytest.importorskip("onnx", reason="needs tenfold[torch]")

TEMPERATURE = 1.25
# The features are the pixels, normalised: so a gradient can be measured by changing a pixel.
SAME = l.Conv(3, 1, init="dirac")

LINEAR = {
    "a mean": (SAME, l.GlobalPool(), l.Dense(3)),
    "a mean and more": (l.Conv(6, 3), l.Activation(), l.Dropout(), l.GlobalPool(), l.BatchNorm(), l.Dense(5),
                        l.Scale(0.3), l.Dense(3)),
    "flattened": (l.Conv(6, 3, padding=1), l.Activation("gelu"), l.Pool("max", 2, 1), l.Flatten(), l.Dense(7),
                  l.BatchNorm(scale=False), l.Dense(3, bias=False)),
    "two ways": (l.Conv(4, 2), l.Residual((l.GlobalPool(), l.Dense(5)), (l.Flatten(), l.Dense(5))), l.Dense(3)),
}  # fmt: skip
SMOOTH = {
    "relu": (SAME, l.Flatten(), l.Dense(40), l.Activation("relu"), l.BatchNorm(), l.Dropout(), l.Dense(3)),
    "gelu": (SAME, l.Flatten(), l.Dense(9), l.Activation("gelu"), l.Dense(3), l.Scale(0.3)),
    "silu": (SAME, l.GlobalPool(), l.Dense(9), l.Activation("silu"), l.Residual((l.Dense(9),)), l.Dense(3)),
}
# 8×8 features, of which the last stage makes fewer than five rows: the map is of those that enter it.
STAGES = {
    "strides": (SAME, l.Conv(8, 3, stride=2, padding=1, bias=True), l.BatchNorm(), l.Activation("relu"), l.GlobalPool(),
                l.Dense(3)),
    "pooled": (SAME, l.Conv(8, 3, padding=1), l.Pool("max", 2, 2), l.BatchNorm(scale=False), l.Activation("gelu"),
               l.Conv(6, 2), l.Activation("silu"), l.GlobalPool("max"), l.Dense(3, bias=False), l.Scale(0.2)),
    "overlapping": (SAME, l.Conv(6, 3, padding=1), l.Pool("max", 3, 2), l.Flatten(), l.Dense(3)),
    "residual": (SAME, l.Residual((l.Conv(5, 3, stride=2, padding=1), l.Activation(), l.Conv(5, 3, padding=1)),
                                  (l.Conv(5, 1, stride=2),)), l.Residual((l.Conv(5, 3, padding=1),)), l.Activation(),
                 l.GlobalPool(), l.Dense(3)),
}  # fmt: skip


@pytest.mark.parametrize("layers", LINEAR.values(), ids=LINEAR)
def test_linear_tails_sum_up_to_the_logit(
    layers: Any, network: Any, explainer: Any, reference_logits: Callable[..., np.ndarray], picture: np.ndarray
) -> None:
    """The cells' contributions and what the biases alone give are the class's logit."""
    architecture, weights = network(*layers)
    logits = reference_logits(architecture, weights, picture[None])[0] / TEMPERATURE
    nothing = reference_logits(architecture, _without_features(architecture, weights), picture[None])[0] / TEMPERATURE
    made = explainer(architecture, weights, TEMPERATURE)
    for index in range(3):
        _, found = made.contributions(picture, index)
        assert abs(found.sum() + nothing[index] - logits[index]) < 1e-4
        assert abs(found.sum()) > 1e-2


def _without_features(architecture: l.Architecture, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights by which the convolution gives nothing; what follows it up to the tail makes 0 of 0."""
    return {n: v * (0 if "_conv." in n else 1) for n, v in weights.items()}


@pytest.mark.parametrize("layers", [*SMOOTH.values(), *STAGES.values()], ids=[*SMOOTH, *STAGES])
def test_contributions_are_features_times_the_measured_gradient(
    layers: Any, network: Any, explainer: Any, reference_logits: Callable[..., np.ndarray], picture: np.ndarray
) -> None:
    architecture, weights = network(*layers, seed=1)
    mean, std = weights["00_normalize.mean"], weights["00_normalize.std"]
    np.testing.assert_array_equal(weights["01_conv.kernel"][:, :, 0, 0], np.eye(3))
    made = explainer(architecture, weights, TEMPERATURE)
    features = (picture / 255 - mean) / std
    changed = np.repeat(picture[None].astype(np.float64), 2 * picture.size, 0).reshape(2, picture.size, -1)
    step = 1e-4  # of 255
    each = np.arange(picture.size)
    changed[0, each, each] += step
    changed[1, each, each] -= step
    above, below = (reference_logits(architecture, weights, part.reshape(-1, 8, 8, 3), float) for part in changed)
    for index in range(3):
        slope = (above - below)[:, index].reshape(8, 8, 3) / (2 * step) * 255 * std / TEMPERATURE
        _, found = made.contributions(picture, index)
        wanted = (slope * features).sum(2)
        assert found.shape == (8, 8) and np.abs(wanted).max() > 0.01
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_of_a_global_maximum_each_cell_counts_by_itself(network: Any, explainer: Any, picture: np.ndarray) -> None:
    architecture, weights = network(SAME, l.GlobalPool("max"), l.Dense(3, bias=False), l.Scale(0.2))
    features = (picture / 255 - weights["00_normalize.mean"]) / weights["00_normalize.std"]
    _, found = explainer(architecture, weights, 1.0).contributions(picture, 2)
    np.testing.assert_allclose(found, 0.2 * features @ weights["03_dense.kernel"][2], atol=1e-5)


def test_shared_maxima_share_the_gradient() -> None:
    value = np.array([[[[1, 2], [2, 0]], [[0, 0], [0, 5]]]], np.float32)
    gradient = np.array([[[4]], [[3]]], np.float32)
    ((name, found),) = steps.Most("x").back(gradient, {"x": value})
    assert name == "x"
    np.testing.assert_array_equal(found, [[[0, 2], [2, 0]], [[0, 0], [0, 3]]])
    window = steps.Window((2, 2), (2, 2), (1, 1), (0, 0), (0, 0))
    ((_, found),) = steps.MaxPool("x", window).back(gradient, {"x": value})
    np.testing.assert_array_equal(found, [[[0, 2], [2, 0]], [[0, 0], [0, 3]]])


@pytest.mark.parametrize(
    "name, size, cells, features",
    [
        ("sprint", 16, 3, "16_activation"),  # of 1×1 at last
        ("sprint", 32, 7, "16_activation"),
        ("sprint", 48, 5, "23_activation"),
        ("resnet18", 32, 8, "15_activation"),
        ("resnet18", 40, 5, "19_activation"),
        ("cnn", 32, 6, "13_pool"),
        ("cnn", 24, 9, "12_batchnorm"),
    ],
)
def test_of_our_networks_it_is_the_last_value_that_has_cells_enough(
    name: str, size: int, cells: int, features: str, explainer: Any
) -> None:
    widths = (8,) * {"cnn": 2, "sprint": 3, "resnet18": 4}[name]
    architecture = zoo.build(Model(name=name, widths=widths), size, size, 3)
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    made = explainer(architecture, canonical.initial(architecture, 0, picture[None]))
    assert made._tail.features == features
    assert made.contributions(picture)[1].shape == (cells, cells)


def test_the_most_probable_class_is_explained_where_none_is_named(
    network: Any, explainer: Any, picture: np.ndarray
) -> None:
    made = explainer(*network(*LINEAR["flattened"]))
    probabilities, found = made.contributions(picture)
    assert probabilities.shape == (3,) and probabilities.dtype == found.dtype == np.float32
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(found, made.contributions(picture, int(probabilities.argmax()))[1])
    assert not np.array_equal(found, made.contributions(picture, int(probabilities.argmin()))[1])
