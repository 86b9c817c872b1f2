"""What a network looked at for a class: a heat map, from the network's own features and the class's weights.

Each cell of the last features with rows and columns gets what it adds to the class's logit: its features times the
logit's gradient, summed over channels (HiResCAM: R. Draelos, L. Carin, "Use HiResCAM instead of Grad-CAM for faithful
explanations of convolutional neural networks", 2020). After a global average pool and one dense layer that is CAM
(B. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016). While all that follows is linear
it is exact: the cells' contributions and the biases sum up to the logit.

A global maximum is no sum. There each cell gets what the logit would have from it alone, Σ weight · feature, as CAM
writes it: by the gradient a channel's highest cell would have all, though the next may be as high. Fewer than five rows
or columns are too coarse for either, and each of them sees the whole picture. Then the map is made of the value that
enters the last stage, features times gradient, which is exact to first order.

The gradient is computed here, in NumPy, from the graph's own weights (``tail``, ``steps``); ONNX Runtime is asked for
the features along with the answer. So a map needs model.onnx alone, and takes as long as two or three predictions at
most.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.errors import BundleError, CallError, UnsupportedError
from tenfold.explanation import tail
from tenfold.runtimes import nodes, onnxruntime
from tenfold.runtimes.batches import Sizes
from tenfold.runtimes.graph import OUTPUT

if TYPE_CHECKING:
    from tenfold.runtimes.graph import Description


@dataclass(frozen=True)
class Explanation:
    """What the network looked at for one class.

    path         the picture's path as it was given; ``[0]`` for bytes and pixels
    label        the class
    probability  that class's, 0 to 1, calibrated
    map          float32 h×w, rows from the top, 0 to 1: 1 is where most speaks for the class, 0 where nothing does or
                 what there is speaks against it; all zeros where nothing does anywhere
    scale        what 1 in the map stands for: how much that cell adds to the class's logit, as softmax takes it
    box          (left, top, width, height) of the part of the upright picture that the map covers, as shares of its
                 width and height; beyond 0 to 1 where the picture was padded
    """

    path: str
    label: str
    probability: float
    map: np.ndarray
    scale: float
    box: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        height, width = self.map.shape
        return {
            "path": self.path,
            "class": self.label,
            "probability": self.probability,
            "map": {
                "height": height,
                "width": width,
                "values": [[round(float(v), 4) for v in row] for row in self.map],
            },
            "scale": self.scale,
            "box": dict(zip(("left", "top", "width", "height"), self.box, strict=True)),
        }


def of(
    explainer: Explainer,
    pixels: np.ndarray,
    classes: Sequence[str],
    label: str | None,
    path: str,
    box: tuple[float, float, float, float],
) -> Explanation:
    """An explainer's answer in words: ``label`` is one of ``classes``, or None for the most probable."""
    probabilities, cells = explainer.contributions(pixels, None if label is None else classes.index(label))
    index = int(probabilities.argmax()) if label is None else classes.index(label)
    found, scale = scaled(explainer.spread(cells))
    return Explanation(path, classes[index], float(probabilities[index]), found, scale, box)


class Explainer:
    """A model.onnx that tells what it looked at. Holds a session of its own, started with the first picture."""

    def __init__(
        self,
        data: bytes,
        said: Description,
        *,
        threads: int | None = None,
        quick: bool = False,
        where: str = "model.onnx",
    ) -> None:
        """``data`` is a model.onnx that ``graph.inspect`` has passed, ``said`` what ``graph.describe`` read of it;
        ``threads`` and ``quick`` as for ``tenfold.load``, ``where`` names it in errors.

        Raises UnsupportedError, saying why, for a network that has no heat map.
        """
        self.sizes = Sizes(said.geometry.height, said.geometry.width, len(said.classes))
        self._where = where
        try:
            self._tail = tail.find(nodes.read(data, where), self.sizes.height, self.sizes.width)
        except (IndexError, ValueError):  # an operator without its inputs, weights that don't fit each other
            raise BundleError(f"{where} is damaged: its last layers can't be read.") from None
        self._data, self._threads, self._quick = data, threads, quick
        if self._tail.place is None:
            self._values(np.zeros((self.sizes.height, self.sizes.width, 3), np.uint8))

    def explain(self, pixels: np.ndarray, index: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(probabilities float32, one for each class; map float32 h×w, 0 to 1) of a picture, uint8 H×W×3 of the model's
        size, for the class ``index``, the most probable one where it is None.

        Raises CallError for other pixels or no such class, BundleError where the model fails.
        """
        probabilities, cells = self.contributions(pixels, index)
        return probabilities, scaled(self.spread(cells))[0]

    def contributions(self, pixels: np.ndarray, index: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(probabilities as :meth:`explain`; float32 rows×columns: what each cell of the features adds to the class's
        logit, as softmax takes it, negative where it speaks against it)."""
        if index is not None and not 0 <= index < self.sizes.classes:
            raise CallError(f"There is no class {index}: they are 0 to {self.sizes.classes - 1}.")
        values = self._values(pixels)
        probabilities: np.ndarray = values[OUTPUT][0]
        chosen = int(probabilities.argmax()) if index is None else index
        try:
            return probabilities, self._tail.contributions(values, self.sizes.classes, chosen)
        except ValueError:  # shapes of a stranger's graph that ONNX Runtime can broadcast
            raise BundleError(f"{self._where}: its last layers do not fit its features.") from None

    def spread(self, cells: np.ndarray) -> np.ndarray:
        """Values of the features' cells brought to as many cells that cover the model's pixels evenly, float32."""
        place = self._tail.place
        if place is None:
            return cells
        rows = _between(cells, place.rows.spread(self.sizes.height))
        return _between(rows.T, place.columns.spread(self.sizes.width)).T.astype(np.float32)

    @functools.cached_property
    def _session(self) -> onnxruntime.OnnxValues:
        data = nodes.with_outputs(self._data, self._tail.values)
        return onnxruntime.OnnxValues(data, threads=self._threads, quick=self._quick, where=self._where)

    def _values(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        if not isinstance(pixels, np.ndarray):
            raise CallError(f"pixels must be a NumPy array, not {type(pixels).__name__}.")
        self.sizes.check(pixels[None])
        values = self._session(np.ascontiguousarray(pixels[None]))
        features, place = values[self._tail.features], self._tail.place
        if values[OUTPUT].shape != (1, self.sizes.classes):
            raise BundleError(f"{self._where} gives answers that are no probabilities.")
        if features.ndim != 4 or (place is None and min(features.shape[2:]) < 2):
            raise UnsupportedError("This network has no heat map: its features have no rows and columns.")
        if place is not None and features.shape[2:] != place.cells:
            raise BundleError(f"{self._where} computes features of another size than its layers say.")
        return values


def scaled(contributions: np.ndarray) -> tuple[np.ndarray, float]:
    """(map, scale): what speaks for the class, float32 0 to 1 of the highest, and how high that is. All zeros and 0.0
    where nothing does."""
    positive = np.maximum(contributions, 0, dtype=np.float32)
    scale = float(positive.max())
    return (positive / np.float32(scale) if scale > 0 else positive), scale


def _between(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of ``values`` at the places ``at``, counted from the first; linear between two."""
    before = np.floor(at).astype(int)
    after = np.minimum(before + 1, len(values) - 1)
    share = (at - before)[:, None]
    return values[before] * (1 - share) + values[after] * share
