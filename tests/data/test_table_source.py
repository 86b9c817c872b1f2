"""Tables of pictures."""

import os

import pytest
from PIL import Image

from tenfold.data import load_dataset
from tenfold.errors import DataError
from tenfold.recipe import Data

NO_SPLITS = Data(val_fraction=0, test_fraction=0)


@pytest.fixture
def shelf(tmp_path):
    """Six pictures 0.png … 5.png in sub/, and a way to write a table beside it."""
    (tmp_path / "shelf" / "sub").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (16, 16), (i, i, i)).save(tmp_path / "shelf" / "sub" / f"{i}.png")
    return tmp_path / "shelf"


def table(folder, *lines, name="list.csv", encoding="utf-8"):
    (folder / name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return folder / name


def rows(label, *numbers, split=None):
    return [f"sub/{i}.png,{label}" + (f",{split}" if split else "") for i in numbers]


def test_paths_and_labels(shelf):
    path = table(shelf, "path,label", *rows("dog", 0, 1, 2), *rows("cat", 3, 4, 5))
    dataset = load_dataset(path, NO_SPLITS)
    assert dataset.name == "list" and dataset.source == str(path)
    assert dataset.classes == ("cat", "dog")
    assert list(dataset["train"].origins) == [f"sub/{i}.png" for i in range(6)]
    assert dataset["train"].labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert dataset["train"].images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert load_dataset(path).split_rule["rule"] == "stratified-hash"


def test_split_column_other_columns_quotes_and_marks(shelf):
    path = table(
        shelf,
        "Note;Label;SPLIT;Path",
        'a;"cat; small";train;sub/0.png',
        "b;dog;Train;./sub/1.png",
        "",
        "c;dog;validation;sub//2.png",
        "d;dog;test;sub/../sub/3.png",
        encoding="utf-8-sig",
    )
    dataset = load_dataset(path)
    assert dataset.classes == ("cat; small", "dog")
    assert [list(dataset[s].origins) for s in ("train", "val", "test")] == [
        ["sub/0.png", "sub/1.png"],
        ["sub/2.png"],
        ["sub/3.png"],
    ]
    assert dataset.split_rule is None


def test_tabs_and_absolute_paths_inside(shelf):
    path = table(shelf, "path\tlabel", f"{shelf}/sub/0.png\ta", "sub/1.png\tb", name="list.tsv")
    assert list(load_dataset(path, NO_SPLITS)["train"].origins) == ["sub/0.png", "sub/1.png"]


@pytest.mark.parametrize("bad", ["../secret.png", "sub/../../secret.png", "/etc/passwd", "..", "sub/\0.png"])
def test_a_path_out_of_the_folder_is_refused_by_its_line(shelf, bad):
    Image.new("RGB", (16, 16)).save(shelf.parent / "secret.png")
    path = table(shelf, "path,label", *rows("a", 0), f"{bad},b")
    with pytest.raises(DataError, match=r"line 3: .* leads out of the table's folder"):
        load_dataset(path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_out_of_the_folder_are_listed_not_followed(shelf):
    Image.new("RGB", (16, 16)).save(shelf.parent / "secret.png")
    (shelf / "link.png").symlink_to(shelf.parent / "secret.png")
    (shelf / "up").symlink_to(shelf.parent)
    (shelf / "fine.png").symlink_to(shelf / "sub" / "5.png")
    path = table(shelf, "path,label", *rows("a", 0, 1), *rows("b", 2, 3), "link.png,a", "up/secret.png,b", "fine.png,b")
    dataset = load_dataset(path, NO_SPLITS)
    assert sorted(s.path for s in dataset.skipped) == ["link.png", "up/secret.png"]
    assert "fine.png" in dataset["train"].origins


def test_missing_files_are_listed(shelf):
    path = table(shelf, "path,label", *rows("a", 0, 1, 2), *rows("b", 3, 4), "sub/none.png,b")
    dataset = load_dataset(path, NO_SPLITS)
    assert [(s.path, s.reason) for s in dataset.skipped] == [("sub/none.png", "there is no such file.")]


def test_a_repeated_row_is_left_out_a_contradiction_refused(shelf):
    path = table(shelf, "path,label", *rows("a", 0, 1), *rows("b", 2), "sub/./0.png,a")
    dataset = load_dataset(path, NO_SPLITS)
    assert len(dataset["train"]) == 3
    assert any("1 rows repeat" in note for note in dataset.notes)
    path = table(shelf, "path,label", *rows("a", 0, 1), "sub/0.png,b")
    with pytest.raises(DataError, match=r"line 4: 'sub/0.png' already stands in line 2"):
        load_dataset(path)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["file,class", "x,y"], "no columns path and label"),
        (["path,label,path", "x,y,z"], "the column path stands there twice"),
        (["path,label"], "names no pictures"),
        (["path,label", "sub/0.png"], "line 2: has 1 columns"),
        (["path,label", "sub/0.png,"], "line 2: the path or the label is empty"),
        (["path,label,split", "sub/0.png,a,holdout"], "line 2: 'holdout' is not a split"),
        (["path,label", *rows("a", 0, 1)], r"1 class \(a\)"),
        (["path,label,split", *rows("a", 0, split="train"), *rows("b", 1, split="test")], "without a row in train: b"),
    ],
)
def test_tables_that_do_not_fit_are_refused(shelf, lines, reason):
    with pytest.raises(DataError, match=reason):
        load_dataset(table(shelf, *lines))


def test_bytes_that_are_no_text_are_refused(shelf):
    (shelf / "list.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DataError, match="not text in UTF-8"):
        load_dataset(shelf / "list.csv")
    (shelf / "list.csv").write_bytes(b"path,label\n" + b'"' + b"x" * 200_000 + b'",x\n')
    with pytest.raises(DataError, match="not a table"):
        load_dataset(shelf / "list.csv")
