from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold.engines.torch.augment import Batch, Draws, draw, shrink  # noqa: E402
from tenfold.engines.torch.augment import augment as augmented  # noqa: E402
from tenfold.engines.torch.augment import gather as gathered  # noqa: E402
from tenfold.recipe import Augment  # noqa: E402

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), dtype=np.uint8))
MEAN = torch.tensor([10.0, 20.0, 30.0])


def drawn(pixels: torch.Tensor, count: int, settings: Augment) -> Draws:
    return draw(settings, count, pixels.shape[1], pixels.shape[2], pixels.device)


def gather(pixels: torch.Tensor, index: torch.Tensor, flip: torch.Tensor | None, settings: Augment) -> torch.Tensor:
    return gathered(pixels, index, flip, settings, drawn(pixels, len(index), settings))


def augment(
    images: torch.Tensor, labels: torch.Tensor, settings: Augment, mean: torch.Tensor, size: int | None
) -> Batch:
    return augmented(images, labels, settings, mean, size, drawn(images, len(images), settings))


def test_gather_without_changes_takes_the_images() -> None:
    index = torch.tensor([4, 1])
    assert torch.equal(gather(PIXELS, index, None, Augment()), PIXELS[index])


def test_gather_mirrors_the_images_that_it_is_told_to() -> None:
    flip = torch.tensor([True, False, True])
    out = gather(PIXELS, torch.tensor([0, 1, 2]), flip, Augment())
    assert torch.equal(out[0], PIXELS[0].flip(1))
    assert torch.equal(out[1], PIXELS[1])
    assert torch.equal(out[2], PIXELS[2].flip(1))


@pytest.mark.parametrize("fill", ["reflect", "zero"])
def test_a_shift_is_a_crop_of_the_padded_image(fill: str) -> None:
    settings = Augment(translate=2, translate_fill=fill)
    torch.manual_seed(0)
    out = gather(PIXELS, torch.arange(6), None, settings).numpy()
    pads = ((0, 0), (2, 2), (2, 2), (0, 0))
    padded = np.pad(PIXELS.numpy(), pads, **({"mode": "reflect"} if fill == "reflect" else {}))
    offsets = set()
    for i in range(6):
        found = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[i, y : y + 8, x : x + 10], out[i])]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 2  # each image moves on its own


def test_every_shift_is_as_likely() -> None:
    pixels = torch.zeros(1, 9, 9, 3, dtype=torch.uint8)
    pixels[0, 4, 4] = 255
    torch.manual_seed(1)
    out = gather(pixels, torch.zeros(5000, dtype=torch.int64), None, Augment(translate=2))
    where = out[..., 0].nonzero()[:, 1:]
    counts = torch.bincount((where[:, 0] - 2) * 5 + where[:, 1] - 2, minlength=25)
    assert counts.sum() == 5000
    assert counts.min() > 130 and counts.max() < 270  # 200 each, within five standard deviations


def test_cutout_sets_one_square_to_the_mean() -> None:
    torch.manual_seed(0)
    out = augment(PIXELS, torch.arange(6), Augment(cutout=4), MEAN, None).images
    changed = (out != PIXELS.permute(0, 3, 1, 2)).any(1)
    for image, mask in zip(out, changed, strict=True):
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        top, left = int(rows.min()), int(columns.min())
        assert (rows.max() - top, columns.max() - left) == (3, 3)
        assert torch.equal(image[:, top : top + 4, left : left + 4], MEAN.view(3, 1, 1).expand(3, 4, 4))


def test_mixup_blends_pictures_and_labels_by_the_same_share() -> None:
    torch.manual_seed(0)
    labels = torch.arange(6)
    batch = augment(PIXELS, labels, Augment(mixup=1.0), MEAN, None)
    x = PIXELS.permute(0, 3, 1, 2).float()
    assert batch.other is not None
    assert torch.allclose(batch.images, x * batch.share + x[batch.other] * (1 - batch.share), atol=1e-3)


def test_cutmix_takes_as_much_of_the_picture_as_of_the_label() -> None:
    labels = torch.arange(2)
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 20, 20, 3)
    for seed in range(20):
        torch.manual_seed(seed)
        batch = augment(pixels, labels, Augment(cutmix=1.0), MEAN, None)
        if batch.other is not None and batch.other[0] == 1:
            assert batch.images[0].mean() / 255 == pytest.approx(1 - float(batch.share), abs=1e-5)


def test_rotation_by_nothing_changes_nothing_and_by_much_keeps_the_centre() -> None:
    odd = PIXELS[:, :7, :9]
    torch.manual_seed(0)
    out = augment(odd, torch.arange(6), Augment(rotate=1e-4), MEAN, None).images
    assert torch.allclose(out, odd.permute(0, 3, 1, 2).float(), atol=0.1)
    out = augment(odd, torch.arange(6), Augment(rotate=180), MEAN, None).images
    assert torch.allclose(out[:, :, 3, 4], odd[:, 3, 4].float(), atol=0.1)


def test_color_jitter_stays_in_range_and_leaves_gray_gray() -> None:
    gray = torch.full((4, 8, 8, 3), 100, dtype=torch.uint8)
    torch.manual_seed(0)
    out = augment(gray, torch.arange(4), Augment(color_jitter=0.5), MEAN, None).images
    assert torch.allclose(out[:, 0], out[:, 2], atol=1e-3)
    assert len(out[:, 0, 0, 0].unique()) == 4
    loud = augment(PIXELS, torch.arange(6), Augment(color_jitter=1.0), MEAN, None).images
    assert loud.min() >= 0 and loud.max() <= 255


def test_shrink_averages_areas() -> None:
    x = PIXELS.permute(0, 3, 1, 2).float()[:, :, :8, :8]
    half = torch.nn.functional.avg_pool2d(x, 2)
    assert torch.allclose(shrink(x, 4), half, atol=1e-3)
    assert shrink(x, 5).shape == (6, 3, 5, 5)
    assert torch.allclose(shrink(x, 5).mean((2, 3)), x.mean((2, 3)), atol=1e-3)
    wide = PIXELS.permute(0, 3, 1, 2).float()
    assert shrink(wide, 5).shape == (6, 3, 4, 5)
