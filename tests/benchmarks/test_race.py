"""The race by its real command line, with tiny programs as contestants."""

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
import race

RACE = Path(race.__file__)

# A contestant: appends "name seed" to a log, reports an accuracy that follows from the seed.
FAKE = """\
import json, pathlib, sys, time
name, seed, log = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
with log.open("a") as file:
    file.write(f"{name} {seed}\\n")
if name == "sleeper" and seed == 1:
    time.sleep(60)
if name == "broken" and seed == 1:
    sys.exit("the disk is full")
if name == "silent":
    print("done")
    sys.exit()
if name == "big":
    held = bytearray(200_000_000)
    time.sleep(0.8)
print("an epoch")
print(json.dumps({"accuracy": 0.8 + seed / 100, "best_accuracy": 0.9, "seconds": {"train": 0.01 * (seed + 1)},
                  "versions": {"python": "3"}}))
"""


class Track:
    """A folder to race in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self.out = folder / "results" / "fake.json"
        (folder / "fake.py").write_text(FAKE)

    def command(self, *names: str, more: tuple[str, ...] = ()) -> list[str]:
        programs = []
        for name in (n.partition("=")[0] for n in names):
            line = f"{sys.executable} {self.folder / 'fake.py'} {name} {{seed}} {self.log}"
            programs += ["--program", f"{name}={line}"]
        fixed = ["--no-wait", "--out", str(self.out), "--scratch", str(self.folder / "scratch")]
        return [*names, *programs, *fixed, *more]

    def race(self, *names: str, more: tuple[str, ...] = ()) -> int:
        return race.main(self.command(*names, more=more))

    def ran(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out.read_text())
        return found


@pytest.fixture
def track(tmp_path: Path) -> Track:
    return Track(tmp_path)


def test_contestants_run_in_turn(track: Track) -> None:
    assert track.race("a=3", "b=1", "c=2") == 0
    assert track.ran() == ["a 0", "b 0", "c 0", "a 1", "c 1", "a 2"]


def test_a_race_that_was_stopped_goes_on_and_repeats_nothing(track: Track) -> None:
    assert track.race("a=2", "b=1") == 0
    assert track.race("a=3", "b=2") == 0
    assert track.ran() == ["a 0", "b 0", "a 1", "b 1", "a 2"]
    assert [c["n"] for c in track.summary()["contestants"]] == [3, 2]
    assert track.race("a=1", "b=1", more=("--fresh",)) == 0
    assert track.ran()[5:] == ["a 0", "b 0"]


def test_a_record_that_was_cut_off_is_run_again(track: Track) -> None:
    track.race("a=2")
    runs = track.out.with_name("fake.runs.jsonl")
    runs.write_text(runs.read_text()[:-20])
    assert track.race("a=2") == 0
    assert track.ran() == ["a 0", "a 1", "a 1"]
    assert track.race("a=2") == 0, "the file must be whole again"
    assert len(track.ran()) == 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_measured_and_leaves_no_process(track: Track, how: int) -> None:
    process = subprocess.Popen([sys.executable, str(RACE), *track.command("sleeper=3")], stderr=subprocess.PIPE)
    until = time.monotonic() + 20
    while len(track.ran()) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert track.ran() == ["sleeper 0", "sleeper 1"]
    process.send_signal(how)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"the same command goes on" in err and b"Traceback" not in err
    assert track.summary()["contestants"][0]["n"] == 1
    assert not _running(str(track.log))


def _running(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if word in line:
                found.append(line)
    return found


def test_a_failed_run_is_told_and_enters_no_figure(track: Track, capsys: pytest.CaptureFixture[str]) -> None:
    assert track.race("broken=3", "silent=1") == 0
    err = capsys.readouterr().err
    assert "broken seed 1: FAILED" in err and "the disk is full" in err
    broken, silent = track.summary()["contestants"]
    assert broken["n"] == 2
    assert broken["failed"] == [{"seed": 1, "exit_code": 1, "why": "the disk is full"}]
    assert broken["accuracy"]["mean"] == pytest.approx(0.81)  # of 0.80 and 0.82
    assert silent["n"] == 0 and "accuracy" in silent["failed"][0]["why"]
    track.race("broken=3", "silent=1")
    assert track.ran()[4:] == ["silent 0", "broken 1"], "failed runs are tried again"


def test_a_run_over_the_limit_is_ended(track: Track) -> None:
    started = time.monotonic()
    assert track.race("sleeper=2", more=("--limit", "1.5")) == 0
    assert time.monotonic() - started < 20
    (sleeper,) = track.summary()["contestants"]
    assert sleeper["n"] == 1 and "limit" in sleeper["failed"][0]["why"]


def test_what_a_run_cost(track: Track) -> None:
    track.race("big=1")
    (run,) = track.summary()["runs"]
    assert 0.8 < run["seconds"] < 10
    assert run["parts"] == {"train": 0.01}
    assert 200e6 < run["tree_bytes"] < 300e6
    assert 200e6 < run["process_bytes"] < 300e6
    assert 0 <= run["steal_share"] < 1
    assert run["accuracy_without_tta"] == 0.8 and run["accuracy_with_tta"] is None


def test_runs_of_other_settings_are_not_mixed(track: Track, capsys: pytest.CaptureFixture[str]) -> None:
    track.race("a=1")
    assert track.race("a=1", more=("--args", "a=--epochs 1")) == 2
    assert "--fresh" in capsys.readouterr().err
    assert track.ran() == ["a 0"]


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (("nobody",), (), "no contestant nobody"),
        (("a=x",), ("--program", "a=true"), "number"),
        (("a", "a"), ("--program", "a=true"), "twice"),
        (("a",), ("--program", "a=true", "--args", "b=1"), "does not race"),
        (("airbench94",), (), "CUDA|cuda"),
        (("tenfold:no-such-recipe",), (), "no recipe no-such-recipe"),
        (("keras",), ("--python", "keras=/no/such/python"), "environment is not there"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    names: tuple[str, ...],
    more: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import re

    monkeypatch.setattr(race, "arrays", lambda settings: None)
    call = [*names, *more, "--no-wait", "--out", str(tmp_path / "o.json"), "--scratch", str(tmp_path / "s")]
    assert race.main(call) == 2
    assert re.search(said, capsys.readouterr().err)


def test_who_is_left_out_is_told_in_the_summary(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "arrays", lambda settings: None)
    assert track.race("a=1", more=()) == 0
    assert race.main([*track.command("a=1"), "airbench94"]) == 0
    assert list(track.summary()["left_out"]) == ["airbench94"]
    assert "cuda only" in track.summary()["left_out"]["airbench94"]


def test_the_command_in_the_summary_names_no_folder_of_the_machine(track: Track) -> None:
    track.race("a=1")
    summary = track.summary()
    assert "--out PATH" in summary["command"]
    assert str(track.out) not in summary["command"]
