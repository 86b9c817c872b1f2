"""Where cells lie on the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfold.architecture import layers as l
from tenfold.architecture import weights as canonical
from tenfold.architecture import zoo
from tenfold.data.dataset import Geometry
from tenfold.explanation.places import Axis, Place, padding, places
from tenfold.export import onnx as export
from tenfold.recipe import Model
from tenfold.runtimes import nodes

onnx = pytest.importorskip("onnx")


def of(architecture: l.Architecture) -> dict[str, Place]:
    weights = canonical.initial(architecture, 0, np.zeros((2, architecture.height, architecture.width, 3), np.uint8))
    data = export.build(
        architecture,
        weights,
        classes=[str(i) for i in range(architecture.classes)],
        geometry=Geometry(architecture.height, architecture.width),
        temperature=1.0,
        name="it",
    )
    return places(nodes.read(data, "it"), architecture.height, architecture.width)


@pytest.mark.parametrize(
    "name, value, cells, low, high",
    [
        ("sprint", "16_activation", 7, 0.5, 28.5),  # whitened by 2×2 without padding, and two odd edges dropped
        ("sprint", "23_activation", 3, 0.5, 24.5),
        ("cnn", "13_pool", 6, 3, 27),
        ("resnet18", "19_activation", 4, 0, 32),  # strides with padding leave nothing out
    ],
)
def test_of_our_networks(name: str, value: str, cells: int, low: float, high: float) -> None:
    found = of(zoo.build(Model(name=name), 32, 32, 3))
    assert found[value] == Place(Axis(cells, low, high), Axis(cells, low, high))
    assert found["pixels"].last and not found["00_normalize"].last


def test_rows_and_columns_are_followed_apart() -> None:
    found = of(
        l.Architecture(
            "it", 9, 14, 2,
            (l.Normalize(), l.Conv(4, 3), l.Residual((l.Conv(4, 3, padding=1),)), l.Pool("average", 2, 2),
             l.GlobalPool(), l.Dense(2)),
        )
    )  # fmt: skip
    assert found["02_residual"] == Place(Axis(7, 1, 8), Axis(12, 1, 13))
    assert found["03_pool"] == Place(Axis(3, 1, 7), Axis(6, 1, 13))
    assert "04_globalpool" not in found and "05_dense" not in found


def graph(*made: Any, **weights: Any) -> nodes.Nodes:
    tensors = [onnx.numpy_helper.from_array(np.array(value), name) for name, value in weights.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph(list(made), "g", [], [], tensors))
    return nodes.read(model.SerializeToString(), "it")


FIRST = onnx.helper.make_node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2])


def pool(**attributes: Any) -> Any:
    return onnx.helper.make_node("MaxPool", ["x"], ["y"], **attributes)


def test_padding_before_a_convolution_counts_as_its_own() -> None:
    """Keras writes ZeroPadding and a convolution without padding, where others write one with padding."""
    made = onnx.helper.make_node
    inside = made("MaxPool", ["padded"], ["y"], kernel_shape=[3, 3], strides=[2, 2])
    padded = graph(FIRST, made("Pad", ["x", "by"], ["padded"]), inside, by=[0, 0, 0, 1, 0, 0, 1, 1])
    found = places(padded, 8, 8)
    assert found["padded"].cells == (8, 8) and found["padded"].padding == (0, 1, 1, 1)
    assert found["y"] == Place(Axis(4, 0, 8), Axis(4, 0, 8))
    assert padding(padded.all[1], padded) == (0, 1, 1, 1)
    at_first = made("Pad", ["x", "by"], ["padded"]), made("MaxPool", ["padded"], ["y"], kernel_shape=[3, 3])
    assert places(graph(FIRST, *at_first, by=[0, 0, 1, 1, 0, 0, 0, 0]), 8, 8)["y"].rows == Axis(7, 0, 7)
    of_channels = graph(FIRST, made("Pad", ["x", "by"], ["padded"]), by=[0, 1, 0, 0, 0, 0, 0, 0])
    assert "padded" not in places(of_channels, 8, 8)


def test_dilation_and_uneven_padding() -> None:
    found = places(graph(FIRST, pool(kernel_shape=[3, 3], dilations=[2, 1], pads=[0, 1, 0, 0])), 10, 10)
    assert found["y"] == Place(Axis(6, 2, 8), Axis(9, 0, 9))


@pytest.mark.parametrize(
    "change", [{"auto_pad": "SAME_UPPER"}, {"ceil_mode": 1}, {"strides": [0, 1]}, {"kernel_shape": [2]}, {"pads": [1]}]
)
def test_windows_that_are_not_told_by_their_numbers_end_it(change: dict[str, Any]) -> None:
    assert "y" in places(graph(FIRST, pool(kernel_shape=[2, 2], strides=[2, 2])), 8, 8)
    assert "y" not in places(graph(FIRST, pool(**{"kernel_shape": [2, 2], "strides": [2, 2], **change})), 8, 8)
    assert "y" not in places(graph(FIRST, pool(kernel_shape=[9, 9])), 8, 8)  # nothing is left


def test_values_of_two_sizes_have_no_place_together() -> None:
    made = onnx.helper.make_node
    half = pool(kernel_shape=[2, 2], strides=[2, 2])
    assert "z" not in places(graph(FIRST, half, made("Add", ["x", "y"], ["z"])), 8, 8)
    assert "z" in places(graph(FIRST, half, made("Concat", ["y", "y"], ["z"], axis=1)), 8, 8)
    assert "z" not in places(graph(FIRST, half, made("Concat", ["y", "y"], ["z"], axis=2)), 8, 8)
    assert "z" not in places(graph(FIRST, half, made("Reshape", ["y", "to"], ["z"]), to=[-1, 3, 4, 4]), 8, 8)


def test_cells_are_spread_over_the_pixels() -> None:
    np.testing.assert_allclose(Axis(4, 0, 32).spread(32), [0, 1, 2, 3])
    # Six cells from 3 to 27: the centre of the first sixth of 32 lies in the first cell, that of the last beyond all.
    np.testing.assert_allclose(Axis(6, 3, 27).spread(32), [0, 0.75, 2.0833, 3.4167, 4.75, 5], atol=1e-3)
