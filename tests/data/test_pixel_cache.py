"""The cache of decoded pictures: the same pixels, once, whole, by many or by one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold import paths
from tenfold.data import cache, crew, decode, load_dataset, worker
from tenfold.data.dataset import Geometry
from tenfold.errors import DataError
from tenfold.recipe import Data

RNG = np.random.default_rng(0)


@pytest.fixture
def photos(tmp_path):
    """150 PNG files of 20×20 noise in three classes."""
    for i in range(150):
        path = tmp_path / "photos" / "abc"[i % 3].join(("class-", "")) / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return tmp_path / "photos"


def folders():
    return sorted(p for p in (paths.cache_folder() / "pixels").iterdir() if p.is_dir())


def test_first_load_decodes_with_progress_second_reads(photos):
    seen = []
    first = load_dataset(photos, report=seen.append)
    assert [(p.stage, p.unit) for p in seen] == [("decode", "images")] * len(seen)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 150
    assert len(folders()) == 1
    seen.clear()
    second = load_dataset(photos, report=seen.append)
    assert seen == []
    assert second.fingerprint == first.fingerprint
    for name, split in first.splits.items():
        np.testing.assert_array_equal(split.images, second[name].images)
        np.testing.assert_array_equal(split.labels, second[name].labels)
        assert list(split.origins) == list(second[name].origins)
        for image, origin in zip(split.images, split.origins, strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(photos / origin)))


def test_the_cache_holds_the_pixels_that_predict_decodes(tmp_path):
    """Large JPEGs, which libjpeg reduces: from the cache, by a path and by bytes they are the same to the bit."""
    folder = tmp_path / "jpegs"
    coarse = RNG.integers(0, 256, (24, 9, 12, 3), np.uint8)
    for i, cells in enumerate(coarse):
        image = Image.fromarray(cells).resize((500, 375) if i % 2 else (375, 500), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = i % 8 + 1
        path = folder / f"class {i % 2}" / f"{i:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.convert(("RGB", "L", "CMYK")[i % 3]).save(path, quality=90, progressive=i % 4 == 0, exif=exif)
    dataset = load_dataset(folder, Data(size=64))
    counted = 0
    for split in dataset.splits.values():
        for image, origin in zip(split.images, split.origins, strict=True):
            np.testing.assert_array_equal(image, decode.decode(folder / origin, dataset.geometry))
            np.testing.assert_array_equal(image, decode.decode((folder / origin).read_bytes(), dataset.geometry))
            counted += 1
    assert counted == 24


def test_a_cache_of_another_decoder_is_not_used(photos, monkeypatch):
    load_dataset(photos)
    (old,) = folders()
    monkeypatch.setattr(decode, "VERSION", "another")
    seen = []
    load_dataset(photos, report=seen.append)
    assert seen and folders() != [old]


def test_a_changed_file_is_decoded_anew_and_the_old_cache_goes(photos):
    before = load_dataset(photos)
    (old,) = folders()
    Image.fromarray(np.full((20, 20, 3), 7, np.uint8)).save(photos / "class-a" / "000.png")
    after = load_dataset(photos)
    assert after.fingerprint != before.fingerprint
    (new,) = folders()
    assert new != old


def test_other_settings_have_caches_of_their_own(photos):
    for settings in (Data(), Data(size=16), Data(resize="crop"), Data(seed=1)):
        load_dataset(photos, settings)
    assert len(folders()) == 4


def test_fingerprint_is_of_the_pixels_whatever_the_splits_and_names(photos):
    first = load_dataset(photos).fingerprint
    assert load_dataset(photos, Data(seed=5, val_fraction=0.3)).fingerprint == first
    (photos / "class-b" / "001.png").rename(photos / "class-b" / "zzz.png")
    assert load_dataset(photos).fingerprint == first
    (photos / "class-b" / "zzz.png").rename(photos / "class-c" / "zzz.png")
    assert load_dataset(photos).fingerprint != first


def test_large_caches_are_mapped_read_only(photos, monkeypatch):
    small = load_dataset(photos)
    monkeypatch.setattr(cache, "IN_MEMORY", 1000)
    mapped = load_dataset(photos)
    for name, split in mapped.splits.items():
        assert isinstance(split.images, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            split.images[0] = 0
        np.testing.assert_array_equal(split.images, small[name].images)


@pytest.mark.parametrize("damage", ["cut", "no pixels", "no meta", "bad meta", "other meta"])
def test_a_damaged_cache_is_built_anew(photos, damage):
    expected = load_dataset(photos)
    (folder,) = folders()
    if damage == "cut":
        with (folder / "pixels.u8").open("r+b") as file:
            file.truncate(1000)
    elif damage == "no pixels":
        (folder / "pixels.u8").unlink()
    elif damage == "no meta":
        (folder / "meta.json").unlink()
    else:
        (folder / "meta.json").write_text("{" if damage == "bad meta" else json.dumps({"format": 0}))
    seen = []
    again = load_dataset(photos, report=seen.append)
    assert seen
    np.testing.assert_array_equal(again["train"].images, expected["train"].images)


def test_workers_and_this_process_give_the_same(photos, tmp_path):
    files = sorted(str(p) for p in photos.rglob("*.png"))
    Path(files[70]).write_bytes(b"broken")
    results = []
    for workers in (1, 3):
        job = worker.Job(str(tmp_path / "p"), str(tmp_path / "d"), Geometry(10, 12))
        for path in (job.pixels, job.digests):
            Path(path).write_bytes(b"")
        done = []
        reply = crew.decode_all(job, files, 0, done.append, workers)
        assert done[-1] == 150
        results.append((reply, Path(job.pixels).read_bytes(), Path(job.digests).read_bytes()))
    assert results[0] == results[1]
    assert results[0][0].skipped == [(70, "this is text, not a picture.")]
    assert results[0][0].reshaped == 149
    pixels = np.frombuffer(results[0][1], np.uint8).reshape(150, 10, 12, 3)
    np.testing.assert_array_equal(pixels[3], decode.decode(Path(files[3]), Geometry(10, 12)))


def test_a_worker_that_dies_is_an_error_that_names_its_files(photos, tmp_path, monkeypatch):
    files = sorted(str(p) for p in photos.rglob("*.png"))
    job = worker.Job(str(tmp_path / "p"), str(tmp_path / "d"), Geometry(10, 12))
    started = []
    start = crew._start

    def start_and_kill(said):
        process = start(said)
        process.kill()
        started.append(process)
        return process

    monkeypatch.setattr(crew, "_start", start_and_kill)
    with pytest.raises(DataError, match=r"worker process died \(signal 9\)"):
        crew.decode_all(job, files, 0, lambda done: None, 2)
    assert all(process.poll() is not None for process in started)


def test_a_place_that_cannot_be_written_is_said(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be kept in"):
        load_dataset(photos)


def test_too_little_space_is_said_before_anything_is_decoded(photos, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: os.terminal_size((0, 0)) and _Usage)
    seen = []
    with pytest.raises(DataError, match="GB left"):
        load_dataset(photos, report=seen.append)
    assert seen == []


class _Usage:
    free = 1000


LOAD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a script's background inherits it ignored
from tenfold.data import crew, load_dataset
decode_all = crew.decode_all
def slow(*a, **k):
    print("building", flush=True)
    sys.stdin.readline()
    return decode_all(*a, **k)
crew.decode_all = slow
seen = []
print(load_dataset(sys.argv[1], report=seen.append).fingerprint, {p.stage for p in seen}, flush=True)
"""


def begin(photos):
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(photos)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_leaves_no_half_cache(photos, how):
    process = begin(photos)
    assert process.stdout.readline() == "building\n"
    process.send_signal(how)
    process.communicate()
    assert [p for p in folders() if not p.name.startswith(".")] == []
    dataset = load_dataset(photos)
    assert len(dataset["train"]) > 0
    assert len(folders()) == 1  # and what the killed one left is gone


def test_two_that_build_at_once_both_end_well(photos):
    both = [begin(photos), begin(photos)]
    for process in both:  # one builds and needs the word; the other waits, and reads what was built
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    fingerprints = {out.splitlines()[-1].split(" ", 1)[0] for out, _ in outputs}
    assert fingerprints == {load_dataset(photos).fingerprint}
    assert sum("building" in out for out, _ in outputs) == 1
