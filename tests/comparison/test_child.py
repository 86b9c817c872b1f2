from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.comparison import child
from tenfold.comparison.child import Child
from tenfold.comparison.records import Contestant, Trial

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs put in Python's place are shell scripts")

SAID = {
    "device": "cuda:0",
    "precision": "bf16",
    "test": {"accuracy": 0.75, "n": 4, "accuracy_with_tta": 0.8},
    "seconds": {"import": 0.1, "train": 0.2, "total": 0.3},
    "images_per_second": 123.0,
    "device_memory_bytes": 456,
    "notes": ["told"],
}


@pytest.fixture
def acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    """(shell lines) → the Trial of a child that does that instead of training."""

    def act(script: str, contestant: Contestant = Contestant("torch", "cuda:1")) -> Trial:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return child.run(Child(contestant, 3, "digits", tmp_path / "recipe.yaml", tmp_path))

    return act


def prints(value: Any) -> str:
    return f"echo {shlex.quote(json.dumps(value))}"


def test_what_a_child_says_becomes_figures(acts: Callable[..., Trial], tmp_path: Path) -> None:
    record = {"hardware": {"device": "A card"}, "versions": {"torch": "2"}}
    folder = tmp_path / "torch-cuda-1-3"
    found = acts(
        f"mkdir {folder} || exit 1\n{prints(record)} > {folder}/run.json\n{prints(SAID)}\necho slow >&2; sleep 0.3"
    )
    assert (found.status, found.why, found.exit_code) == ("done", None, 0)
    assert 0.3 <= found.seconds < 5
    assert (found.ran_on, found.device_label, found.precision) == ("cuda:0", "A card", "bf16")
    assert (found.accuracy, found.accuracy_with_tta, found.test_images) == (0.75, 0.8, 4)
    assert found.parts["train"] == 0.2 and found.images_per_second == 123.0
    assert found.device_memory_bytes == 456 and found.memory_bytes and found.energy_wh is None
    assert found.versions == {"torch": "2"} and found.notes == ["told"]
    assert found.folder == folder.name
    assert (tmp_path / "logs" / "torch-cuda-1-3.log").read_text() == "slow\n"


def test_the_child_is_called_as_a_user_would(acts: Callable[..., Trial], tmp_path: Path) -> None:
    found = acts('echo "$@" >&2; exit 1')
    line = (tmp_path / "logs" / "torch-cuda-1-3.log").read_text().split()
    assert line[:2] == ["-m", "tenfold"]
    assert shlex.split(found.command)[1:] == line[2:]
    assert line[2] == "train" and line[-2:] == ["--", "digits"] and "--json" in line
    options = dict(zip(line[4:-2:2], line[5:-2:2], strict=True))
    assert options == {
        "--engine": "torch",
        "--device": "cuda:1",
        "--recipe": str(tmp_path / "recipe.yaml"),
        "--seed": "3",
        "--out": str(tmp_path / "torch-cuda-1-3"),
    }


def test_a_refusal_is_told_with_its_hint(acts: Callable[..., Trial]) -> None:
    error = {"error": {"kind": "UnknownNameError", "message": "No device is called 'cuda'.", "hint": "Known: cpu."}}
    found = acts(f"{prints(error)}; exit 2")
    assert (found.status, found.exit_code) == ("refused", 2)
    assert found.why == "No device is called 'cuda'. Known: cpu."


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo Traceback >&2; echo 'KeyError: 1' >&2; exit 1", "KeyError: 1 (exit code 1)"),
        ("kill -9 $$", "it said nothing (ended by the signal SIGKILL, as when memory runs out)"),
        ("kill -15 $$", "it said nothing (ended by signal SIGTERM)"),
        ("echo fine; exit 0", "it said nothing (exit code 0, but no figures)"),
        (f"{prints({'error': {'message': 'No room.', 'hint': None}})}; exit 1", "No room. (exit code 1)"),
    ],
)
def test_a_failure_says_how_it_ended(acts: Callable[..., Trial], script: str, why: str) -> None:
    found = acts(script)
    assert (found.status, found.why) == ("failed", why)
    assert found.accuracy is None and found.parts == {}


def test_what_a_broken_off_run_left_is_removed(acts: Callable[..., Trial], tmp_path: Path) -> None:
    left = tmp_path / "torch-cuda-1-3"
    left.mkdir()
    (left / "run.json").write_text("{}")
    found = acts(f"test -e {left} && exit 7; exit 1")
    assert found.exit_code == 1


def test_an_interrupted_run_leaves_nothing(
    acts: Callable[..., Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "torch-cuda-1-3"

    def interrupt(*args: Any, **options: Any) -> None:
        left.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(child.processes, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        acts("exit 0")
    assert not left.exists()
