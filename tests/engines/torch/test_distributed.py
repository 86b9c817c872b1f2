"""One training in several processes, started by the real torchrun on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from safetensors.numpy import load_file  # noqa: E402

from tenfold import training  # noqa: E402
from tenfold.engines.base import EpochEnd  # noqa: E402
from tenfold.errors import StoppedError  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
DIGITS: dict[str, Any] = {"epochs": 6, "model.widths": [4, 8], "ema": 0.9, "checkpoint.seconds": 0.2}


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What pair.py found. Of four processes two share a part of the batch."""
    path = tmp_path_factory.mktemp("pair") / "found.json"
    command = [*TORCHRUN, str(request.param), str(Path(__file__).with_name("pair.py"))]
    done = subprocess.run(command, env={**os.environ, "FOUND": str(path)}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return {"processes": request.param, **json.loads(path.read_text())}


def test_a_step_of_several_processes_is_the_step_of_one(found: dict[str, Any]) -> None:
    steps = dict(found["steps"])
    if found["processes"] == 2:
        assert set(steps["whole parts"].values()) == {0.0}  # to the bit
    own = steps.pop("statistics of its own")
    assert own["gradients"] > 1e-3  # what is not asked for is not done
    for name, apart in steps.items():
        assert apart["right"] == 0, name
        for what, difference in apart.items():
            assert difference < 1e-5, (name, what)


def test_batch_norm_of_torch_is_synchronised_too(found: dict[str, Any]) -> None:
    assert found["norms"] < 2e-5


def test_pieces_are_agreed_on_where_one_process_is_short_of_memory(found: dict[str, Any]) -> None:
    number = found["processes"]
    assert found["memory"]["pieces"] == [4] * number
    first = found["memory"]["notices"][0]
    assert [n for n in first if f"{64 // number} is now computed as 4 parts of {16 // number}" in n] == first != []


def test_an_error_in_one_process_is_told_in_all(found: dict[str, Any]) -> None:
    one, *others = found["errors"]
    assert all(one == other for other in others)
    assert one[0] == "Process 1: no disk. Buy one."
    assert one[1].startswith("The speed is 0 in the first process and 1 in process 1.")
    assert one[2].startswith("At step 0 the processes no longer have the same weights.")
    assert found["most"] == [[0.25 * (found["processes"] - 1), 0.0], 0]


# ---- whole trainings -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    training.train("digits", recipe="quick", overrides=DIGITS, device="cpu", out=run)
    return run


def curve(run: Path) -> list[tuple[float, ...]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "loss", "accuracy", "val_loss", "val_accuracy")
    return [tuple(row[name] for name in names) for row in rows if row["event"] == "epoch"]


def require_alike(run: Path, unbroken: Path) -> None:
    assert [pytest.approx(row, abs=1e-4) for row in curve(unbroken)] == curve(run)
    ours, theirs = (load_file(path / "model" / "weights.safetensors") for path in (run, unbroken))
    assert all(ours[name] == pytest.approx(theirs[name], abs=1e-4) for name in theirs)


def test_a_run_of_one_process_goes_on_in_two(unbroken: Path, tmp_path: Path) -> None:
    def stop(event: Any) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 3:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(StoppedError):
        training.train("digits", recipe="quick", overrides=DIGITS, device="cpu", out=run, listen=stop)
    command = [*TORCHRUN, "2", "-m", "tenfold", "train", "--resume", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["processes"] == {"number": 2, "backend": "gloo"}
    assert done.stderr.count("Test accuracy") == 1  # one speaks
    record = json.loads((run / "run.json").read_text())
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    assert record["processes"] == manifest["provenance"]["processes"] == {"number": 2, "backend": "gloo"}
    assert "2, joined by gloo" in (run / "report.html").read_text(encoding="utf-8")
    require_alike(run, unbroken)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_killed_process_ends_all_and_the_run_goes_on_in_one(unbroken: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fields = [f"--set={name}={json.dumps(value)}" for name, value in DIGITS.items()]
    command = [*TORCHRUN, "2", "-m", "tenfold", "train", "digits", "--recipe", "quick", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, *fields, "--out", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    second = None
    while not (run / "checkpoint" / "last.safetensors").exists():
        assert process.poll() is None
        second = second or child(process.pid, "1")
        time.sleep(0.02)
    assert second is not None
    os.kill(second, signal.SIGKILL)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 1
    assert said.count("Another of the 2 processes of this training has ended") == 1, said
    assert f"torchrun … -m tenfold train --resume {run}" in said
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    result = training.train(resume=run)
    assert result.processes["number"] == 1
    require_alike(run, unbroken)


def child(parent: int, rank: str) -> int | None:
    """The process that torchrun started as the ``rank``-th."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment:
            return int(pid)
    return None
