"""Folders of pictures: layouts, what is passed over, what is refused."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data import load_dataset
from tenfold.errors import CallError, DataError, UnknownNameError
from tenfold.recipe import Data

NO_SPLITS = Data(val_fraction=0, test_fraction=0)


def picture(path: Path, value: int = 0, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.fixture
def pets(tmp_path):
    """20 cats and 10 dogs, each picture of its own gray."""
    for i in range(20):
        picture(tmp_path / "pets" / "cat" / f"{i:02}.png", i)
    for i in range(10):
        picture(tmp_path / "pets" / "dog" / f"{i:02}.png", 100 + i)
    return tmp_path / "pets"


def origins(dataset):
    return {name: list(split.origins) for name, split in dataset.splits.items()}


def said(dataset, text):
    return any(text in note for note in dataset.notes)


def test_class_folders_alone_are_split_by_the_rule(pets):
    dataset = load_dataset(pets)
    assert dataset.name == "pets" and dataset.source == str(pets)
    assert dataset.classes == ("cat", "dog") and dataset.mirror
    assert dataset.split_rule == {"rule": "stratified-hash", "seed": 0, "val_fraction": 0.1, "test_fraction": 0.2}
    assert [dataset.counts(s).tolist() for s in ("train", "val", "test")] == [[14, 7], [2, 1], [4, 2]]
    for split in dataset.splits.values():
        for image, label, origin in zip(split.images, split.labels, split.origins, strict=True):
            folder, file = origin.split("/")
            assert folder == dataset.classes[label]
            assert (image == int(file[:2]) + 100 * label).all()
        assert list(split.origins) == sorted(split.origins)
        assert not split.images.flags.writeable


def test_a_picture_keeps_its_split_when_others_come(pets):
    before = origins(load_dataset(pets))
    for i in range(10):
        picture(pets / "bird" / f"{i}.png", 200 + i)
    after = origins(load_dataset(pets))
    for split in before:
        assert set(before[split]) <= set(after[split])


def test_split_folders_under_their_usual_names(tmp_path):
    for split, n in (("Train", 6), ("valid", 2), ("test", 3)):
        for name in ("a", "b"):
            for i in range(n):
                picture(tmp_path / split / name / f"{i}.png", i)
    dataset = load_dataset(tmp_path)
    assert [len(dataset[s]) for s in ("train", "val", "test")] == [12, 4, 6]
    assert dataset.split_rule is None
    assert dataset["val"].origins[0] == "valid/a/0.png"


def test_missing_splits_are_made_from_train(tmp_path):
    for name in ("cat", "dog"):
        for i in range(10):
            picture(tmp_path / "train" / name / f"{i}.png", i)
        picture(tmp_path / "test" / name / "x.png")
    dataset = load_dataset(tmp_path)
    assert [len(dataset[s]) for s in ("train", "val", "test")] == [18, 2, 2]
    assert dataset.split_rule == {"rule": "stratified-hash", "seed": 0, "val_fraction": 0.1}


def test_a_folder_with_test_alone_is_for_evaluating(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / "test" / name / "x.png")
    dataset = load_dataset(tmp_path)
    assert [len(dataset[s]) for s in ("train", "val", "test")] == [0, 0, 2]
    assert dataset.split_rule is None


def test_class_folders_that_differ_are_named(tmp_path):
    for folder in ("train/cat", "train/dog", "val/cat", "val/wolf"):
        picture(tmp_path / folder / "x.png")
    with pytest.raises(DataError, match=r"train lacks wolf; val lacks dog"):
        load_dataset(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path):
    for folder in ("train", "val", "validation"):
        picture(tmp_path / folder / "cat" / "x.png")
    with pytest.raises(DataError, match="two folders for the split val: val and validation"):
        load_dataset(tmp_path)


def test_a_class_that_train_lacks_pictures_of_is_refused(tmp_path):
    picture(tmp_path / "train" / "cat" / "x.png")
    picture(tmp_path / "train" / "dog" / "x.png")
    (tmp_path / "train" / "owl").mkdir()
    picture(tmp_path / "test" / "cat" / "x.png")
    (tmp_path / "test" / "dog").mkdir()
    picture(tmp_path / "test" / "owl" / "x.png")
    with pytest.raises(DataError, match="owl has no picture in train"):
        load_dataset(tmp_path)
    (tmp_path / "test" / "owl" / "x.png").unlink()
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert said(dataset, "owl is empty in every split")
    assert said(dataset, "dog has no picture in test")


def test_split_folders_with_loose_pictures_are_refused(tmp_path):
    picture(tmp_path / "train" / "cat" / "x.png")
    picture(tmp_path / "train" / "dog" / "x.png")
    picture(tmp_path / "test" / "x.png")
    with pytest.raises(DataError, match="1 pictures but no class folders"):
        load_dataset(tmp_path)


def test_what_lies_about_is_counted_not_read(pets):
    picture(pets / "cat" / ".hidden.png")
    picture(pets / ".thumbs" / "x.png")
    picture(pets / "__MACOSX" / "x.png")
    picture(pets / "loose.png")
    (pets / "cat" / "notes.txt").write_text("hello")
    (pets / "cat" / "README").write_text("hello")
    (pets / "empty").mkdir()
    picture(pets / "dog" / "more" / "deep" / "P.PNG", 99)
    dataset = load_dataset(pets, NO_SPLITS)
    assert len(dataset["train"]) == 31
    assert "dog/more/deep/P.PNG" in dataset["train"].origins
    assert said(dataset, "1 pictures lie outside the class folders")
    assert said(dataset, "2 files are not pictures by their suffix")
    assert said(dataset, "No picture in empty")
    assert not dataset.skipped


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_only_inside(pets, tmp_path):
    outside = picture(tmp_path / "outside" / "x.png", 55)
    (pets / "cat" / "in.png").symlink_to(pets / "dog" / "00.png")
    (pets / "cat" / "out.png").symlink_to(outside)
    (pets / "cat" / "nowhere.png").symlink_to(tmp_path / "none.png")
    (pets / "cat" / "folder").symlink_to(outside.parent)
    (pets / "cat" / "loop").symlink_to(pets)
    (pets / "wolf").symlink_to(outside.parent)
    dataset = load_dataset(pets, NO_SPLITS)
    assert len(dataset["train"]) == 31
    reasons = {s.path: s.reason for s in dataset.skipped}
    assert reasons == {
        "cat/out.png": "a link that leads out of the folder; not followed.",
        "cat/nowhere.png": "a link that leads nowhere.",
        "cat/folder": "a link to a folder; not followed.",
        "cat/loop": "a link to a folder; not followed.",
        "wolf": "a link to a folder; not followed.",
    }
    assert said(dataset, "5 files could not be used")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8(pets):
    folder = os.fsencode(pets) + b"/\xff\xfe"
    os.mkdir(folder)  # noqa: PTH102
    Image.new("RGB", (16, 16)).save(open(folder + b"/\xe9.png", "wb"), "PNG")  # noqa: PTH123, SIM115
    dataset = load_dataset(pets, NO_SPLITS)
    assert dataset.classes == ("\\xff\\xfe", "cat", "dog")
    assert "\\xff\\xfe/\\xe9.png" in dataset["train"].origins
    dataset.classes[0].encode("utf-8")
    again = load_dataset(pets, NO_SPLITS)
    assert list(again["train"].origins) == list(dataset["train"].origins)


def test_unreadable_pictures_are_listed_never_replaced(pets):
    (pets / "cat" / "00.png").write_bytes(b"")
    (pets / "dog" / "05.png").write_text("not a picture")
    data = (pets / "cat" / "19.png").read_bytes()
    (pets / "cat" / "19.png").write_bytes(data[: len(data) // 2])
    for _ in ("decoded", "from the cache"):
        dataset = load_dataset(pets, NO_SPLITS)
        reasons = {s.path: s.reason for s in dataset.skipped}
        assert set(reasons) == {"cat/00.png", "dog/05.png", "cat/19.png"}
        assert reasons["cat/00.png"] == "the file is empty."
        assert len(dataset["train"]) == 27
        for image, label, origin in zip(*vars(dataset["train"]).values(), strict=True):
            assert (image == int(origin.split("/")[1][:2]) + 100 * label).all()
        assert said(dataset, "3 files could not be used")


def test_more_than_half_unreadable_is_an_error_and_leaves_no_cache(pets, monkeypatch, tmp_path):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    for i in range(16):
        (pets / "cat" / f"{i:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match="16 of 30 pictures can't be read, more than half"):
        load_dataset(pets)
    assert [p.suffix for p in (tmp_path / "cache" / "pixels").iterdir()] == [".lock"]


def test_a_class_of_which_nothing_can_be_read_is_an_error(pets):
    for i in range(10):
        (pets / "dog" / f"{i:02}.png").write_bytes(b"x")
    with pytest.raises(DataError, match="left to train on of dog"):
        load_dataset(pets)


def test_one_class_or_none_is_an_error_that_helps(tmp_path):
    with pytest.raises(DataError, match="holds no pictures"):
        load_dataset(tmp_path)
    picture(tmp_path / "all" / "x.png")
    with pytest.raises(DataError, match=r"1 class \(all\)"):
        load_dataset(tmp_path)


def test_a_folder_that_wraps_the_right_one_is_told_apart(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / "zip" / "pets" / name / "x.png")
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / "zip")
    assert f"Did you mean {tmp_path / 'zip' / 'pets'}" in caught.value.hint


def test_numbered_classes_stand_in_the_order_of_their_numbers(tmp_path):
    for i in range(11):
        picture(tmp_path / str(i) / "x.png", i)
    dataset = load_dataset(tmp_path, NO_SPLITS)
    assert dataset.classes == tuple(str(i) for i in range(11))
    assert dataset.mirror


def test_letters_are_not_mirrored(tmp_path):
    for name in "bdpq":
        picture(tmp_path / name / "x.png")
    dataset = load_dataset(tmp_path, NO_SPLITS)
    assert not dataset.mirror and said(dataset, "not mirrored")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)], 28),
        ([(64, 64)], 64),
        ([(8, 8)], 16),
        ([(65, 65)], 64),
        ([(30, 20)], 32),
        ([(40, 40), (50, 30)], 32),
        ([(500, 375), (48, 60)], 64),
    ],
)
def test_auto_size(sizes, expected, tmp_path):
    for name in ("cat", "dog"):
        for i in range(4):
            picture(tmp_path / name / f"{i}.png", i, sizes[i % len(sizes)])
    dataset = load_dataset(tmp_path, NO_SPLITS)
    assert dataset["train"].images.shape[1:3] == (expected, expected)
    assert said(dataset, f"Size {expected}×{expected}")


def test_a_changed_aspect_is_counted_and_said(pets):
    picture(pets / "cat" / "wide.png", 7, (40, 20))
    squashed = load_dataset(pets, Data(size=16))
    assert said(squashed, "1 of 31 pictures are not of the shape 16×16 and were squashed")
    padded = load_dataset(pets, Data(size=16, resize="pad", background=(255, 0, 0)))
    assert said(padded, "padded")
    assert padded.geometry.resize == "pad"
    all_of = np.concatenate([s.images for s in padded.splits.values()])
    assert (all_of == (255, 0, 0)).all(-1).any()


def test_what_does_not_exist_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=r"cifra10.*Did you mean cifar10"):
        load_dataset("cifra10")
    with pytest.raises(CallError, match=r"photos/mine does not exist"):
        load_dataset("photos/mine")
    with pytest.raises(CallError, match=r"does not exist"):
        load_dataset(tmp_path / "none.csv")
    with pytest.raises(CallError, match=r"tenfold predict"):
        load_dataset(picture(tmp_path / "x.png"))


def test_a_dataset_is_given_back_as_it_is(pets):
    dataset = load_dataset(pets)
    assert load_dataset(dataset) is dataset
