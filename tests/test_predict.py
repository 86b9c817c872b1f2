"""``tenfold.load(...)`` and what a Model answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tenfold
from tenfold.bundle import golden, store
from tenfold.data.dataset import Geometry, Skipped
from tenfold.errors import BundleError, CallError, ImageError, UnknownNameError
from tenfold.predict import BATCH, Model, Prediction, load


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (6, 8, 8, 3), np.uint8)


@pytest.fixture
def files(images: np.ndarray, tmp_path: Path) -> list[Path]:
    """The images as PNG files, which keep every pixel."""
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture
def expected(bundle_content: Any, reference_logits: Any, images: np.ndarray) -> np.ndarray:
    content = bundle_content()
    return golden.expected(reference_logits(content.architecture, content.weights, images), content.temperature)


@pytest.mark.parametrize("part", ["", "model", "model/manifest.json", "model/model.onnx"])
@pytest.mark.parametrize("quick", [False, True])
def test_takes_a_run_a_bundle_or_a_model_alone(
    bundle_folder: Path, part: str, quick: bool, images: np.ndarray, expected: np.ndarray
) -> None:
    model = load(str(bundle_folder.parent / part), quick=quick)
    assert model.name == "tiny-run" and model.classes == ("class 0", "class 1", "class 2")
    assert model.geometry == Geometry(8, 8)
    assert (model.manifest is None) == part.endswith(".onnx")
    np.testing.assert_allclose(model.probabilities(images), expected, atol=2e-6)
    assert model.runtime.device == "cpu" and "tiny-run" in repr(model)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_other_runtimes_and_engines_give_the_same_answers(
    bundle_folder: Path, runtime: str, images: np.ndarray, expected: np.ndarray
) -> None:
    pytest.importorskip(runtime, reason=f"needs tenfold[{runtime}]")
    model = load(bundle_folder, runtime=runtime)
    np.testing.assert_allclose(model.probabilities(images), expected, atol=1e-4)
    assert (model.runtime.name, model.runtime.device) == (runtime, "cpu")


def test_a_runtime_that_cannot_be_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    alone = tmp_path / "model.onnx"
    alone.write_bytes(b"no graph")
    with pytest.raises(UnknownNameError, match="Did you mean openvino"):
        load(alone, runtime="openvin")
    with pytest.raises(CallError, match="takes a run or a bundle"):
        load(alone, runtime="torch")
    with pytest.raises(CallError, match="onnxruntime computes on cpu, cuda or cuda:NUMBER, not on mps"):
        load(alone, device="mps")


def test_an_engine_answers_for_a_verified_bundle_only(bundle_folder: Path, images: np.ndarray) -> None:
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    with (bundle_folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        load(bundle_folder, runtime="torch")


def check(prediction: Prediction, probabilities: np.ndarray) -> None:
    order = np.argsort(-probabilities)
    assert [name for name, _ in prediction.top] == [f"class {i}" for i in order[: len(prediction.top)]]
    np.testing.assert_allclose([p for _, p in prediction.top], probabilities[order][: len(prediction.top)], atol=2e-6)


def test_one_picture_in_every_form(
    bundle_folder: Path, images: np.ndarray, files: list[Path], expected: np.ndarray
) -> None:
    model = tenfold.load(bundle_folder)
    for source in (str(files[0]), files[0], files[0].read_bytes(), images[0]):
        prediction = model.predict(source)
        assert isinstance(prediction, tenfold.Prediction)
        check(prediction, expected[0])
        assert prediction.path == (str(source) if isinstance(source, str | Path) else "[0]")
        assert (prediction.label, prediction.probability) == prediction.top[0]
        assert all(type(p) is float for _, p in prediction.top)
    assert json.loads(json.dumps(prediction.to_dict()))["top"][0]["class"] == prediction.label


def test_lists_keep_their_order(
    bundle_folder: Path, images: np.ndarray, files: list[Path], expected: np.ndarray
) -> None:
    model = load(bundle_folder)
    mixed = [str(files[0]), images[1], files[2].read_bytes(), files[3]]
    predictions = model.predict(mixed, top=1)
    for i, prediction in enumerate(predictions):
        check(prediction, expected[i])
        assert len(prediction.top) == 1
    assert [p.path for p in predictions] == [str(files[0]), "[1]", "[2]", str(files[3])]
    assert model.predict([]) == [] and len(model.predict([files[0]])) == 1


def test_top_is_clamped_and_must_be_positive(bundle_folder: Path, files: list[Path]) -> None:
    model = load(bundle_folder)
    assert len(model.predict(files[0], top=99).top) == 3
    assert sum(p for _, p in model.predict(files[0], top=99).top) == pytest.approx(1, abs=1e-5)
    with pytest.raises(CallError, match="top must be 1 or more"):
        model.predict(files[0], top=0)


def test_pixels_of_another_size_are_resized_as_a_file_would_be(bundle_folder: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (31, 57, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    model = load(bundle_folder)
    assert model.predict(pixels).top == model.predict(tmp_path / "large.png").top


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.uint8)]
)
def test_pixels_of_another_kind_are_a_wrong_call(bundle_folder: Path, pixels: np.ndarray) -> None:
    with pytest.raises(CallError, match="must be uint8 height×width×3"):
        load(bundle_folder).predict(pixels)
    with pytest.raises(CallError, match="must be uint8 height×width×3"):
        load(bundle_folder).predict([pixels, pixels])


def test_unreadable_pictures_raise_or_are_passed_on(bundle_folder: Path, files: list[Path], tmp_path: Path) -> None:
    files[1].write_bytes(b"")
    model = load(bundle_folder)
    for sources in (files, [files[1]], files[1]):
        with pytest.raises(ImageError, match=r"1\.png: the file is empty"):
            model.predict(sources)
    answers = list(model.stream([*files, tmp_path / "none.png"]))
    assert [type(a) for a in answers] == [Prediction, Skipped, *[Prediction] * 4, Skipped]
    assert answers[1] == Skipped(str(files[1]), "the file is empty.")


def test_many_pictures_stream_in_order_and_bounded(bundle_folder: Path, images: np.ndarray) -> None:
    """Batches come as they are ready, and no more sources are taken than are decoded ahead."""
    taken = 0

    def sources() -> Iterator[np.ndarray]:
        nonlocal taken
        for i in range(5 * BATCH + 3):
            taken += 1
            yield images[i % len(images)]

    stream = load(bundle_folder).stream(sources(), top=1)
    first = next(stream)
    assert first.path == "[0]" and taken <= 3 * BATCH + 2
    rest = list(stream)
    assert [a.path for a in rest] == [f"[{i}]" for i in range(1, 5 * BATCH + 3)]
    assert {a.top[0][0] for a in rest[5::6]} == {first.top[0][0]}


def test_a_stream_left_early_ends_its_threads(bundle_folder: Path, images: np.ndarray) -> None:
    import threading

    before = threading.active_count()
    stream = load(bundle_folder).stream(images[i % 6] for i in range(1000))
    next(stream)
    stream.close()
    assert threading.active_count() <= before


def test_quick_verifies_before_it_answers(bundle_folder: Path, images: np.ndarray) -> None:
    path = bundle_folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    model = load(bundle_folder, quick=True)
    for answer in (lambda: model.predict(images[0]), lambda: model.probabilities(images), lambda: model.runtime):
        with pytest.raises(BundleError, match=r"weights\.safetensors"):
            answer()
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        load(bundle_folder)


def test_nothing_there(tmp_path: Path) -> None:
    for name in ("run", "model.onnx"):
        with pytest.raises(CallError, match=f"no run, bundle or model at .*{name}"):
            load(tmp_path / name)


def test_threads_are_checked(bundle_folder: Path) -> None:
    with pytest.raises(CallError, match="threads must be 1 or more"):
        load(bundle_folder, threads=-1)


def test_predicting_leaves_nothing_in_the_users_home(bundle_folder: Path, files: list[Path], tmp_path: Path) -> None:
    """ONNX Runtime's telemetry would: an identifier, and what it is about to tell."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")}
    code = f"import tenfold; tenfold.load({str(bundle_folder)!r}).predict({str(files[0])!r})"
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []


def test_predicting_imports_no_framework(bundle_folder: Path, files: list[Path]) -> None:
    code = (
        "import sys, tenfold; assert 'numpy' not in sys.modules\n"
        f"print(tenfold.load({str(bundle_folder)!r}).predict([{str(files[0])!r}, {str(files[1])!r}])[0].label)\n"
        "print([m for m in ('torch', 'onnx', 'pydantic', 'yaml', 'rich', 'typer', 'matplotlib', 'safetensors', "
        "'tenfold.architecture.layers', 'importlib.metadata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.splitlines()[0].startswith("class ") and done.stdout.splitlines()[1] == "[]"


def test_model_is_what_load_gives(bundle_folder: Path) -> None:
    assert isinstance(load(bundle_folder), Model) and tenfold.Model is Model
    assert store.open(bundle_folder).manifest == load(bundle_folder).manifest
