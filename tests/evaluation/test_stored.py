"""A bundle of a tiny network, measured on generated pictures and on digits; every figure beside a plain computation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tenfold
from tenfold.bundle import store
from tenfold.data import load_dataset
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.data.progress import Progress
from tenfold.errors import BundleError, CallError, DataError, TenfoldError, UnknownNameError, UnsupportedError
from tenfold.evaluation import tta as augmentation
from tenfold.evaluation.calibration import softmax
from tenfold.evaluation.stored import evaluate, evaluate_fully, history, recipe_text
from tenfold.recipe import Data, Recipe

CLASSES = ("class 0", "class 1", "class 2")


def _data(n: int = 30, classes: tuple[str, ...] = CLASSES, size: int = 8, **fields: Any) -> Dataset:
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    labels = np.arange(n) % len(classes)
    part = Split(images, labels.astype(np.int64), [f"{i}.png" for i in range(n)])
    empty = Split(images[:0], labels[:0].astype(np.int64), [])
    values: dict[str, Any] = {"splits": {"train": empty, "val": empty, "test": part}, "geometry": Geometry(size, size)}
    return Dataset(name="made", source="made", classes=classes, **{**values, **fields})


def _folder(where: Path, classes: tuple[str, ...], each: int = 4) -> Path:
    rng = np.random.default_rng(5)
    for name in classes:
        (where / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(where / name / f"{i}.png")
    return where


@pytest.fixture
def digits_run(bundle_content: Callable[..., Any], tmp_path: Path) -> Path:
    """A run folder whose bundle says that it was trained on digits of 8×8 pixels, a tenth held out for validation."""
    data = load_dataset("digits", Data(size=8, val_fraction=0.3, test_fraction=0.15, seed=4))
    recipe = Recipe(data=Data(size=8, val_fraction=0.3, test_fraction=0.15, seed=4)).model_dump(mode="json")
    facts = {"source": "digits", "fingerprint": data.fingerprint, "split_rule": dict(data.split_rule or {})}
    content = bundle_content(10, provenance={"recipe": recipe, "dataset": facts})
    store.write(tmp_path / "run" / "model", dataclasses.replace(content, classes=data.classes))
    return tmp_path / "run"


def test_figures_are_those_of_the_network(
    bundle_content: Callable[..., Any], bundle_folder: Path, reference_logits: Callable[..., np.ndarray]
) -> None:
    data, content = _data(), bundle_content()
    found = evaluate_fully(bundle_folder, data)
    logits = reference_logits(content.architecture, content.weights, data["test"].images)
    assert np.allclose(found.probabilities, softmax(logits, content.temperature), atol=1e-4)
    assert found.evaluation.accuracy == (logits.argmax(1) == data["test"].labels).mean()
    assert (found.evaluation.n, found.evaluation.split, found.evaluation.data) == (30, "test", "made")


def test_tta_averages_logits(
    bundle_content: Callable[..., Any], bundle_folder: Path, reference_logits: Callable[..., np.ndarray]
) -> None:
    data, content = _data(), bundle_content()
    found = evaluate_fully(bundle_folder, data, tta="flip+shift")
    mean = augmentation.averaged(
        lambda x: reference_logits(content.architecture, content.weights, x), data["test"].images, "flip+shift"
    )
    assert np.allclose(found.probabilities, softmax(mean, content.temperature), atol=1e-4)
    assert found.evaluation.tta == "flip+shift"


def test_classes_are_matched_by_name(bundle_folder: Path) -> None:
    here = _data()
    order = (2, 0, 1)
    names = tuple(CLASSES[i] for i in order)
    to = np.array([order.index(i) for i in range(3)])
    part = here["test"]
    there = _data(classes=names, splits={"test": Split(part.images, to[part.labels], part.origins)})
    assert evaluate(bundle_folder, there).to_dict() == evaluate(bundle_folder, here).to_dict()


def test_a_class_may_be_missing_from_the_data(bundle_folder: Path) -> None:
    found = evaluate(bundle_folder, _data(classes=("class 2", "class 0")))
    assert found.classes == CLASSES
    assert [c.support for c in found.per_class] == [15, 0, 15]
    assert found.per_class[1].recall is None


def test_classes_the_model_does_not_know_are_named(bundle_folder: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 3 classes that tiny-run does not know: 'clas 1', 'zebra'") as caught:
        evaluate(bundle_folder, _data(classes=("class 0", "clas 1", "zebra")))
    assert caught.value.hint is not None
    assert "Did you mean 'class 1'" in caught.value.hint and "class 0, class 1, class 2" in caught.value.hint


def test_the_runs_own_data_and_splits_come_back(digits_run: Path) -> None:
    expected = load_dataset("digits", Data(size=8, val_fraction=0.3, test_fraction=0.15, seed=4))
    for split in ("test", "val", "train"):
        found = evaluate_fully(digits_run, split=split)
        assert np.array_equal(found.split.images, expected[split].images)
        assert np.array_equal(found.split.labels, expected[split].labels)
    notes = {split: " ".join(evaluate(digits_run, split=split).notes) for split in ("test", "val", "train")}
    assert notes["test"] == ""
    assert "temperature" in notes["val"] and "trained on these images" in notes["train"]


def test_all_measures_every_picture(digits_run: Path) -> None:
    found = evaluate(digits_run, split="all")
    assert found.n == 1797 and found.split == "all"
    assert any("trained on these images" in note for note in found.notes)


def test_other_pixels_under_the_same_name_are_told(digits_run: Path, bundle_content: Callable[..., Any]) -> None:
    bundle = store.open(digits_run)
    facts = {**bundle.manifest.provenance["dataset"], "fingerprint": "0" * 64}
    provenance = {"recipe": bundle.manifest.provenance["recipe"], "dataset": facts}
    content = bundle_content(10, provenance=provenance)
    store.write(digits_run / "model", dataclasses.replace(content, classes=bundle.manifest.classes))
    assert any("is not the data that the model was trained with" in note for note in evaluate(digits_run).notes)
    assert not any("trained with" in note for note in evaluate(digits_run, "digits").notes)


def test_mirroring_digits_is_told(digits_run: Path) -> None:
    assert any("mirrors the pictures" in note for note in evaluate(digits_run, tta="flip").notes)
    assert not any("mirrors" in note for note in evaluate(digits_run).notes)


def test_a_folder_of_class_folders(bundle_folder: Path, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "new", ("class 2", "class 0"), each=10)
    every = evaluate(bundle_folder, folder, split="all")
    assert every.n == 20 and every.notes == ()
    part = evaluate(bundle_folder, folder)
    assert 0 < part.n < 20
    assert any(f"{part.n} of 20 images were measured" in note and "--split all" in note for note in part.notes)


def test_all_joins_the_splits_a_folder_has(bundle_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        _folder(tmp_path / "new" / split, ("class 0", "class 1"), each=3)
    found = evaluate_fully(bundle_folder, tmp_path / "new", split="all")
    assert found.evaluation.n == 12
    assert [int(c) for c in np.bincount(found.split.labels)] == [6, 6]
    assert len(set(found.split.origins)) == 12


def test_an_empty_split_is_an_error_that_names_the_others(bundle_folder: Path) -> None:
    with pytest.raises(DataError, match="no images in the split val") as caught:
        evaluate(bundle_folder, _data(), split="val")
    assert caught.value.hint is not None and "test (30)" in caught.value.hint


def test_a_model_alone_needs_data(bundle_folder: Path) -> None:
    alone = bundle_folder / "model.onnx"
    with pytest.raises(CallError, match="which data") as caught:
        evaluate(alone)
    assert caught.value.hint is not None and "--data" in caught.value.hint
    assert evaluate(alone, _data()).to_dict() == evaluate(bundle_folder, _data()).to_dict()


def test_data_that_is_gone_is_told_with_a_way_on(bundle_content: Callable[..., Any], tmp_path: Path) -> None:
    provenance = {"dataset": {"source": str(tmp_path / "gone"), "fingerprint": "x"}}
    store.write(tmp_path / "run" / "model", bundle_content(provenance=provenance))
    with pytest.raises(CallError, match=r"trained with can't be loaded: .*gone does not exist") as caught:
        evaluate(tmp_path / "run")
    assert caught.value.hint is not None and "--data" in caught.value.hint


@pytest.mark.parametrize(
    "provenance",
    [
        {"dataset": "digits"},
        {"dataset": {"source": 7}},
        {"dataset": {"source": "digits"}, "recipe": {"data": {"val_fraction": "much"}}},
        {"dataset": {"source": "digits"}, "recipe": []},
    ],
)
def test_strange_provenance_is_an_error_not_a_traceback(
    bundle_content: Callable[..., Any], tmp_path: Path, provenance: dict[str, Any]
) -> None:
    store.write(tmp_path / "run" / "model", bundle_content(provenance=provenance))
    with pytest.raises(TenfoldError):
        evaluate(tmp_path / "run")


def test_wrong_calls(bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'tset'") as caught:
        evaluate(bundle_folder, _data(), split="tset")
    assert caught.value.nearest == "test"
    with pytest.raises(UnknownNameError, match="'flop'"):
        evaluate(bundle_folder, _data(), tta="flop")
    with pytest.raises(DataError, match="16×16 pixels; the model takes 8×8"):
        evaluate(bundle_folder, _data(size=16))
    with pytest.raises((CallError, BundleError)):
        evaluate(tmp_path / "nothing", _data())


def test_a_model_that_is_not_square_takes_a_dataset_alone(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold import predict

    model = predict.load(bundle_folder)
    model.geometry = Geometry(8, 12)
    monkeypatch.setattr(predict, "load", lambda run: model)
    with pytest.raises(UnsupportedError, match="12×8"):
        evaluate(bundle_folder, "digits")


def test_progress_ends_at_the_last_image(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.evaluation.stored.BATCH", 13)
    seen: list[Progress] = []
    evaluate(bundle_folder, _data(), report=seen.append)
    assert [p.done for p in seen] == [0, 13, 26, 30]
    assert {(p.stage, p.total, p.unit) for p in seen} == {("evaluate", 30, "images")}


def test_batches_do_not_change_the_answer(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_fully(bundle_folder, _data()).probabilities
    monkeypatch.setattr("tenfold.evaluation.stored.BATCH", 7)
    assert np.allclose(evaluate_fully(bundle_folder, _data()).probabilities, whole, atol=1e-6)


def test_the_public_name_is_this_one() -> None:
    assert tenfold.evaluate is evaluate
    assert tenfold.Evaluation.__module__ == "tenfold.evaluation.metrics"


def test_history_reads_epochs_and_stands_damage(tmp_path: Path) -> None:
    assert history(tmp_path) == []
    lines = ['{"event": "step", "step": 1}', '{"event": "epoch", "epoch": 1}', "[1]", '{"event": "epo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert history(tmp_path) == [{"event": "epoch", "epoch": 1}]


def test_recipe_text_is_the_bundles(digits_run: Path) -> None:
    text = recipe_text(tenfold.load(digits_run))
    assert "val_fraction: 0.3" in text and text.startswith("name:")
    assert recipe_text(tenfold.load(digits_run / "model" / "model.onnx")) == ""
