"""CIFAR's archives in every form, small ones of the same layouts, and the real one where it is at hand."""

import dataclasses
import io
import os
import pickle
import struct
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from tenfold.data import cifar, load_dataset
from tenfold.data.cifar_files import load_pickle
from tenfold.errors import DataError

ROWS = 20
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6 * ROWS, 32, 32, 3), np.uint8)
LABELS = np.arange(6 * ROWS) % 10
NAMES = [f"class{i}" for i in range(10)]


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def small(name):
    """A variant of ROWS images a file (five times as many where train is one file)."""
    whole = cifar.VARIANTS[name]
    layouts = tuple(dataclasses.replace(x, rows=(ROWS if len(x.train) == 5 else 5 * ROWS, ROWS)) for x in whole.layouts)
    return dataclasses.replace(whole, layouts=layouts)


def python2_pickle(data, labels, key):
    """The bytes that Python 2 wrote: strings as BINSTRING, the array under numpy.core.multiarray."""

    def string(text):
        return b"T" + struct.pack("<I", len(text)) + text

    numbers = b"".join(b"K" + bytes([v]) for v in labels)
    shape = b"M" + struct.pack("<H", len(labels)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01" + shape
        + b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89"
        + string(data.tobytes()) + b"tb"
    )  # fmt: skip
    return b"\x80\x02}(" + string(b"data") + array + string(key) + b"](" + numbers + b"eu."


def contents(layout):
    """File name to bytes, of the archive of ``layout`` that holds PIXELS and LABELS."""
    files = {}
    start = 0
    for name in layout.files:
        rows = slice(start, start + layout.rows_of(name))
        start = rows.stop
        labels = LABELS[rows].astype(np.uint8)
        if layout.pickled:
            files[name] = python2_pickle(planes(PIXELS[rows]), labels, layout.key.encode())
        else:
            before = [labels[:, None]] if layout.labels == 1 else [labels[:, None] * 0 + 99, labels[:, None]]
            files[name] = np.concatenate([*before, planes(PIXELS[rows])], axis=1).tobytes()
    names = NAMES + [f"class{i}" for i in range(10, 100)] if "100" in layout.archive else NAMES
    files[layout.meta] = (
        pickle.dumps({layout.names_key.encode(): [n.encode() for n in names]}, 2)
        if layout.pickled
        else ("\n".join(names) + "\n\n").encode()
    )
    return files


def unpacked(folder, layout):
    (folder / layout.folder).mkdir(parents=True)
    for name, content in contents(layout).items():
        (folder / layout.folder / name).write_bytes(content)
    return folder / layout.folder


def packed(folder, layout, extra=()):
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / layout.archive, "w:gz") as tar:
        for name, content in [*extra, *((f"{layout.folder}/{n}", c) for n, c in contents(layout).items())]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder / layout.archive


def no_val(labels):
    return np.zeros(len(labels), bool)


FORMS = [(name, layout) for name in cifar.VARIANTS for layout in small(name).layouts]


@pytest.mark.parametrize("form", ["unpacked", "packed"])
@pytest.mark.parametrize(("name", "layout"), FORMS, ids=[layout.folder for _, layout in FORMS])
def test_every_form_gives_the_same_pictures(name, layout, form, tmp_path):
    (unpacked if form == "unpacked" else packed)(tmp_path, layout)
    found = cifar.find(small(name), [tmp_path / "empty", tmp_path])
    assert found is not None and found.packed == (form == "packed") and found.layout == layout
    seen = []
    held_out = np.arange(5 * ROWS) % 7 == 3
    result = cifar.load(small(name), found, lambda labels: held_out, seen.append)
    order = np.concatenate([np.flatnonzero(~held_out), np.flatnonzero(held_out), np.arange(5 * ROWS, 6 * ROWS)])
    np.testing.assert_array_equal(result.images, PIXELS[order])
    np.testing.assert_array_equal(result.labels, LABELS[order])
    assert result.sizes == ((~held_out).sum(), held_out.sum(), ROWS)
    np.testing.assert_array_equal(result.indices[-ROWS:], np.arange(ROWS))
    np.testing.assert_array_equal(result.indices[:-ROWS], order[:-ROWS])
    assert result.classes[:10] == tuple(NAMES)
    assert seen[-1].done == seen[-1].total == 6 * ROWS


def test_the_folder_itself_is_found_and_recognized(tmp_path):
    layout = small("cifar10").layouts[0]
    folder = unpacked(tmp_path, layout)
    assert cifar.find(small("cifar10"), [folder]).path == folder
    assert cifar.recognize(folder)[0].name == "cifar10"
    assert cifar.recognize(tmp_path) is None
    assert cifar.find(small("cifar100"), [folder, tmp_path]) is None


def loaded(name, path, layout):
    return cifar.load(small(name), cifar.Found(path, layout), no_val)


def test_a_file_of_another_size_is_refused(tmp_path):
    layout = small("cifar10").layouts[0]
    folder = unpacked(tmp_path, layout)
    with (folder / "data_batch_3.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"data_batch_3.bin has 61,461 bytes, not 61,460"):
        loaded("cifar10", folder, layout)


def test_labels_out_of_range_are_refused(tmp_path):
    layout = small("cifar10").layouts[0]
    folder = unpacked(tmp_path, layout)
    content = bytearray((folder / "test_batch.bin").read_bytes())
    content[3073] = 10
    (folder / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch\.bin has labels outside 0 to 9"):
        loaded("cifar10", folder, layout)


def test_too_few_names_are_refused(tmp_path):
    layout = small("cifar10").layouts[0]
    folder = unpacked(tmp_path, layout)
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="names 2 classes, not 10"):
        loaded("cifar10", folder, layout)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_refused_and_does_nothing(protocol, tmp_path):
    layout = small("cifar10").layouts[1]
    folder = unpacked(tmp_path, layout)
    target = tmp_path / "made"
    for content in ({b"data": Malicious(target)}, Malicious(target)):
        (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match=r"data_batch_2 names .*mkdir.*refused"):
            loaded("cifar10", folder, layout)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"c__builtin__\neval\n(U\x011tR.",
        b"cnumpy\nload\n.",
        b"c_codecs\nencode\n(X\x01\0\0\0aX\x06\0\0\0bz2_co\x86tR.",
        b"cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\nK\0\x85U\x01b\x87R.",
        b"U\x01xQ.",
        b"\x80\x02}(U\x04data",
        b"",
        b"\xff" * 50,
        b"(" * 1000 + b".",
    ],
)
def test_other_pickles_are_refused(content):
    with pytest.raises(DataError, match=r"batch .*(refused|can't be unpickled)"):
        load_pickle(np.frombuffer(content, np.uint8), "batch")


def test_pickles_written_by_python_3_are_read():
    data = planes(PIXELS[:ROWS])
    for module in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        content = pickle.dumps({b"data": data}, 2)
        content = content.replace(b"numpy._core.multiarray", module).replace(b"numpy.core.multiarray", module)
        array = load_pickle(np.frombuffer(content, np.uint8), "batch")[b"data"]
        assert array.shape == data.shape
        assert array.content == data.tobytes()


def test_arrays_of_objects_are_refused():
    content = pickle.dumps({b"data": np.array([None, 1], object)}, 2)
    with pytest.raises(DataError, match="other than bytes"):
        load_pickle(np.frombuffer(content, np.uint8), "batch")


def test_a_pickle_with_too_few_pixels_is_refused(tmp_path):
    layout = small("cifar10").layouts[1]
    folder = unpacked(tmp_path, layout)
    (folder / "data_batch_1").write_bytes(python2_pickle(planes(PIXELS[:3]), LABELS[:3].astype(np.uint8), b"labels"))
    with pytest.raises(DataError, match="has no 20×3072 pixels"):
        loaded("cifar10", folder, layout)


def test_a_cut_archive_is_refused(tmp_path):
    layout = small("cifar10").layouts[0]
    path = packed(tmp_path, layout)
    data = path.read_bytes()
    for cut in (0, 5, len(data) // 2):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"damaged or cut short|lacks"):
            loaded("cifar10", path, layout)
    path.write_bytes(data[:1000] + bytes([data[1000] ^ 255]) + data[1001:])
    with pytest.raises(DataError, match="damaged"):
        loaded("cifar10", path, layout)


def test_other_members_are_neither_written_nor_trusted(tmp_path):
    layout = small("cifar10").layouts[0]
    name = f"{layout.folder}/data_batch_1.bin"
    path = packed(tmp_path / "a", layout, extra=[("../evil", b"x"), (f"../{name}", b"y"), ("/tmp/z", b"z")])
    np.testing.assert_array_equal(loaded("cifar10", path, layout).images, PIXELS)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", layout.archive]
    many = packed(tmp_path / "b", layout, extra=[(f"x{i}", b"") for i in range(200)])
    with pytest.raises(DataError, match="not the official archive"):
        loaded("cifar10", many, layout)


def test_links_in_an_archive_are_not_followed(tmp_path):
    layout = small("cifar10").layouts[0]
    with tarfile.open(tmp_path / layout.archive, "w:gz") as tar:
        for file in (layout.meta, *layout.files):
            member = tarfile.TarInfo(f"{layout.folder}/{file}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    with pytest.raises(DataError, match="lacks"):
        loaded("cifar10", tmp_path / layout.archive, layout)


REAL = [Path(p) for p in os.environ.get("TENFOLD_DATA", "").split(os.pathsep) if p]


@pytest.fixture(scope="module")
def real():
    if cifar.find(cifar.VARIANTS["cifar10"], REAL) is None:
        pytest.skip("no CIFAR-10 under TENFOLD_DATA")
    started = time.perf_counter()
    dataset = load_dataset("cifar10")
    return dataset, time.perf_counter() - started


def test_real_cifar10(real):
    dataset, seconds = real
    assert [len(dataset[s]) for s in ("train", "val", "test")] == [45_000, 5_000, 10_000]
    assert (dataset.counts("val") == 500).all() and (dataset.counts("test") == 1000).all()
    assert dataset.classes[3] == "cat" and dataset.mirror
    assert dataset["test"].origins[17] == "test/17"
    assert dataset.split_rule == {"rule": "stratified-hash", "seed": 0, "val_fraction": 0.1}
    assert not dataset["train"].images.flags.writeable
    # Known means of the 50,000 training images, as published everywhere: 0.4914, 0.4822, 0.4465.
    both = [dataset[s].images.mean((0, 1, 2)) * len(dataset[s]) for s in ("train", "val")]
    np.testing.assert_allclose(sum(both) / 50_000 / 255, [0.4914, 0.4822, 0.4465], atol=2e-4)
    assert seconds < 10  # about 0.6 s on two idle cores; this only catches a slow path


def test_real_fingerprint_does_not_depend_on_the_splits(real):
    from tenfold.recipe import Data

    assert load_dataset("cifar10", Data(val_fraction=0)).fingerprint == real[0].fingerprint
