"""Test-time augmentation: the views of a picture that are asked too, and how the answers become one.

``none``        the picture alone
``flip``        the picture and its mirror image
``flip+shift``  also both moved by one pixel, down-right and up-left, the edge filled by reflection; the
                unmoved pair has half the weight and each moved pair a quarter (Jordan 2024, airbench)

Answers are logits or log-probabilities, averaged with the views' weights: after softmax the two are the same.
The views are data, so that an engine can make them on its device and means the same thing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tenfold.errors import UnknownNameError


@dataclass(frozen=True)
class View:
    """Moved ``shift`` pixels down and right (negative: up, left), then mirrored left-right if ``mirror``."""

    weight: float
    mirror: bool = False
    shift: int = 0


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(1.0),),
    "flip": (View(0.5), View(0.5, mirror=True)),
    "flip+shift": (
        View(0.25),
        View(0.25, mirror=True),
        View(0.125, shift=1),
        View(0.125, mirror=True, shift=1),
        View(0.125, shift=-1),
        View(0.125, mirror=True, shift=-1),
    ),
}


def views(tta: str) -> tuple[View, ...]:
    """The views called ``tta``; UnknownNameError where there are none."""
    if tta not in VIEWS:
        raise UnknownNameError("test-time augmentation", tta, VIEWS)
    return VIEWS[tta]


def apply(view: View, images: np.ndarray) -> np.ndarray:
    """The view of images N×H×W×3, same dtype and shape. H and W above ``abs(shift)``."""
    if view.shift:
        by, (height, width) = abs(view.shift), images.shape[1:3]
        padded = np.pad(images, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect")
        start = by - view.shift
        images = padded[:, start : start + height, start : start + width]
    return images[:, :, ::-1] if view.mirror else images


def averaged(answer: Callable[[np.ndarray], np.ndarray], images: np.ndarray, tta: str) -> np.ndarray:
    """Weighted mean of ``answer`` (logits or log-probabilities, N×K) over the views of images N×H×W×3."""
    total: np.ndarray | None = None
    for view in views(tta):
        part = view.weight * answer(np.ascontiguousarray(apply(view, images)))
        total = part if total is None else total + part
    assert total is not None  # every entry of VIEWS has a view
    return total


def probabilities(answer: Callable[[np.ndarray], np.ndarray], images: np.ndarray, tta: str) -> np.ndarray:
    """float32 N×K probabilities over the views, for an ``answer`` that gives probabilities.

    Their log-probabilities are averaged and normalised: a geometric mean, which is the mean of the logits.
    """
    if tta == "none":
        return answer(images)
    floor = np.finfo(np.float32).tiny
    mean = averaged(lambda x: np.log(np.maximum(answer(x).astype(np.float64), floor)), images, tta)
    mean = np.exp(mean - mean.max(axis=1, keepdims=True))
    return (mean / mean.sum(axis=1, keepdims=True)).astype(np.float32)
