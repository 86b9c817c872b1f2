from __future__ import annotations

import numpy as np
import pytest

from tenfold.architecture import weights, zoo
from tenfold.architecture.layers import (
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalPool,
    Normalize,
    Residual,
)
from tenfold.errors import BundleError, RecipeError, UnknownNameError
from tenfold.recipe import Model, load


def images(count: int = 64, size: int = 16) -> np.ndarray:
    """Smooth random pictures: neighbouring pixels alike, as in photographs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, size, size, 3)).cumsum(1).cumsum(2)
    x = (x - x.min()) / (x.max() - x.min()) * 255
    return x.astype(np.uint8)


def test_classic_has_the_well_known_number_of_parameters() -> None:
    assert weights.count(zoo.build(load("classic").model, 32, 32, 10)) == 1_253_290


def test_resnet18_has_the_parameters_of_the_paper_with_a_small_first_layer() -> None:
    # 11,173,962 trained, the figure usually given, and the mean and variance of 4,800 channels
    architecture = zoo.build(Model(name="resnet18"), 32, 32, 10)
    trained = [s for s in weights.specs(architecture).values() if s.role == "trained"]
    assert sum(int(np.prod(s.shape)) for s in trained) == 11_173_962
    assert weights.count(architecture) == 11_173_962 + 2 * 4800


def test_names_are_unique_and_inside_residuals_say_where_they_are() -> None:
    architecture = zoo.build(Model(name="resnet18"), 32, 32, 10)
    names = list(weights.specs(architecture))
    assert len(names) == len(set(names))
    assert names[0] == "00_normalize.mean"
    assert "04_residual.body.00_conv.kernel" in names


def test_initial_weights_depend_on_the_seed_and_not_on_other_layers() -> None:
    x = images()
    a = zoo.build(Model(name="sprint", widths=(8, 16)), 16, 16, 4)
    first, again, other = (weights.initial(a, seed, x) for seed in (3, 3, 4))
    assert all(np.array_equal(first[n], again[n]) for n in first)
    last = list(first)[-1]
    assert not np.array_equal(first[last], other[last])
    # a narrower first stage leaves the streams of the later weights alone
    b = zoo.build(Model(name="sprint", widths=(4, 16)), 16, 16, 4)
    assert np.array_equal(first[last], weights.initial(b, 3, x)[last])
    weights.check(a, first)


def test_whitening_makes_patches_white() -> None:
    x = images(200)
    mean = x.mean((0, 1, 2)) / 255
    std = x.std((0, 1, 2)) / 255
    kernels = weights.whitening(x, mean.astype(np.float32), std.astype(np.float32), 24, 2, eps=0.0)
    pixels = (x / 255 - mean) / std
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (2, 2), axis=(1, 2)).reshape(-1, 12)
    out = patches @ kernels[:12].reshape(12, 12).T
    assert np.allclose(out.T @ out / len(out), np.eye(12), atol=1e-3)
    assert np.allclose(kernels[12:], -kernels[:12])


@pytest.mark.parametrize("filters", [1, 5, 12, 24, 30])
def test_whitening_gives_any_number_of_filters(filters: int) -> None:
    x = images(50)
    ones = np.ones(3, np.float32)
    assert weights.whitening(x, ones * 0, ones, filters, 2).shape == (filters, 3, 2, 2)


def test_one_coloured_pictures_do_not_divide_by_zero() -> None:
    architecture = zoo.build(Model(name="sprint", widths=(8,)), 16, 16, 2)
    weights.check(architecture, weights.initial(architecture, 0, np.full((10, 16, 16, 3), 7, np.uint8)))


def test_a_dirac_kernel_passes_its_input_on() -> None:
    architecture = Architecture(
        "one", 8, 8, 2, (Normalize(), Conv(5, 3, padding=1, init="dirac"), GlobalPool(), Dense(2))
    )
    kernel = weights.initial(architecture, 0, images(4, 8))["01_conv.kernel"]
    assert np.array_equal(kernel[:3, :, 1, 1], np.eye(3))
    assert np.count_nonzero(kernel[:3]) == 3
    assert np.count_nonzero(kernel[3:]) == kernel[3:].size


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((Dense(2),), "first layer must be Normalize"),
        ((Normalize(), Dense(2)), "put Flatten or GlobalPool"),
        ((Normalize(), Flatten(), Conv(3, 1), Dense(2)), "needs a picture"),
        ((Normalize(), Flatten(), Dense(3)), "not 2 logits"),
        ((Normalize(), Normalize(), Flatten(), Dense(2)), "one Normalize"),
        ((Normalize(), Conv(3, 9), Flatten(), Dense(2)), "too small"),
        ((Normalize(), Residual((Conv(4, 1),)), Flatten(), Dense(2)), "shortcut"),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(layers: tuple, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        weights.output_shapes(Architecture("x", 8, 8, 2, layers))


@pytest.mark.parametrize("spoil", ["missing", "extra", "shape", "dtype", "nan"])
def test_check_names_the_weight_that_does_not_fit(spoil: str) -> None:
    architecture = Architecture("x", 8, 8, 2, (Normalize(), BatchNorm(), Flatten(), Dense(2)))
    w = weights.initial(architecture, 0, images(4, 8))
    name = "03_dense.kernel"
    if spoil == "missing":
        del w[name]
    elif spoil == "extra":
        name = "99_dense.kernel"
        w[name] = np.zeros(1, np.float32)
    elif spoil == "shape":
        w[name] = w[name][:1]
    elif spoil == "dtype":
        w[name] = w[name].astype(np.float64)
    else:
        w[name][0, 0] = np.nan
    with pytest.raises(BundleError, match=name):
        weights.check(architecture, w)


def test_settings_a_network_has_not_and_unknown_networks_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"model.depth is not a setting"):
        zoo.build(Model(name="cnn", depth=3), 32, 32, 10)
    with pytest.raises(UnknownNameError, match="Did you mean sprint"):
        zoo.build(Model(name="sprnt"), 32, 32, 10)
    with pytest.raises(RecipeError, match="too small"):
        zoo.build(Model(name="cnn"), 8, 8, 10)


def test_means_and_deviations_are_those_of_numpy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (600, 7, 5, 3), np.uint8)
    images[..., 2] = 255  # one colour; the largest square
    mean, std = weights.mean_and_std(images)
    assert mean.dtype == std.dtype == np.float32
    assert np.allclose(mean, images.mean((0, 1, 2), dtype=np.float64) / 255, rtol=1e-7)
    wanted = images.std((0, 1, 2), dtype=np.float64) / 255
    assert np.allclose(std, [wanted[0], wanted[1], 1 / 255], rtol=1e-7)


def test_the_patches_covariance_is_that_of_all_at_once() -> None:
    images = np.random.default_rng(0).integers(0, 256, (130, 6, 7, 3), np.uint8)
    mean, std = weights.mean_and_std(images)
    x = (images.astype(np.float64) / 255 - mean) / std
    flat = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2)).reshape(-1, 12)
    assert np.allclose(weights._patch_covariance(images, mean, std, 2), flat.T @ flat / len(flat), atol=1e-5)
