"""What is written is what is opened, and what is written is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold import paths
from tenfold.bundle import golden, store
from tenfold.bundle.manifest import FILES
from tenfold.errors import BundleError, CallError
from tenfold.export import gate
from tenfold.runtimes import onnxruntime


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    e = np.exp((logits - logits.max(1, keepdims=True)).astype(np.float64) / temperature)
    return e / e.sum(1, keepdims=True)


def test_opens_as_it_was_written(bundle_content: Any, tmp_path: Path) -> None:
    content = bundle_content()
    written = store.write(tmp_path / "model", content)
    bundle = store.open(tmp_path / "model")
    assert bundle.manifest == written.manifest
    found = bundle.manifest
    assert (found.name, found.classes, found.geometry) == (content.name, content.classes, content.geometry)
    assert found.architecture == content.architecture and found.temperature == 1.25
    assert found.metrics == content.metrics and found.provenance["engine"] == "numpy"
    assert found.created.endswith("+00:00")
    assert found.parameters == sum(value.size for value in content.weights.values()) - 6  # the pixels' mean and std
    weights = bundle.weights()
    assert list(weights) == list(content.weights)
    for name, value in content.weights.items():
        assert weights[name].dtype == np.float32 and np.array_equal(weights[name], value), name
        weights[name] += 1  # an engine trains on from these
    images, probabilities = bundle.golden()
    assert np.array_equal(images, content.golden_images)
    np.testing.assert_allclose(probabilities, softmax(content.golden_logits, 1.25), atol=1e-6)


def test_leaves_four_files_and_nothing_beside_them(bundle_folder: Path) -> None:
    assert sorted(p.name for p in bundle_folder.iterdir()) == sorted(["manifest.json", *FILES])
    assert [p.name for p in bundle_folder.parent.iterdir()] == ["model"]


def test_same_content_same_bytes(bundle_content: Any, tmp_path: Path) -> None:
    content = bundle_content()
    turned = dataclasses.replace(content, weights=dict(reversed(content.weights.items())))
    one, two = store.write(tmp_path / "one", content), store.write(tmp_path / "two", turned)
    assert one.manifest.files == two.manifest.files


def test_parity_is_recorded(bundle_folder: Path) -> None:
    parity = store.open(bundle_folder).manifest.provenance["parity"]
    assert parity["runtime"].startswith("onnxruntime ") and parity["images"] == 5
    assert 0 <= parity["max_difference"] < 1e-5 and parity["top1_changed"] == 0


def test_golden_images_can_be_replayed(bundle_folder: Path) -> None:
    bundle = store.open(bundle_folder)
    assert golden.replay(bundle, onnxruntime.open(bundle_folder / "model.onnx")).passed


def test_no_bundle_leaves_with_other_answers(bundle_content: Any, tmp_path: Path) -> None:
    """The engine said one thing and the graph says another: the last good bundle stays."""
    kept = store.write(tmp_path / "model", bundle_content())
    content = bundle_content()
    with pytest.raises(BundleError, match=r"model\.onnx does not give the answers it must"):
        store.write(tmp_path / "model", dataclasses.replace(content, golden_logits=content.golden_logits[::-1]))
    assert store.open(tmp_path / "model").manifest == kept.manifest
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_bundle_is_replaced_whole(bundle_content: Any, tmp_path: Path) -> None:
    store.write(tmp_path / "model", bundle_content())
    (tmp_path / "model" / "notes.txt").write_text("of the old one")
    store.write(tmp_path / "model", bundle_content(seed=7))
    assert not (tmp_path / "model" / "notes.txt").exists()
    found, wanted = store.open(tmp_path / "model").weights(), bundle_content(seed=7).weights
    assert np.array_equal(found["01_conv.bias"], wanted["01_conv.bias"])


def test_a_failing_disk_is_told_and_leaves_nothing(
    bundle_content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paths, "sync_folder", full)
    with pytest.raises(BundleError, match=r"could not be written to .*model: No space left on device"):
        store.write(tmp_path / "model", bundle_content())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"classes": ("a", "b")}, "2 class names for a network with 3 logits"),
        ({"classes": ("a", "b", "a")}, "class 'a' twice"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"metrics": {"loss": float("nan")}}, "plain JSON"),
        ({"provenance": {"path": Path()}}, "plain JSON"),
        ({"golden_images": np.zeros((0, 8, 8, 3), np.uint8)}, "1 to 256"),
        ({"golden_images": np.zeros((5, 8, 9, 3), np.uint8)}, "Golden images"),
        ({"golden_images": np.zeros((5, 8, 8, 3), np.float32)}, "Golden images"),
        ({"golden_logits": np.full((5, 3), np.inf, np.float32)}, "Golden logits"),
        ({"weights": {}}, "is missing"),
    ],
)
def test_content_that_does_not_fit_is_refused(
    bundle_content: Any, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        store.write(tmp_path / "model", dataclasses.replace(bundle_content(), **changes))
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_text_are_written_out(bundle_content: Any, tmp_path: Path) -> None:
    """Folders' names on Linux are bytes; a training must not be lost at its end over one."""
    content = dataclasses.replace(bundle_content(), name="run-\udcff", classes=("ok", "caf\udce9", "süß"))
    found = store.write(tmp_path / "model", content).manifest
    assert found.name == "run-\\udcff" and found.classes == ("ok", "caf\\udce9", "süß")
    assert store.open(tmp_path / "model").manifest.classes == found.classes


# ---- finding a bundle --------------------------------------------------------------------------------------


def test_found_by_its_folder_its_run_and_its_manifest(bundle_folder: Path) -> None:
    for path in (bundle_folder, bundle_folder.parent, bundle_folder / "manifest.json", str(bundle_folder)):
        assert store.open(path).path == bundle_folder


def test_a_link_to_a_bundles_folder_is_followed(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(bundle_folder.parent)
    assert store.open(tmp_path / "latest").manifest.name == "tiny-run"


def test_nothing_there_names_the_nearest(bundle_folder: Path) -> None:
    run = bundle_folder.parent
    with pytest.raises(CallError, match=f"no run, bundle or model at .*rum. Did you mean {run}?") as caught:
        store.open(run.with_name("rum"))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("path", ["x" * 5000, "no/such/folder", "a\nb"])
def test_names_that_can_not_be(path: str) -> None:
    with pytest.raises(CallError):
        store.open(path)


def test_a_run_without_a_model_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BundleError, match=f"holds no model.*tenfold train --resume {tmp_path}"):
        store.open(tmp_path)


def test_another_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle: it has no manifest\.json"):
        store.open(tmp_path)


def test_other_files_are_left_alone(bundle_folder: Path) -> None:
    (bundle_folder / "README.md").write_text("mine")
    (bundle_folder / "weights.pt").write_bytes(b"\x80\x04.")
    store.open(bundle_folder).weights()


# ---- digests -----------------------------------------------------------------------------------------------


def test_weights_digest_is_the_documented_one() -> None:
    weights = {
        "b.bias": np.array([1, -2], np.float32),
        "a.kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    }
    text = b"a.kernel\x003,2\x00" + np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()
    text += b"b.bias\x002\x00" + np.array([1, -2], "<f4").tobytes()
    digest = hashlib.sha256(text).hexdigest()
    assert store.weights_sha256(weights) == digest
    assert store.weights_sha256(dict(reversed(weights.items()))) == digest


def test_weights_digest_tells_names_shapes_and_values_apart() -> None:
    value = np.zeros((2, 2), np.float32)
    others = [{"b": value}, {"a": value.reshape(4)}, {"a": value + np.float32(1e-45)}, {"a": value, "b": value}]
    digests = {store.weights_sha256(weights) for weights in [{"a": value}, *others]}
    assert len(digests) == 5


def test_manifest_checksum_is_the_documented_one(bundle_folder: Path) -> None:
    text = (bundle_folder / "manifest.json").read_text(encoding="utf-8")
    told = json.loads(text)["checksum"]
    assert hashlib.sha256(text.replace(told, "0" * 64).encode()).hexdigest() == told


# ---- the gate ----------------------------------------------------------------------------------------------


def test_gate_measures_the_largest_difference() -> None:
    expected = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
    actual = expected + np.array([[0, 5e-5], [-9e-5, 0]], np.float32)
    verdict = gate.require(expected, actual, "it")
    assert verdict.max_difference == pytest.approx(9e-5, rel=1e-2) and verdict.images == 2


@pytest.mark.parametrize(
    "actual",
    [
        [[0.7002, 0.2998]],  # too far
        [[np.nan, 0.3]],
        [[0.7, 0.3], [0.7, 0.3]],  # another number of images
        [[0.7, 0.2, 0.1]],
    ],
)
def test_gate_refuses(actual: list[list[float]]) -> None:
    with pytest.raises(BundleError, match="it does not give the answers it must"):
        gate.require(np.array([[0.7, 0.3]], np.float32), np.array(actual, np.float32), "it")


def test_gate_takes_a_turned_tie_but_no_other_class() -> None:
    tie = np.array([[0.500001, 0.499999]], np.float32)
    assert gate.compare(tie, tie[:, ::-1]).passed
    near = np.array([[0.50003, 0.49997]], np.float32)
    verdict = gate.compare(near, near[:, ::-1])
    assert not verdict.passed and verdict.top1_changed == 1 and verdict.max_difference < 1e-4
