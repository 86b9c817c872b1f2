"""Who can race: how each contestant is started, what it needs, and how what it prints is read.

A contestant is a program that trains on CIFAR-10 in a process of its own. All but tenfold print one JSON object as
their last line:

    {"accuracy": 0.8, "best_accuracy": 0.81, "accuracy_with_tta": null, "seconds": {"train": 1500.2},
     "device_bytes": null, "versions": {"python": "3.11.7"}}

``accuracy`` is needed: that of the finished model on the test images, as a share. ``best_accuracy`` is that of the
best epoch, where the program looked at the test images after each.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "benchmarks" / "contestants"
ENVIRONMENTS = ROOT / ".bench"


class RaceError(Exception):
    """Something the person who started the race can put right; the text says what."""


@dataclass(frozen=True)
class Settings:
    """What holds for the whole race.

    device    cpu or cuda
    data      folder with the arrays that contestants/cifar_arrays.py writes
    scratch   folder for what contestants write, kept between runs
    pythons   interpreter by the name of an environment, where it is not the usual one
    paths     the user's copies of airbench and speedrun
    """

    device: str
    data: Path
    scratch: Path
    pythons: Mapping[str, str]
    paths: Mapping[str, Path]

    def python(self, environment: str) -> str:
        if environment in self.pythons:
            return self.pythons[environment]
        return sys.executable if environment == "tenfold" else str(ENVIRONMENTS / environment / "bin" / "python")


@dataclass(frozen=True)
class Contestant:
    """One program.

    name         as on the command line
    label        for people
    environment  whose interpreter runs it; None for one that needs no check
    imports      modules that must be there; they are imported once before the race, which also brings them into memory
    command      (settings, seed, an empty folder of this run's own) → the command
    read         (what it printed, the run's folder) → the report, keys as in the module's docstring
    prepare      a command that makes its data ready, run before the race and not counted; None: nothing to prepare
    check        a further command that must succeed, and what to say where it does not
    devices      where it runs
    """

    name: str
    label: str
    environment: str | None
    imports: tuple[str, ...]
    command: Callable[[Settings, int, Path], list[str]]
    read: Callable[[str, Path], dict[str, Any]]
    prepare: Callable[[Settings], list[str]] | None = None
    check: Callable[[Settings], tuple[list[str], str]] | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")


def last_line(printed: str, _folder: Path | None = None) -> dict[str, Any]:
    """The report of a program: the last line that is a JSON object with an accuracy. Raises RaceError without one."""
    for line in reversed(printed.splitlines()):
        if line.lstrip().startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and isinstance(found.get("accuracy"), (int, float)):
                return found
    raise RaceError('it printed no line {"accuracy": …}')


def tenfold_report(printed: str, folder: Path) -> dict[str, Any]:
    """The report of ``tenfold train --json``; how it was evaluated and with what versions is read from its folder."""
    try:
        told = json.loads(printed)
        evaluation = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))
        record = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
        accuracy, tta = told["test"]["accuracy"], evaluation.get("tta", "none")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RaceError(f"tenfold's result could not be read: {error!r}") from None
    return {
        "accuracy": accuracy,
        "accuracy_without_tta": accuracy if tta == "none" else told["test"].get("accuracy_without_tta"),
        "accuracy_with_tta": None if tta == "none" else accuracy,
        "seconds": told["seconds"],
        "device_bytes": told.get("peak_memory_bytes") if told.get("device", "cpu") != "cpu" else None,
        "versions": record.get("versions", {}),
    }


def tenfold(recipe: str, extra: Sequence[str] = ()) -> Contestant:
    """``tenfold train cifar10 --recipe …`` as its user types it, into a folder that is removed afterwards."""

    def program(settings: Settings) -> list[str]:
        python = settings.python("tenfold")
        script = Path(python).with_name("tenfold")
        return [str(script)] if script.exists() else [python, "-m", "tenfold"]

    def command(settings: Settings, seed: int, folder: Path) -> list[str]:
        fixed = ["train", "cifar10", "--recipe", recipe, "--device", settings.device, "--seed", str(seed)]
        return [*program(settings), *fixed, "--out", str(folder / "run"), "--json", *extra]

    def check(settings: Settings) -> tuple[list[str], str]:
        return [*program(settings), "recipes", recipe], f"tenfold has no recipe {recipe}"

    return Contestant(
        f"tenfold:{recipe}", f"tenfold {recipe}", "tenfold", ("tenfold", "torch"), command, tenfold_report, check=check
    )


def _program(
    name: str, label: str, file: str, environment: str, imports: tuple[str, ...], extra: Sequence[str], **more: Any
) -> Contestant:
    """A program of contestants/ that takes --data, --device and --seed."""

    def command(settings: Settings, seed: int, _folder: Path) -> list[str]:
        given = ["--data", str(settings.data), "--device", settings.device, "--seed", str(seed)]
        return [settings.python(environment), str(PROGRAMS / file), *given, *extra]

    return Contestant(name, label, environment, imports, command, last_line, **more)


def _record_script(name: str, label: str, option: str, file: str, extra: Sequence[str]) -> Contestant:
    """One of the records' scripts, run from the user's copy by contestants/airbench.py."""

    def call(settings: Settings) -> list[str]:
        if option not in settings.paths:
            raise RaceError(
                f"its files are not part of tenfold: name your copy of {file} or its folder with --{option} PATH"
            )
        given = settings.paths[option].expanduser().resolve()
        script = given / file if given.is_dir() else given
        if not script.is_file():
            raise RaceError(f"--{option}: {script} does not exist")
        work = settings.scratch / "airbench"
        start = [settings.python("torchvision"), str(PROGRAMS / "airbench.py"), str(script)]
        return [*start, "--data", str(settings.data), "--work", str(work)]

    return Contestant(
        name,
        label,
        "torchvision",
        ("torch", "torchvision"),
        lambda settings, _seed, _folder: [*call(settings), *extra],
        last_line,
        prepare=lambda settings: [*call(settings), "--prepare"],
        devices=("cuda",),
    )


def _ultralytics(extra: Sequence[str]) -> Contestant:
    def command(settings: Settings, seed: int, folder: Path) -> list[str]:
        given = ["--pictures", str(settings.scratch / "pictures"), "--device", settings.device, "--seed", str(seed)]
        start = [settings.python("ultralytics"), str(PROGRAMS / "ultralytics_program.py")]
        return [*start, *given, "--out", str(folder), *extra]

    def prepare(settings: Settings) -> list[str]:
        start = [settings.python("ultralytics"), str(PROGRAMS / "ultralytics_program.py")]
        return [
            *start,
            "--pictures",
            str(settings.scratch / "pictures"),
            "--data",
            str(settings.data),
            "--prepare",
            *extra,
        ]

    return Contestant(
        "ultralytics", "ultralytics YOLO11n-cls", "ultralytics", ("ultralytics",), command, last_line, prepare=prepare
    )


def custom(name: str, line: str, extra: Sequence[str] = ()) -> Contestant:
    """A program of the user's own: its command line with {seed}, {device}, {data} and {out} filled in."""

    def command(settings: Settings, seed: int, folder: Path) -> list[str]:
        filled = {"{seed}": str(seed), "{device}": settings.device, "{data}": str(settings.data), "{out}": str(folder)}
        words = shlex.split(line)
        for mark, value in filled.items():
            words = [word.replace(mark, value) for word in words]
        return [*words, *extra]

    return Contestant(name, name, None, (), command, last_line)


NAMES = {
    "tenfold:RECIPE": "tenfold train cifar10 --recipe RECIPE",
    "keras": "the usual Keras program: two blocks of convolutions, 20 epochs",
    "pytorch": "the same network in PyTorch with torchvision's transforms and a DataLoader, 20 epochs",
    "resnet18": "ResNet-18 in plain PyTorch, SGD with a cosine, 30 epochs",
    "ultralytics": "YOLO11n-cls by ultralytics' own trainer, 20 epochs; AGPL, installed by you",
    "airbench94": "airbench94_muon.py of your copy (--airbench); needs CUDA",
    "airbench96": "airbench96_faster.py of your copy (--airbench); needs CUDA",
    "speedrun": "cifar10_speedrun.py of your copy (--speedrun); needs CUDA",
}


def find(name: str, extra: Sequence[str], programs: Mapping[str, str]) -> Contestant:
    """The contestant of this name, ``extra`` put at the end of its command. Raises RaceError for another name."""
    if name in programs:
        return custom(name, programs[name], extra)
    if name.startswith("tenfold:") and name != "tenfold:":
        return tenfold(name.partition(":")[2], extra)
    torch = ("torch", "torchvision")
    if name == "keras":
        return _program(
            name, "Keras program", "keras_program.py", "keras", ("tensorflow", "keras"), extra, devices=("cpu",)
        )
    if name == "pytorch":
        return _program(name, "PyTorch program", "pytorch_program.py", "torchvision", torch, extra)
    if name == "resnet18":
        return _program(name, "ResNet-18, PyTorch", "resnet18_program.py", "torchvision", torch, extra)
    if name == "ultralytics":
        return _ultralytics(extra)
    if name == "airbench94":
        return _record_script(name, "airbench94_muon", "airbench", "airbench94_muon.py", extra)
    if name == "airbench96":
        return _record_script(name, "airbench96_faster", "airbench", "airbench96_faster.py", extra)
    if name == "speedrun":
        return _record_script(name, "cifar10_speedrun", "speedrun", "cifar10_speedrun.py", extra)
    raise RaceError(
        f"There is no contestant {name}. Known: {', '.join(NAMES)}; your own with --program {name}='COMMAND'."
    )
