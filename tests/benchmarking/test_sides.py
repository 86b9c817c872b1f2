from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.benchmarking import best, plot, sides
from tenfold.benchmarking.records import Benchmark, Trial
from tenfold.errors import CallError


@pytest.fixture
def files(measured: Callable[..., Trial], benchmark_of: Any, tmp_path: Path) -> list[Path]:
    """A laptop's and a server's benchmark; the server also has a card."""
    made = {
        "laptop": benchmark_of(measured(), measured("torch", speed=500)),
        "server": benchmark_of(measured(speed=2500), measured("torch", speed=9000, device="cuda")),
    }
    for name, one in made.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "bench.json").write_text(one.to_json())
    return [tmp_path / name for name in made]


def write(path: Path, made: Benchmark) -> Path:
    path.write_text(made.to_json())
    return path


def test_machines_are_lined_up(files: list[Path]) -> None:
    found = sides.compare(files)
    assert [(x.configuration, x.batch_size, [r is not None for r in x.rows]) for x in found.lines] == [
        ("onnxruntime cpu fp32", 1, [True, True]),
        ("onnxruntime cpu fp32", 64, [True, True]),
        ("torch cpu fp32", 1, [True, False]),
        ("torch cpu fp32", 64, [True, False]),
        ("torch cuda fp32", 1, [False, True]),
        ("torch cuda fp32", 64, [False, True]),
    ]
    told = found.to_dict()
    assert told["lines"][0]["medians"]["B"]["images_per_second"] == 2500
    assert set(told["machines"]) == {"A", "B"} and told["machines"]["B"]["machine"].startswith("A card; ")


def test_one_file_other_models_and_other_kinds_are_refused(
    files: list[Path], measured: Callable[..., Trial], benchmark_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(CallError, match="nothing beside it"):
        sides.compare(files[:1])
    other = write(tmp_path / "other.json", benchmark_of(measured(), digest="1" * 64))
    with pytest.raises(CallError, match="different models") as caught:
        sides.compare([files[0], other])
    assert "--any-model" in str(caught.value) and "00000000" in str(caught.value) and "11111111" in str(caught.value)
    assert any("different models" in note for note in sides.compare([files[0], other], any_model=True).notes)
    training = write(tmp_path / "t.json", dataclasses.replace(benchmark_of(measured()), kind="training"))
    with pytest.raises(CallError, match="Inference and training"):
        sides.compare([files[0], training])
    empty = write(tmp_path / "e.json", benchmark_of(measured(status="failed", why="x", by_batch={})))
    with pytest.raises(CallError, match="no figures"):
        sides.compare([files[0], empty])


def test_a_run_of_another_name_and_the_same_weights_is_the_same_model(
    files: list[Path], measured: Callable[..., Trial], benchmark_of: Any, tmp_path: Path
) -> None:
    made: Benchmark = benchmark_of(measured())
    text = made.to_json().replace('"a-run"', '"moved"')
    (tmp_path / "moved.json").write_text(text)
    found = sides.compare([files[0], tmp_path / "moved.json"])
    assert {line.subject for line in found.lines} == {"a-run"} and all(found.lines[0].rows)


def test_the_best_of_each_and_its_sentence(measured: Callable[..., Trial], benchmark_of: Any) -> None:
    made: Benchmark = benchmark_of(measured(), measured("torch", speed=500))
    assert best.sentence(made, "a-run") == (
        "Lowest latency of one image: onnxruntime cpu fp32 (p99 1.50 ms, p50 1.00 ms); most images/s: onnxruntime cpu "
        "fp32 (3,000 in batches of 64)."
    )
    stars = best.marked(made)
    assert ("a-run", "onnxruntime cpu fp32", 64, "images_per_second") in stars
    assert not any(configuration.startswith("torch") for _, configuration, _, _ in stars)
    alone: Benchmark = benchmark_of(measured())
    assert best.sentence(alone, "a-run") == "" and best.marked(alone) == set()


def test_what_failed_is_never_the_best(measured: Callable[..., Trial], benchmark_of: Any) -> None:
    broken = [measured("torch", speed=9000), measured("torch", number=1, status="failed", why="x", by_batch={})]
    made: Benchmark = benchmark_of(measured(), measured("jax", speed=10), *broken)
    assert "torch" not in best.sentence(made, "a-run")


@pytest.mark.parametrize(("value", "text"), [(0.671, "0.67"), (17.04, "17.0"), (114.2, "114"), (None, "–")])
def test_milliseconds_have_three_digits(value: float | None, text: str) -> None:
    assert best.milliseconds(value) == text


def test_pictures_are_drawn(files: list[Path]) -> None:
    pytest.importorskip("matplotlib")
    found = sides.compare(files)
    alone, both = plot.draw(found.benchmarks[0]), plot.draw(*found.benchmarks, names=found.names)
    for drawn in (alone, both):
        assert drawn["png"].startswith(b"\x89PNG") and drawn["svg"].lstrip().startswith(b"<?xml")
    text = both["svg"].decode()
    for word in ("torch cuda fp32", "onnxruntime cpu fp32", "A card", "images/s", "first answer"):
        assert word in text
    assert plot.draw(found.benchmarks[0]) == alone
