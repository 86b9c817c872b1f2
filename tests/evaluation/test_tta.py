from __future__ import annotations

import typing

import numpy as np
import pytest

from tenfold import recipe
from tenfold.errors import UnknownNameError
from tenfold.evaluation import tta


def _images(n: int = 3, size: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def _answer(images: np.ndarray) -> np.ndarray:
    """Logits that tell the views apart: they weigh every pixel differently."""
    n, h, w, _ = images.shape
    weights = np.random.default_rng(1).normal(size=(h * w * 3, 4))
    return images.reshape(n, -1) @ weights / 500


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_names_are_the_recipes() -> None:
    assert tuple(tta.VIEWS) == typing.get_args(recipe.Evaluate.model_fields["tta"].annotation)


def test_weights_sum_to_one() -> None:
    for name in tta.VIEWS:
        assert sum(v.weight for v in tta.views(name)) == 1.0


def test_flip_shift_is_airbenchs() -> None:
    """Written as in airbench: torch.nn.functional.pad(inputs, (1,) * 4, "reflect"), corners 0:32 and 2:34."""
    x = _images()

    def mirror(v: np.ndarray) -> np.ndarray:
        return 0.5 * _answer(v) + 0.5 * _answer(v[:, :, ::-1])

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    expected = 0.5 * mirror(x) + 0.5 * (mirror(padded[:, 0:6, 0:6]) + mirror(padded[:, 2:8, 2:8])) / 2
    assert np.allclose(tta.averaged(_answer, x, "flip+shift"), expected)


def test_views_keep_shape_and_dtype() -> None:
    x = _images()
    for view in tta.views("flip+shift"):
        seen = tta.apply(view, x)
        assert seen.shape == x.shape and seen.dtype == np.uint8
    assert np.array_equal(tta.apply(tta.View(1, shift=1), x)[:, 1:, 1:], x[:, :-1, :-1])
    assert np.array_equal(tta.apply(tta.View(1, mirror=True), x)[:, :, 0], x[:, :, -1])


@pytest.mark.parametrize("name", list(tta.VIEWS))
def test_probabilities_and_logits_agree(name: str) -> None:
    x = _images()
    mixed = tta.probabilities(lambda v: _softmax(_answer(v)).astype(np.float32), x, name)
    assert np.allclose(mixed, _softmax(tta.averaged(_answer, x, name)), atol=1e-5)
    assert mixed.dtype == np.float32 and np.allclose(mixed.sum(1), 1, atol=1e-6)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="flips"):
        tta.views("flips")
