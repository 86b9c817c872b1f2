"""What every runtime must do: the same tests run against each."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.bundle import golden, store
from tenfold.errors import BundleError, CallError, MissingExtraError, UnknownNameError
from tenfold.runtimes import base, onnxruntime, openvino
from tenfold.runtimes.base import Runtime

# name: (opens the runtime on a bundle's folder)
RUNTIMES: dict[str, Callable[[Path], Runtime]] = {
    "onnxruntime": lambda folder: onnxruntime.open(folder / "model.onnx"),
    "onnxruntime, one thread": lambda folder: onnxruntime.open(folder / "model.onnx", threads=1),
    "onnxruntime, quick": lambda folder: onnxruntime.start(
        (folder / "model.onnx").read_bytes(), {}, quick=True, where="model.onnx"
    ),
    "openvino": lambda folder: openvino.open(folder / "model.onnx"),
    "openvino, one thread": lambda folder: openvino.open((folder / "model.onnx").read_bytes(), threads=1),
}

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs tenfold[openvino]")


@pytest.fixture(params=[pytest.param(n, marks=needs_openvino if n.startswith("openvino") else ()) for n in RUNTIMES])
def runtime(request: pytest.FixtureRequest, bundle_folder: Path) -> Runtime:
    return RUNTIMES[request.param](bundle_folder)


def test_gives_the_golden_answers(runtime: Runtime, bundle_folder: Path) -> None:
    verdict = golden.replay(store.open(bundle_folder), runtime)
    assert verdict.max_difference < 1e-5


def test_says_what_it_is_and_where_it_runs(runtime: Runtime, request: pytest.FixtureRequest) -> None:
    assert runtime.name == request.node.callspec.params["runtime"].partition(",")[0] and runtime.device == "cpu"


@pytest.mark.parametrize("count", [0, 1, 5, 700])
def test_any_number_of_images(runtime: Runtime, count: int, bundle_content: Any, reference_logits: Any) -> None:
    """More than a batch holds, one, and none; always the answer of the image alone."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    answer = runtime.probabilities(images)
    assert answer.dtype == np.float32 and answer.shape == (count, 3)
    content = bundle_content()
    for i in {0, count // 2, count - 1} if count else ():
        logits = reference_logits(content.architecture, content.weights, images[i : i + 1])
        np.testing.assert_allclose(answer[i], golden.expected(logits, 1.25)[0], atol=2e-6)
    np.testing.assert_allclose(answer.sum(1), 1, atol=1e-5)


def test_pixels_that_are_not_in_a_row_in_memory(runtime: Runtime) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 3, 6), np.uint8).transpose(3, 0, 1, 2)
    assert np.array_equal(runtime.probabilities(images), runtime.probabilities(images.copy()))


def test_a_read_only_memory_map(runtime: Runtime, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert np.array_equal(runtime.probabilities(mapped), runtime.probabilities(images))


@pytest.mark.parametrize(
    "images, said",
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"uint8 N×8×8×3, not float32 2×8×8×3.*from 0 to 255"),
        (np.zeros((2, 8, 9, 3), np.uint8), "not uint8 2×8×9×3"),
        (np.zeros((2, 3, 8, 8), np.uint8), "not uint8 2×3×8×8"),
        (np.zeros((8, 8, 3), np.uint8), r"images\[None\]"),
        (np.zeros((2, 8, 8, 1), np.uint8), "not uint8 2×8×8×1"),
        ([[1, 2]], "NumPy array.*not list"),
    ],
)
def test_other_images_are_a_wrong_call(runtime: Runtime, images: Any, said: str) -> None:
    with pytest.raises(CallError, match=said):
        runtime.probabilities(images)


# ---- ONNX Runtime's own -------------------------------------------------------------------------------------


def test_threads_must_be_positive(bundle_folder: Path) -> None:
    with pytest.raises(CallError, match="threads must be 1 or more"):
        onnxruntime.open(bundle_folder / "model.onnx", threads=0)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"m\.onnx can't be read: No such file"):
        onnxruntime.open(tmp_path / "m.onnx")


def test_a_file_larger_than_onnx_allows_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31)  # a sparse file
    with pytest.raises(BundleError, match="larger than an ONNX file can be"):
        onnxruntime.open(tmp_path / "m.onnx")


def test_answers_that_are_not_finite_are_no_answers(bundle_content: Any, tmp_path: Path) -> None:
    """Weights can be finite and the sums not; such a model may not leave, and if it came, may not answer."""
    from tenfold.export import onnx as export

    content = bundle_content()
    weights = {name: value * np.float32(1e30) if "dense" in name else value for name, value in content.weights.items()}
    path = tmp_path / "m.onnx"
    export.write(
        content.architecture, weights, classes=content.classes, geometry=content.geometry, temperature=1.0, name="x",
        path=path,
    )  # fmt: skip
    with pytest.raises(BundleError, match="answers that are no probabilities"):
        onnxruntime.open(path).probabilities(content.golden_images)


# ---- runtimes by name, and OpenVINO's own -------------------------------------------------------------------


def test_a_runtime_is_had_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.load("onnxruntime") is onnxruntime
    with pytest.raises(UnknownNameError, match="Did you mean openvino"):
        base.load("openvno")
    monkeypatch.setitem(base.RUNTIMES, "openvino", ("no_such_package_anywhere", "openvino"))
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[openvino\]'"):
        base.load("openvino")


def test_openvino_says_how_to_get_it(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[openvino\]'"):
        openvino.open(bundle_folder / "model.onnx")


@needs_openvino
def test_openvino_is_inspected_first_and_says_what_is_wrong(tmp_path: Path, bundle_folder: Path) -> None:
    with pytest.raises(BundleError, match=r"m\.onnx is damaged, or not an ONNX model"):
        openvino.open(b"\x3a\xff", where="m.onnx")
    with pytest.raises(CallError, match="threads must be 1 or more"):
        openvino.open(bundle_folder / "model.onnx", threads=0)


@needs_openvino
def test_openvino_takes_the_devices_and_precisions_that_are_here(bundle_folder: Path) -> None:
    """In a process of its own: looking for cards loads drivers, which may not bear the other frameworks of this one."""
    code = """
import sys
from pathlib import Path
from tenfold.errors import TenfoldError
from tenfold.runtimes import openvino

name, native = openvino.devices()["cpu"]
print(bool(name), native[0])
refused = [{"precision": p} for p in ("bf16", "fp16") if p not in native]
for options in [{"device": "tpu"}, {"precision": "fp8"}, *refused]:
    try:
        openvino.open(Path(sys.argv[1]), **options)
    except TenfoldError as error:
        print(type(error).__name__, error)
"""
    call = [sys.executable, "-c", code, str(bundle_folder / "model.onnx")]
    first, device, precision, *rest = subprocess.run(
        call, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert first == "True fp32"
    assert device.startswith("UnknownNameError No device is called 'tpu' for OpenVINO here")
    assert precision.startswith("UnknownNameError No precision is called 'fp8'")
    assert all("does not compute in" in line for line in rest)


@needs_openvino
def test_openvino_sends_no_telemetry(bundle_folder: Path) -> None:
    """Its package tells its makers of every import, unless the package that does so can't be imported."""
    code = (
        f"import sys; from pathlib import Path; from tenfold.runtimes import openvino; "
        f"openvino.open(Path({str(bundle_folder / 'model.onnx')!r})); print('openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
