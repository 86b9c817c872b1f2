from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tenfold.data.dataset import Dataset, Split
from tenfold.errors import DataError, UnknownNameError


@pytest.mark.parametrize(
    ("images", "labels", "origins", "says"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int64), ["a", "b"], "uint8 N×H×W×3"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64), ["a", "b"], "uint8 N×H×W×3"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32), ["a", "b"], "int64 of length 2"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int64), ["a", "b"], "int64 of length 2"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64), ["a"], "1 origins"),
    ],
)
def test_a_split_is_what_the_contract_says(
    images: np.ndarray, labels: np.ndarray, origins: list[str], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        Split(images, labels, origins)


@pytest.mark.parametrize("classes", [("a", "a", "b", "c"), ("a", "", "b", "c"), ("a", "b", "c", "d" * 1001)])
def test_class_names_that_a_bundle_could_not_hold_are_refused(squares: Dataset, classes: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="class names"):
        dataclasses.replace(squares, classes=classes)


def test_labels_geometry_and_split_names_are_checked(squares: Dataset) -> None:
    with pytest.raises(DataError, match="labels outside 0 to 2"):
        dataclasses.replace(squares, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="not 8×16"):
        dataclasses.replace(squares, geometry=dataclasses.replace(squares.geometry, height=8))
    with pytest.raises(UnknownNameError, match="Did you mean train"):
        squares["trian"]
    with pytest.raises(TypeError):
        squares.splits["train"] = squares["val"]  # type: ignore[index]
    assert squares.counts("train").tolist() == [64, 64, 64, 64]
