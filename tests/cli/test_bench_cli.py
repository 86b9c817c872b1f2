from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.benchmarking import work
from tenfold.benchmarking.records import Benchmark, Configuration, Subject, Trial
from tenfold.benchmarking.work import Ended, Started
from tenfold.cli import app, bench_tables


def trial(runtime: str, number: int = 0, speed: float = 1000.0, **changes: Any) -> Trial:
    figures = {"images_per_second": speed, "decoded_images_per_second": speed / 2, "latency_p50_ms": 1.0,
               "latency_p90_ms": 1.1, "latency_p99_ms": 2000 / speed, "memory_bytes": 1e8}  # fmt: skip
    fields: dict[str, Any] = {
        "status": "done",
        "seconds": 3.0,
        "ran_on": "cpu",
        "device_label": "A processor",
        "figures": {"first_prediction_seconds": 0.9, "accuracy": 0.8385, "golden_difference": 4.8e-7},
        "by_batch": {"1": figures, "64": {**figures, "images_per_second": 3 * speed}},
    }
    return Trial(Configuration("a-run", runtime, "cpu", "fp32", "bundle"), number, **{**fields, **changes})


def made(trials: list[Trial], digest: str = "0" * 64) -> Benchmark:
    subject = Subject("a-run", "sprint", digest, "digits", "8×8", 1234)
    return Benchmark.of("inference", [subject], trials, command="tenfold bench a-run", settings={}, notes=["Look out."])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the verb asks of ``bench``, which answers at once with ``trials``."""
    script: dict[str, Any] = {"heard": [], "trials": [trial("onnxruntime"), trial("torch", speed=500)]}

    def answer(*args: Any, listen: Callable[[Any], None], **options: Any) -> Benchmark:
        script["heard"].append((args, options))
        listen(Started(1, 2, script["trials"][0].configuration, 0))
        for number, one in enumerate(script["trials"], 1):
            listen(Ended(number, 2, one, kept=number == 2))
        return made(script["trials"])

    monkeypatch.setattr(work, "bench", answer)
    monkeypatch.setattr("tenfold.cli.render.LOG_WIDTH", 110)
    return script


def test_it_prints_tables_and_which_to_take(calls: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["bench", "a-run"]) == 0
    said = capsys.readouterr()
    assert calls["heard"] == [((["a-run"],), {})]
    for text in ("a-run: sprint, 8×8, 1,234 parameters", "images/s", "3,000*", "83.85 %", "Note: Look out.",
                 "Lowest latency of one image: onnxruntime cpu fp32 (p99 2.00 ms"):  # fmt: skip
        assert text in said.out, said.out
    assert said.err.splitlines()[:2] == [
        "[1/2] onnxruntime cpu fp32: 3,000 images/s at most, in 3.0 s",
        "[2/2] torch cpu fp32: 1,500 images/s at most, in 3.0 s, measured before",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit(
    width: int, calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tenfold.cli import render

    monkeypatch.setenv("COLUMNS", str(width))
    render._console.cache_clear()
    calls["trials"] += [trial("tensorflow", n, 12345.6, ran_on="cuda:0") for n in (0, 1)]
    assert app.run(["bench", "a-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width and "tensorflow cpu fp32" in "\n".join(lines)
    assert "…" not in "\n".join(lines)
    render._console.cache_clear()


def test_options_are_understood(calls: dict[str, Any], tmp_path: Path) -> None:
    call = ["bench", "a", "b", "--runtimes", "torch, jax", "--devices", "cuda,cpu", "--batch-sizes", "1,256"]
    call += ["--threads", "1,2", "--precisions", "bf16", "--rounds", "5", "--seconds", "0.2", "--time-limit", "10m"]
    assert app.run([*call, "--data", "digits", "--test-images", "0", "--out", str(tmp_path)]) == 0
    ((named,), options) = calls["heard"][0]
    assert named == ["a", "b"] and options == {
        "runtimes": ["torch", "jax"],
        "devices": ["cuda", "cpu"],
        "precisions": ["bf16"],
        "batch_sizes": [1, 256],
        "threads": [1, 2],
        "data": "digits",
        "test_images": 0,
        "rounds": 5,
        "seconds": 0.2,
        "time_limit": 600.0,
        "out": tmp_path,
    }


def test_a_failure_ends_with_1_and_says_why(calls: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    calls["trials"][1] = trial("torch", status="failed", why="cuda was asked for, but cpu computed.", by_batch={})
    assert app.run(["bench", "a-run"]) == 1
    assert "torch cpu fp32: failed. cuda was asked for" in capsys.readouterr().out


@pytest.mark.parametrize(
    "call",
    [
        [],
        ["a", "--batch-sizes", "1,x"],
        ["a", "--threads", "0"],
        ["a", "--runtimes", "torch,,jax"],
        ["a", "--time-limit", "soon"],
        ["a", "--any-model"],
        ["compare"],
        ["compare", "one.json"],
        ["compare", "a.json", "b.json", "--rounds", "2"],
    ],
)
def test_a_wrong_call_ends_with_2(call: list[str], calls: dict[str, Any]) -> None:
    assert app.run(["bench", *call]) == 2
    assert not calls["heard"]


def test_machines_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, speed in (("a.json", 1000.0), ("b.json", 2500.0)):
        (tmp_path / name).write_text(made([trial("onnxruntime", speed=speed)]).to_json())
    (tmp_path / "c.json").write_text(made([trial("onnxruntime")], digest="1" * 64).to_json())
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    out = tmp_path / "out"
    assert app.run(["bench", "compare", *files, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "2,500  2.50×" in said and "A: Look out." in said and "onnxruntime cpu fp32" in said
    assert json.loads((out / "compare.json").read_text())["lines"][0]["medians"]["B"]["images_per_second"] == 2500
    assert app.run(["bench", "compare", files[0], str(tmp_path / "c.json"), "--out", str(out)]) == 2
    assert app.run(["bench", "compare", files[0], str(tmp_path / "c.json"), "--out", str(out), "--any-model"]) == 0
    capsys.readouterr()
    assert app.run(["bench", "compare", *files, "--out", str(out), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["machines"]) == {"A", "B"}


def test_a_real_benchmark(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["bench", str(bundle_folder), "--runtimes", "onnxruntime", "--rounds", "1", "--seconds", "0.02"]
    call += ["--threads", "1"]
    assert app.run([*call, "--batch-sizes", "1,4", "--test-images", "0", "--out", str(tmp_path / "b"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "tenfold-bench" and [row["batch_size"] for row in said["rows"]] == [1, 4]
    figures = said["rows"][0]["figures"]
    assert figures["first_prediction_seconds"]["median"] > figures["open_seconds"]["median"] > 0
    assert figures["golden_difference"]["median"] < 1e-5 and said["rows"][0]["provider"] == "CPUExecutionProvider"
    assert said["rows"][0]["configuration"]["threads"] == 1
    assert said["trials"][0]["versions"]["onnxruntime"] and said["status"] == "finished"


def test_every_figure_can_be_shown() -> None:
    from tenfold.benchmarking.records import FIGURES

    assert set(bench_tables.SHOWN) == set(FIGURES)
