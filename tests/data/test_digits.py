"""The digits that ship with the package are scikit-learn's."""

import subprocess
import sys

import numpy as np
import pytest

from tenfold.data import builtin, load_dataset
from tenfold.recipe import Data


def test_they_are_scikit_learns():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = builtin.digits()
    np.testing.assert_array_equal(labels, theirs.target)
    assert images.shape == (1797, 8, 8, 3) and images.dtype == np.uint8
    np.testing.assert_allclose(images, theirs.images[..., None].repeat(3, 3) * 255 / 16, atol=0.5)
    assert (images.min(), images.max()) == (0, 255)


def test_as_a_dataset():
    dataset = load_dataset()
    assert dataset.name == dataset.source == "digits"
    assert dataset.classes == tuple("0123456789")
    assert not dataset.mirror
    assert dataset.geometry.height == dataset.geometry.width == 16
    assert sum(len(s) for s in dataset.splits.values()) == 1797
    assert dataset.split_rule == {"rule": "stratified-hash", "seed": 0, "val_fraction": 0.1, "test_fraction": 0.2}
    for name, share in (("test", 0.2), ("val", 0.08), ("train", 0.72)):
        np.testing.assert_allclose(dataset.counts(name) / 179.7, share, atol=0.03)
    every = sorted(o for s in dataset.splits.values() for o in s.origins)
    assert every == sorted(f"digits/{i}" for i in range(1797))
    assert load_dataset("digits").fingerprint == dataset.fingerprint


def test_own_size_and_other_splits():
    dataset = load_dataset("digits", Data(size=8, test_fraction=0.5, val_fraction=0, seed=3))
    assert dataset["train"].images.shape[1:] == (8, 8, 3)
    assert len(dataset["val"]) == 0 and abs(len(dataset["test"]) - 898) < 10
    images, labels = builtin.digits()
    for image, label, origin in zip(*vars(dataset["test"]).values(), strict=True):
        i = int(origin.removeprefix("digits/"))
        assert label == labels[i]
        np.testing.assert_array_equal(image, images[i])


def test_no_framework_is_imported_for_them():
    code = "import sys; from tenfold.data import load_dataset; load_dataset(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "torch", "matplotlib", "rich", "typer", "onnxruntime"} & set(done.stdout.split())


def test_the_interpolation_is_the_recipe_s():
    bilinear, cubic = load_dataset("digits"), load_dataset("digits", Data(interpolation="bicubic"))
    assert (bilinear.geometry.interpolation, cubic.geometry.interpolation) == ("bilinear", "bicubic")
    assert not np.array_equal(bilinear["test"].images, cubic["test"].images)
