from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.cli import app
from tenfold.cli.compare import money, price, times
from tenfold.comparison import records, work
from tenfold.comparison.records import Comparison, Contestant, Ended, LeftOut, Started, Trial
from tenfold.errors import CallError


def trial(engine: str, seed: int, seconds: float, accuracy: float, **changes: Any) -> Trial:
    fields: dict[str, Any] = {
        "status": "done",
        "why": None,
        "exit_code": 0,
        "started": "2026-01-01T00:00:00+00:00",
        "folder": f"{engine}-cpu-{seed}",
        "command": "tenfold train",
        "ran_on": "cpu",
        "precision": "fp32",
        "parts": {"train": seconds / 2, "total": seconds},
        "images_per_second": 1000.0,
        "memory_bytes": 600_000_000,
    }
    return Trial(engine, "cpu", seed, seconds=seconds, accuracy=accuracy, **{**fields, **changes})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the verb asks of ``compare``, which answers at once with ``trials``."""
    script: dict[str, Any] = {
        "heard": [],
        "trials": [trial("torch", 0, 8.0, 0.9), trial("torch", 1, 10.0, 0.92), trial("jax", 0, 90.0, 0.91)],
    }

    def answer(*args: Any, listen: Callable[[Any], None], **options: Any) -> Comparison:
        script["heard"].append((args, options))
        torch, jax, gone = (Contestant(name, "cpu") for name in ("torch", "jax", "tensorflow"))
        listen(LeftOut(gone, "it is not installed"))
        listen(Started(1, 3, torch, 0))
        for number, one in enumerate(script["trials"], 1):
            listen(Ended(number, 3, one, kept=number == 2))
        rows, reference = records.rows(
            [torch, jax, gone], script["trials"], {gone: "it is not installed"}, options["price_per_hour"]
        )
        machine = {"cores": 2, "cpu": "A [processor]", "memory_bytes": 8 * 10**9}
        return Comparison(
            tmp_path, "digits", {"name": "quick"}, rows, reference, script["trials"], ["told"], machine, {}, "", "2026"
        )

    monkeypatch.setattr(work, "compare", answer)
    return script


def test_every_option_reaches_the_work(calls: dict[str, Any], tmp_path: Path) -> None:
    code = app.run(
        [
            *("compare", "cifar10", "--engines", "torch, jax", "--devices", "cpu,cuda", "--recipe", "sprint"),
            *("--seeds", "5", "--set", "optimizer.lr=0.1", "--epochs", "2.5", "--batch-size", "64"),
            *("--time-limit", "1m", "--price-per-hour", "cpu=0.05,cuda=2.5", "--out", str(tmp_path / "o")),
        ]
    )
    assert code == 0
    assert calls["heard"] == [
        (
            ("cifar10",),
            {
                "engines": ["torch", "jax"],
                "devices": ["cpu", "cuda"],
                "recipe": "sprint",
                "seeds": 5,
                "overrides": {"optimizer.lr": 0.1, "epochs": 2.5, "batch_size": 64, "time_limit": 60.0},
                "price_per_hour": {"cpu": 0.05, "cuda": 2.5},
                "out": tmp_path / "o",
            },
        )
    ]


def test_the_table_has_medians_spreads_and_reasons(
    calls: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert app.run(["compare", "--price-per-hour", "36"]) == 0
    out, err = capsys.readouterr()
    assert all(len(line) <= 80 for line in out.splitlines())
    flat = [" ".join(line.split()) for line in out.splitlines()]
    assert flat[0] == "digits, recipe quick: 2 cores of A [processor], 8 GB"
    assert any(line.startswith("torch cpu 2 91.00 % 9.0 s 1.00×") for line in flat)
    assert any(line.startswith("90.00 to 92.00 % 8.0 to 10.0 s") for line in flat)
    assert any(line.startswith("jax cpu 1 91.00 % 1 min 30 s 0.10×") for line in flat)
    assert any(line.endswith("1,000 600 MB 0.090") for line in flat) and any(
        line.endswith("600 MB 0.90") for line in flat
    )
    assert "tensorflow cpu: left out. it is not installed" in flat and "Note: told" in flat
    assert "GPU" not in out and "TTA" not in out and "device" not in out  # columns without figures
    assert err.splitlines()[:4] == [
        "tensorflow cpu is left out: it is not installed",
        "[1/3] torch cpu, seed 0 …",
        "[1/3] torch cpu, seed 0: 90.00 % in 8.0 s (4.0 s training)",
        "[2/3] torch cpu, seed 1: 92.00 % in 10.0 s (5.0 s training), measured before",
    ]


def test_a_wide_screen_has_one_table(
    calls: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert app.run(["compare"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in lines if line.startswith("torch cpu")] == [["600", "MB"]]


def test_json_is_one_object(calls: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["compare", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == [
        *("path", "data", "recipe", "rows", "reference", "notes", "price_per_hour", "hardware"),
        *("versions", "command", "created", "runs"),
    ]
    assert printed["rows"][0]["seconds"] == {"median": 9.0, "min": 8.0, "max": 10.0, "n": 2}
    assert len(printed["runs"]) == 3


def test_a_failure_is_exit_code_1_and_the_figures_are_printed_all_the_same(
    calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    calls["trials"][2] = trial("jax", 0, 3.0, 0.0, status="failed", why="KeyError: 1 (exit code 1)")
    assert app.run(["compare", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["rows"][1]["status"] == "failed"
    assert "[3/3] jax cpu, seed 0: failed after 3.0 s: KeyError: 1 (exit code 1)" in err


def test_nothing_measured_is_exit_code_1(calls: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    calls["trials"] = [trial("torch", 0, 1.0, 0.0, status="refused", why="No device is called 'cuda'.")]
    assert app.run(["compare"]) == 1
    assert "torch cpu: refused. No device is called 'cuda'." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, None), ("2.5", 2.5), ("cpu=0.05, cuda=2.5", {"cpu": 0.05, "cuda": 2.5}), ("cuda:1=1", {"cuda:1": 1.0})],
)
def test_prices(text: str | None, found: object) -> None:
    assert price(text) == found


@pytest.mark.parametrize("text", ["", "much", "cpu=", "=2", "1,2", "cpu=1,2", "cpu=1,cpu=2"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(CallError, match="no price"):
        price(text)


@pytest.mark.parametrize("text", ["torch,", ",", "", " "])
def test_names_are_not_empty(calls: dict[str, Any], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["compare", "--engines", text]) == 2
    assert "a name is empty" in capsys.readouterr().err


def test_money_and_times_keep_digits_that_count() -> None:
    assert [money(v) for v in (0, 12.5, 1234, 0.031, 0.0000921)] == ["0.00", "12.50", "1,234.00", "0.031", "0.000092"]
    assert [times(v) for v in (0.0123, 0.1, 1, 9.99, 10, 123.4)] == [
        "0.012×",
        "0.10×",
        "1.00×",
        "9.99×",
        "10.0×",
        "123.4×",
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs tenfold[torch]")
def test_a_comparison_by_the_real_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A device that isn't there is refused, the CPU is measured, and a second call adds a seed to it."""
    call = ["compare", "digits", "--engines", "torch", "--devices", "cuda:99,cpu", "--epochs", "0.2", "--json"]
    call += ["--set", "model.widths=[8, 8]", "--set", "precision=fp32", "--out", str(tmp_path / "c")]
    assert app.run([*call, "--seeds", "1"]) == 0
    first = json.loads(capfd.readouterr().out)
    absent, cpu = first["rows"]
    assert absent["status"] == "refused" and absent["why"].startswith("No device is called 'cuda:99'")
    assert cpu["n"] == 1 and 0 <= cpu["accuracy"]["median"] <= 1
    assert cpu["seconds"]["median"] > cpu["train_seconds"]["median"] > 0
    run = first["runs"][-1]
    assert run["parts"]["total"] <= run["seconds"] and run["memory_bytes"] > 10**8 and run["versions"]["torch"]
    assert run["device_memory_bytes"] is None and run["precision"] == "fp32"
    for name in ("compare.png", "compare.svg", "recipe.yaml", "torch-cpu-0/report.html", "logs/torch-cpu-0.log"):
        assert (tmp_path / "c" / name).stat().st_size > 0, name

    assert app.run([*call, "--seeds", "2"]) == 0
    out, err = capfd.readouterr()
    second = json.loads(out)
    assert [r["seed"] for r in second["runs"] if r["status"] == "done"] == [0, 1]
    assert run in second["runs"] and "measured before" in err
