"""benchmarks/data_speed.py: its pictures are what it says, its ways read them all, its table says what was measured."""

import importlib
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    """The module photos and the module data_speed."""
    pytest.importorskip("fcntl")
    sys.path.insert(0, str(FOLDER))
    try:
        found = [importlib.import_module(name) for name in ("photos", "data_speed")]
    finally:
        sys.path.remove(str(FOLDER))
    yield found
    for name in ("photos", "data_speed"):
        del sys.modules[name]


def test_photos_are_the_same_each_time_and_of_a_photos_size(benchmark, tmp_path, monkeypatch):
    photos, _ = benchmark
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    about = photos.make(tmp_path / "a", 20)
    assert photos.make(tmp_path / "b", 20) == about
    files = sorted((tmp_path / "a").rglob("*.jpg"))
    assert len(files) == 20 and len({path.parent for path in files}) == 10
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
        assert Image.open(io.BytesIO(path.read_bytes())).size == (500, 375)
        assert 25_000 < path.stat().st_size < 75_000
    assert about["tiles"] == "gradients"
    files[0].unlink()
    assert photos.make(tmp_path / "a", 20) == about  # it takes its own word for what is there
    assert photos.make(tmp_path / "a", 30)["count"] == 30
    assert len(list((tmp_path / "a").rglob("*.jpg"))) == 30


def test_it_writes_into_no_folder_of_others(benchmark, tmp_path):
    photos, _ = benchmark
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SystemExit, match="other files"):
        photos.make(tmp_path / "mine", 5)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(("way", "images"), [("tenfold", 100), ("reopen", 100), ("pillow", 100), ("plain", 70 * 20)])
def test_a_way_reads_every_picture(benchmark, way, images, tmp_path):
    if way in ("pillow", "plain"):
        pytest.importorskip("torch")
    photos, data_speed = benchmark
    photos.make(tmp_path / "photos", 100)
    one = data_speed.measure(way, tmp_path / "photos")
    assert one["images"] == pytest.approx(images, rel=0.1)  # the training split is about 70 % of all
    assert 0 < one["seconds"] < one["whole_process_seconds"]
    assert 0 < one["cpu_seconds"] < one["whole_process_cpu_seconds"]
    assert one["images_per_cpu_second"] == pytest.approx(one["images"] / one["cpu_seconds"])


def test_ratios_are_medians_of_the_rounds(benchmark):
    _, data_speed = benchmark

    def runs(*rates):
        rest = {"whole_process_seconds": 1.0, "foreign_share": None}
        return [{"images_per_second": 2 * r, "images_per_cpu_second": r, **rest} for r in rates]

    found = data_speed.summary({"pillow": runs(10, 20, 40), "tenfold": runs(30, 50, 200)})
    assert found["tenfold"]["beside_pillow"] == found["tenfold"]["beside_pillow_wall"] == 3
    assert found["tenfold"]["images_per_cpu_second"] == {"median": 50, "min": 30, "max": 200}
    assert found["pillow"]["n"] == 3 and "foreign_share" not in found["pillow"]


def test_the_page_holds_what_the_stored_runs_say(benchmark):
    _, data_speed = benchmark
    stored = FOLDER / "results" / "data_speed.json"
    if not stored.exists():
        pytest.skip("no measurement is stored: python benchmarks/data_speed.py --docs --out " + str(stored))
    result = json.loads(stored.read_text())
    assert result["n"] >= 5 and all(len(runs) == result["n"] for runs in result["runs"].values())
    assert data_speed.summary(result["runs"]) == result["summary"]
    worst = max(one["foreign_share"] for runs in result["runs"].values() for one in runs)
    assert worst <= data_speed.MOST_FOREIGN
    page = data_speed.PAGE.read_text(encoding="utf-8")
    assert data_speed.table(result).strip() in page
