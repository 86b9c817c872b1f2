from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.architecture import layers as l
from tenfold.architecture import weights as canonical
from tenfold.bundle import manifest
from tenfold.data.dataset import Dataset, Geometry, Split


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", default="torch", help="the engine that the contract tests run against")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the user's cache or runs."""
    base = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("TENFOLD_CACHE", str(base / "cache"))
    monkeypatch.setenv("TENFOLD_RUNS", str(base / "runs"))
    return None


@pytest.fixture
def real_data() -> Path:
    """The folder with the real CIFAR-10, from TENFOLD_DATA; the test is skipped without it."""
    given = os.environ.get("TENFOLD_DATA")
    if not given or not (Path(given) / "cifar-10-batches-bin").is_dir():
        pytest.skip("TENFOLD_DATA does not name a folder with cifar-10-batches-bin")
    return Path(given)


def blobs(count: int, classes: int = 4, size: int = 16, seed: int = 0) -> Split:
    """Pictures of one bright square each; its place and colour are the class, so a network can learn them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    images = rng.integers(0, 90, (count, size, size, 3), dtype=np.uint8)
    half = size // 2
    for i, label in enumerate(labels):
        row, column = divmod(int(label) % 4, 2)
        images[i, row * half : (row + 1) * half, column * half : (column + 1) * half, label % 3] += 140
    return Split(images, labels, [f"train/{i}" for i in range(count)])


@pytest.fixture
def squares() -> Dataset:
    """256 training, 64 validation and 64 test pictures of 16×16 in four classes that are easily told apart."""
    return Dataset(
        name="squares",
        source="squares",
        classes=("a", "b", "c", "d"),
        splits={"train": blobs(256), "val": blobs(64, seed=1), "test": blobs(64, seed=2)},
        geometry=Geometry(16, 16),
        mirror=False,
        fingerprint="0" * 64,
    )


# ---- a network's answer in NumPy, float64: slow, plain, independent of every framework -------------------


def _windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def _forward(layers: tuple[l.Layer, ...], prefix: str, x: np.ndarray, w: Mapping[str, np.ndarray]) -> np.ndarray:
    for index, layer in enumerate(layers):
        name = prefix + canonical.layer_name(index, layer)
        part = {k[len(name) + 1 :]: v.astype(np.float64) for k, v in w.items() if k.startswith(name + ".")}
        column = (slice(None), *([None] * (x.ndim - 2)))
        match layer:
            case l.Normalize():
                x = ((x / 255 - part["mean"]) / part["std"]).transpose(0, 3, 1, 2)
            case l.Conv():
                padded = np.pad(x, ((0, 0), (0, 0), (layer.padding,) * 2, (layer.padding,) * 2))
                views = _windows(padded, layer.kernel, layer.stride)
                x = np.einsum("nchwij,ocij->nohw", views, part["kernel"])
                x = x + part["bias"][column] if layer.bias else x
            case l.BatchNorm():
                x = (x - part["mean"][column]) / np.sqrt(part["variance"][column] + layer.eps)
                x = x * part["gamma"][column] if layer.scale else x
                x = x + part["beta"][column] if layer.center else x
            case l.Activation(function="relu"):
                x = np.maximum(x, 0)
            case l.Activation(function="gelu"):
                x = x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
            case l.Activation():
                x = x / (1 + np.exp(-x))
            case l.Pool():
                views = _windows(x, layer.size, layer.stride)
                x = views.max((4, 5)) if layer.function == "max" else views.mean((4, 5))
            case l.GlobalPool():
                x = x.max((2, 3)) if layer.function == "max" else x.mean((2, 3))
            case l.Residual():
                x = _forward(layer.body, f"{name}.body.", x, w) + _forward(layer.shortcut, f"{name}.shortcut.", x, w)
            case l.Flatten():
                x = x.reshape(len(x), -1)
            case l.Dense():
                x = x @ part["kernel"].T + (part["bias"] if layer.bias else 0)
            case l.Scale():
                x = x * layer.factor
            case l.Dropout():
                pass
            case _:
                raise AssertionError(f"the reference does not know {layer}")
    return x


@pytest.fixture(scope="session")
def reference_logits() -> Callable[..., np.ndarray]:
    """(architecture, weights, uint8 images, dtype=float32) → logits, computed in float64 by NumPy alone."""

    def logits(
        architecture: l.Architecture, weights: Mapping[str, np.ndarray], images: np.ndarray, dtype: Any = np.float32
    ) -> np.ndarray:
        return _forward(architecture.layers, "", images.astype(np.float64), weights).astype(dtype)

    return logits


# ---- small networks ----------------------------------------------------------------------------------------


def _tiny(classes: int, size: int) -> l.Architecture:
    """Every layer and option at least once, in a few thousand numbers."""
    norm = l.BatchNorm()
    block = (l.Conv(6, 3, padding=1), norm, l.Activation("silu"), l.Conv(6, 3, padding=1, bias=True))
    layers = (
        l.Normalize(),
        l.Conv(4, 2, bias=True, init="whiten", frozen=True),
        l.Activation("gelu"),
        l.Pool("max", 2, 2),
        l.BatchNorm(scale=False),
        l.Residual(block, (l.Conv(6, 1), l.BatchNorm(center=False))),
        l.Residual((l.Conv(6, 3, padding=1, init="dirac"), l.Residual((l.Activation("relu"),)))),
        l.Pool("average", 2, 1),
        l.Dropout(0.2),
        l.Residual((l.GlobalPool("average"), l.Dense(7)), (l.Flatten(), l.Dense(7))),
        l.BatchNorm(eps=1e-3),
        l.Activation("relu"),
        l.Dense(classes, bias=False),
        l.Scale(0.5),
    )
    return l.Architecture("tiny", size, size, classes, layers)


@pytest.fixture(scope="session")
def tiny_network() -> Callable[..., tuple[l.Architecture, dict[str, np.ndarray]]]:
    """(classes=3, size=8, seed=0) → an architecture with every layer, and weights as if trained."""

    def network(classes: int = 3, size: int = 8, seed: int = 0) -> tuple[l.Architecture, dict[str, np.ndarray]]:
        architecture = _tiny(classes, size)
        rng = np.random.default_rng(seed)
        weights = canonical.initial(architecture, seed, rng.integers(0, 256, (32, size, size, 3), np.uint8))
        for name, value in weights.items():
            if name.endswith(".variance"):
                weights[name] = rng.uniform(0.5, 2, value.shape).astype(np.float32)
            elif name.endswith((".beta", ".mean", ".bias")) and "normalize" not in name:
                weights[name] = rng.normal(0, 0.2, value.shape).astype(np.float32)
        return architecture, weights

    return network


@pytest.fixture(scope="session")
def bundle_content(tiny_network: Any, reference_logits: Any) -> Callable[..., Any]:
    """(classes=3, size=8, seed=0, **changed fields) → what training hands to ``bundle.store.write``."""
    from tenfold.bundle.store import BundleContent

    def content(classes: int = 3, size: int = 8, seed: int = 0, **changes: Any) -> BundleContent:
        architecture, weights = tiny_network(classes, size, seed)
        images = np.random.default_rng(seed + 1).integers(0, 256, (5, size, size, 3), np.uint8)
        fields: dict[str, Any] = {
            "name": "tiny-run",
            "classes": tuple(f"class {i}" for i in range(classes)),
            "geometry": Geometry(size, size),
            "architecture": architecture,
            "weights": weights,
            "temperature": 1.25,
            "metrics": {"test": {"accuracy": 0.5, "n": 10}},
            "provenance": {"dataset": {"source": "generated"}, "engine": "numpy"},
            "golden_images": images,
            "golden_logits": reference_logits(architecture, weights, images),
        }
        return BundleContent(**{**fields, **changes})

    return content


@pytest.fixture
def bundle_folder(bundle_content: Any, tmp_path: Path) -> Path:
    """A bundle of the tiny network, freshly written."""
    from tenfold.bundle import store

    return store.write(tmp_path / "run" / "model", bundle_content()).path


@pytest.fixture
def reseal() -> Callable[..., None]:
    """(bundle's folder, change=None): write the manifest anew as one who means harm would, every digest right.

    ``change`` takes the manifest as plain JSON and alters it in place, after the files' digests were set.
    """

    def write(folder: Path, change: Callable[[dict[str, Any]], None] = lambda value: None) -> None:
        value = json.loads((folder / "manifest.json").read_bytes())
        for name in manifest.FILES:
            data = (folder / name).read_bytes()
            value["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        change(value)
        value.pop("checksum", None)
        (folder / "manifest.json").write_text(manifest.seal(value), encoding="utf-8")

    return write
