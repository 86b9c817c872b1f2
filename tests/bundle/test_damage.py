"""A bundle that is damaged, or was made to do harm, is refused by the name of the file that is wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold import load
from tenfold.bundle import store, tensors
from tenfold.bundle.manifest import FILES
from tenfold.errors import BundleError

ALL = ("manifest.json", *FILES)


def use_everything(folder: Path) -> None:
    """All that anyone does with a bundle."""
    bundle = store.open(folder)
    bundle.weights()
    bundle.golden()
    predict(folder)


def predict(folder: Path) -> None:
    """As the command line does it for one picture, where verification goes on beside the decoding."""
    load(folder, quick=True).predict(np.zeros((8, 8, 3), np.uint8))


def places(size: int, count: int) -> list[int]:
    """Byte positions in all regions of a file: its first and last 40 and others spread between."""
    spread = np.linspace(0, size - 1, count).astype(int).tolist()
    return sorted({*range(min(40, size)), *spread, *range(max(0, size - 40), size)})


# ---- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_one_flipped_bit_anywhere(bundle_folder: Path, name: str) -> None:
    path = bundle_folder / name
    sound = path.read_bytes()
    for i, at in enumerate(places(len(sound), 150)):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << i % 8
        path.write_bytes(damaged)
        with pytest.raises(BundleError) as caught:
            store.open(bundle_folder)
        assert name in caught.value.message, f"byte {at}: {caught.value}"
        if i % 10 == 0:
            with pytest.raises(BundleError) as caught:
                predict(bundle_folder)
            assert name in caught.value.message, f"byte {at}: {caught.value}"
    path.write_bytes(sound)
    use_everything(bundle_folder)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d[: len(d) // 2], lambda d: b"", lambda d: d + b"\0"])
def test_cut_short_or_longer(bundle_folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = bundle_folder / name
    path.write_bytes(change(path.read_bytes()))
    for use in (store.open, predict):
        with pytest.raises(BundleError) as caught:
            use(bundle_folder)
        assert name in caught.value.message


@pytest.mark.parametrize("name", ALL)
def test_missing_or_not_a_file(bundle_folder: Path, name: str, tmp_path: Path) -> None:
    path = bundle_folder / name
    outside = tmp_path / "outside"
    path.rename(outside)
    expected = "is not a bundle" if name == "manifest.json" else f"{name} is missing"
    with pytest.raises(BundleError, match=expected):
        store.open(bundle_folder)
    path.symlink_to(outside)  # even to the very file
    for use in (store.open, predict):
        with pytest.raises(BundleError, match=f"{name} is a link"):
            use(bundle_folder)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=f"{name} is a link"):
        store.open(bundle_folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(BundleError, match=name):
        store.open(bundle_folder)
    path.rmdir()
    os.mkfifo(path)  # opening one would wait for ever
    with pytest.raises(BundleError, match=f"{name} is not a plain file"):
        store.open(bundle_folder)


def test_files_of_two_bundles_mixed(bundle_folder: Path, bundle_content: Any, tmp_path: Path) -> None:
    other = store.write(tmp_path / "other", bundle_content(seed=3)).path
    shutil.copy(other / "weights.safetensors", bundle_folder)
    with pytest.raises(BundleError, match=r"weights\.safetensors is not the file that the bundle was written with"):
        store.open(bundle_folder)


# ---- harm: every digest is right ----------------------------------------------------------------------------


class Marker:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def as_torch_saves(data: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", data)
    return archive.getvalue()


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [bytes, as_torch_saves])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_pickle_is_never_loaded(
    bundle_folder: Path, tmp_path: Path, reseal: Any, name: str, protocol: int, wrap: Any, sealed: bool
) -> None:
    marker = tmp_path / "ran"
    (bundle_folder / name).write_bytes(wrap(pickle.dumps(Marker(marker), protocol)))
    if sealed:
        reseal(bundle_folder)
    with pytest.raises(BundleError) as caught:
        use_everything(bundle_folder)
    assert name in caught.value.message
    assert not marker.exists()
    if wrap is as_torch_saves or protocol >= 2:
        assert "pickle" in caught.value.message or "zip archive" in caught.value.message


def safetensors(header: Any, body: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE = {
    "header of 2^63 bytes": safetensors({}, b"", 2**63),
    "header of 2^64-1 bytes": safetensors({}, b"", 2**64 - 1),
    "header of 4 GB": safetensors({}, b"", 2**32),
    "header of 100 MB": safetensors({}, b"", 100_000_000),
    "header beyond the end": safetensors({"a": entry(0, 4, [1])}, b"\0" * 4, 5000),
    "no header": b"\0" * 8,
    "header is no JSON": safetensors(b"{" + b"x" * 20, b""),
    "header nested 10,000 deep": safetensors(b'{"a":' + b"[" * 10_000, b""),
    "overlapping": safetensors({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, b"\0" * 12),
    "hole between": safetensors({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, b"\0" * 12),
    "offsets backwards": safetensors({"a": entry(8, 0, [2])}, b"\0" * 8),
    "offsets beyond the end": safetensors({"a": entry(0, 4000, [1000])}, b"\0" * 8),
    "shape larger than its bytes": safetensors({"a": entry(0, 4, [1000])}, b"\0" * 4),
    "shape that overflows": safetensors({"a": entry(0, 4, [2**62, 2**62])}, b"\0" * 4),
    "negative shape": safetensors({"a": entry(0, 4, [-1])}, b"\0" * 4),
    "unknown dtype": safetensors({"a": entry(0, 4, [1], "OBJ")}, b"\0" * 4),
    "doubles": safetensors({"a": entry(0, 8, [1], "F64")}, b"\0" * 8),
    "nothing in it": safetensors({}, b""),
}


@pytest.mark.parametrize("name", ["weights.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_safetensors(bundle_folder: Path, reseal: Any, name: str, kind: str) -> None:
    (bundle_folder / name).write_bytes(HOSTILE[kind])
    reseal(bundle_folder)
    bundle = store.open(bundle_folder)
    with pytest.raises(BundleError) as caught:
        bundle.weights() if name.startswith("weights") else bundle.golden()
    assert name in caught.value.message
    predict(bundle_folder)  # reads neither


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda w: w.pop("01_conv.bias"), "01_conv.bias.*missing"),
        (lambda w: w.update(extra=np.zeros(1, np.float32)), "extra.*does not belong"),
        (lambda w: w.update({"01_conv.bias": np.zeros(5, np.float32)}), r"01_conv\.bias.*\(5,\)"),
        (lambda w: w.update({"01_conv.bias": np.zeros(4, np.uint8)}), r"01_conv\.bias.*uint8"),
        (lambda w: w.update({"01_conv.bias": np.full(4, np.nan, np.float32)}), r"01_conv\.bias.*not finite"),
        (lambda w: w.update({"01_conv.bias": w["01_conv.bias"] + 1}), "other values than weights_sha256"),
    ],
)
def test_weights_that_do_not_fit(bundle_folder: Path, reseal: Any, change: Any, said: str) -> None:
    weights = store.open(bundle_folder).weights()
    change(weights)
    (bundle_folder / "weights.safetensors").write_bytes(tensors.save(weights))
    reseal(bundle_folder)
    with pytest.raises(BundleError, match=said) as caught:
        store.open(bundle_folder).weights()
    assert "weights.safetensors" in caught.value.message


def test_weights_file_larger_than_the_network(bundle_folder: Path, reseal: Any) -> None:
    """Its size is compared before it is read into memory."""
    with (bundle_folder / "weights.safetensors").open("ab") as file:
        file.truncate(300_000_000)  # a sparse file
    reseal(bundle_folder)
    with pytest.raises(BundleError, match=r"weights\.safetensors is larger than the architecture's weights"):
        store.open(bundle_folder, verify=False).weights()


@pytest.mark.parametrize(
    "images, probabilities",
    [
        (np.zeros((5, 8, 9, 3), np.uint8), np.zeros((5, 3), np.float32)),
        (np.zeros((5, 8, 8, 3), np.float32), np.zeros((5, 3), np.float32)),
        (np.zeros((5, 8, 8, 3), np.uint8), np.zeros((4, 3), np.float32)),
        (np.zeros((5, 8, 8, 3), np.uint8), np.full((5, 3), np.nan, np.float32)),
        (np.zeros((0, 8, 8, 3), np.uint8), np.zeros((0, 3), np.float32)),
        (np.zeros((), np.uint8), np.zeros((), np.float32)),
    ],
)
def test_golden_images_that_do_not_fit(
    bundle_folder: Path, reseal: Any, images: np.ndarray, probabilities: np.ndarray
) -> None:
    data = tensors.save({"images": images, "probabilities": probabilities})
    (bundle_folder / "golden.safetensors").write_bytes(data)
    reseal(bundle_folder)
    with pytest.raises(BundleError, match=r"golden\.safetensors"):
        store.open(bundle_folder).golden()


def test_model_of_another_bundle_is_told_by_its_metadata(
    bundle_folder: Path, bundle_content: Any, tmp_path: Path, reseal: Any
) -> None:
    other = store.write(tmp_path / "other", bundle_content(classes=4)).path
    shutil.copy(other / "model.onnx", bundle_folder)
    reseal(bundle_folder)
    with pytest.raises(BundleError, match=r"model\.onnx and manifest\.json differ"):
        predict(bundle_folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/../../x", "..", "C:\\x", "weights.pt", ""])
def test_manifest_naming_other_files(bundle_folder: Path, reseal: Any, name: str) -> None:
    def change(value: dict[str, Any]) -> None:
        value["files"][name] = value["files"].pop("weights.safetensors")

    reseal(bundle_folder, change)
    with pytest.raises(BundleError) as caught:
        store.open(bundle_folder)
    assert f"files names {name!r}" in caught.value.message
