from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tenfold.data import load_dataset, similar


def scenes(count: int, side: int = 48, seed: int = 0) -> np.ndarray:
    """uint8 pictures with structure at every scale and nothing in common."""
    rng = np.random.default_rng(seed)
    total = np.zeros((count, side, side, 3))
    for cells in (3, 6, 12, 24):
        coarse = rng.normal(size=(count, cells, cells, 3)).astype(np.float32)
        for i in range(count):
            for channel in range(3):
                layer = Image.fromarray(coarse[i, :, :, channel]).resize((side, side), Image.Resampling.BICUBIC)
                total[i, :, :, channel] += np.asarray(layer) / cells**0.5
    return np.clip(128 + 70 * total, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def cut(image: np.ndarray) -> np.ndarray:
    """The picture without two columns and a row, at the old size."""
    side = image.shape[0]
    return np.asarray(Image.fromarray(image[1:, 2:]).resize((side, side), Image.Resampling.BILINEAR))


ALTERED = {
    "jpeg": jpeg,
    "brighter": lambda x: np.clip(x.astype(float) * 1.3 + 20, 0, 255).astype(np.uint8),
    "flat": lambda x: (128 + (x.astype(float) - 128) * 0.4).astype(np.uint8),
    "gray": lambda x: np.repeat(x.mean(2, keepdims=True), 3, 2).astype(np.uint8),
    "tinted": lambda x: (x * np.array([1.0, 0.75, 0.6])).astype(np.uint8),
    "moved": lambda x: np.roll(x, (2, -1), (0, 1)),
    "cut": cut,
    "small": lambda x: np.asarray(Image.fromarray(x).resize((24, 24)).resize(x.shape[:2])),
    "mirrored": lambda x: x[:, ::-1],
    "mirrored jpeg": lambda x: jpeg(np.ascontiguousarray(x[:, ::-1])),
}


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_is_found_among_strangers(how: str) -> None:
    images = scenes(120)
    copies = np.stack([ALTERED[how](x) for x in images[:10]])
    found = similar.find([images, copies])
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs == {(i, 120 + i) for i in range(10)}
    assert (found.mirrored == how.startswith("mirrored")).all()


def test_mirror_images_are_different_where_mirroring_changes_the_class() -> None:
    images = scenes(30)
    assert len(similar.find([images, images[:5, :, ::-1]], mirror=False)) == 0


@pytest.mark.parametrize("step", [(8, 8), (3, 3), (1, 2), (2, 1)])
def test_any_size_is_compared(step: tuple[int, int]) -> None:
    images = scenes(40, 96)[:, :: step[0], :: step[1]]
    found = similar.find([images, images[3:4] // 2 + 30])
    assert (found.first.tolist(), found.second.tolist()) == ([3], [40])


def test_blank_pictures_are_like_nothing() -> None:
    blank = np.full((20, 32, 32, 3), 90, np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
    faint = np.random.default_rng(0).integers(100, 103, (20, 32, 32, 3), dtype=np.uint8)
    assert len(similar.find([scenes(20, 32), blank, faint])) == 0


def test_many_pictures_go_through_the_inverted_file_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scenes(300, 32)
    copies = np.stack([ALTERED["tinted"](x) for x in images[::3]])
    together = [images, copies]
    plain = similar.find(together)
    monkeypatch.setattr(similar, "BRUTE", 100)
    filed = similar.find(together)
    assert len(plain) == 100
    assert (filed.first.tolist(), filed.second.tolist()) == (plain.first.tolist(), plain.second.tolist())


def test_a_crowd_of_look_alikes_stays_bounded() -> None:
    rng = np.random.default_rng(0)
    scene = scenes(1, 32)[0].astype(np.int16)
    crowd = np.clip(scene + rng.integers(-6, 7, (700, 32, 32, 3)), 0, 255).astype(np.uint8)
    prints = similar.describe([scenes(300, 32), crowd], mirror=False)
    first, second, _ = similar.candidates(prints)
    assert 700 <= len(first) <= 700 * 2 * similar.NEIGHBORS
    assert (first < second).all()


def test_rows_choose_what_is_compared() -> None:
    images = scenes(40, 32)
    copies = [images, images[:5] // 2 + 40]
    found = similar.find(copies, rows=np.array([0, 1, 2, 7, 40, 42]))
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 40), (2, 42)]


def test_pictures_of_one_kind_raise_what_is_asked_for() -> None:
    digits = load_dataset("digits")
    images = digits["train"].images
    one_kind = similar.describe([images], mirror=False)
    photos = similar.describe([scenes(200, 32)], mirror=False)
    assert similar.chance(one_kind) > 0.95
    assert similar.chance(photos) < similar.SAME
    assert len(similar.find([images], mirror=False)) == 0


def test_correlation_is_that_of_the_best_shift() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(0, 30, (4, 32, 32)).astype(np.float32)
    moved = np.roll(one, (2, -1), (1, 2))
    assert similar.correlation(one, moved) == pytest.approx(np.ones(4), abs=1e-5)
    assert similar.correlation(one, -one).max() < 0.3
    middle = one[:1, 2:-2, 2:-2].reshape(-1)
    same_place = np.corrcoef(middle, (one[1:2] * 0.5 + one[:1])[:, 2:-2, 2:-2].reshape(-1))[0, 1]
    assert similar.correlation(one[:1], one[1:2] * 0.5 + one[:1])[0] == pytest.approx(same_place, abs=1e-4)


@pytest.mark.slow
def test_known_near_duplicates_of_cifar10(real_data: object) -> None:
    """Pairs that were looked at: recolored, cut, mirrored; and that few others are reported."""
    data = load_dataset("cifar10")
    place = {o: i for i, o in enumerate(data["train"].origins)}
    known = {
        "test/159": "train/25768",
        "test/9186": "train/37082",
        "test/4838": "train/29986",
        "test/2406": "train/28213",
    }
    known = {t: o for t, o in known.items() if o in place}
    train = [place[o] for o in known.values()] + list(range(4000))
    test = [int(t.split("/")[1]) for t in known] + list(range(2000))
    found = similar.find([data["train"].images[train], data["test"].images[test]])
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(known) >= 3
    assert {(i, len(train) + i) for i in range(len(known))} <= pairs
    assert len(pairs) < 60
