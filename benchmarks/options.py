"""The command line of race.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import roster
from roster import RaceError

EPILOG = f"""contestants:
{chr(10).join(f"  {name:16} {about}" for name, about in roster.NAMES.items())}

examples:
  python benchmarks/race.py tenfold:quick=5 keras=1 pytorch=1 --target 0.8
  python benchmarks/race.py tenfold:quick=1 keras=1 --args keras='--epochs 1 --train-images 2000' --out /tmp/look.json
  python benchmarks/race.py tenfold:sprint=5 airbench94=5 --device cuda --airbench ~/cifar10-airbench
  python benchmarks/race.py tenfold:quick=3 mine=3 --program mine='python mine.py --seed {{seed}}'

A race that was stopped goes on with the same command: each run is stored when it ends, and is not repeated."""


def parser(about: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=about, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    _who(p.add_argument_group("who races, and how often"))
    _where(p.add_argument_group("where things are"))
    _when(p.add_argument_group("when a run may start, and end"))
    return p


def _who(add: argparse._ArgumentGroup) -> None:
    add.add_argument("contestants", nargs="+", metavar="NAME[=RUNS]", help="a contestant and the number of its runs")
    add.add_argument("--runs", type=_above_zero, default=3, help="runs of those that name no number (default 3)")
    add.add_argument("--first-seed", type=int, default=0, help="run i has this seed plus i (default 0)")
    add.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    add.add_argument(
        "--target", type=_share, action="append", default=[], help="count the runs at or above it; repeatable"
    )
    text = "whom the others are compared with; repeatable (default: all that are not tenfold)"
    add.add_argument("--reference", action="append", default=[], metavar="NAME", help=text)
    text = "put these at the end of its command"
    add.add_argument("--args", action="append", default=[], metavar="NAME='…'", help=text)
    text = (
        "a program of your own; {seed}, {device}, {data} and {out} are filled in; "
        "its last line is a JSON object with accuracy"
    )
    add.add_argument("--program", action="append", default=[], metavar="NAME='COMMAND'", help=text)


def _where(add: argparse._ArgumentGroup) -> None:
    text = "the summary (default benchmarks/results/cpu.json or gpu.json); the runs go beside it, into FILE.runs.jsonl"
    add.add_argument("--out", type=Path, metavar="FILE", help=text)
    add.add_argument("--fresh", action="store_true", help="start over: forget the runs that are stored there")
    text = (
        "interpreter of tenfold, keras, torchvision or ultralytics "
        "(default: this one for tenfold, else .bench/NAME/bin/python)"
    )
    add.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help=text)
    add.add_argument("--airbench", type=Path, metavar="PATH", help="your copy of KellerJordan/cifar10-airbench")
    add.add_argument("--speedrun", type=Path, metavar="PATH", help="your copy of hiverge/cifar10-speedrun")
    text = "where data is made ready for the contestants and their output is kept (default .bench/scratch)"
    add.add_argument("--scratch", type=Path, default=roster.ENVIRONMENTS / "scratch", metavar="DIR", help=text)


def _when(add: argparse._ArgumentGroup) -> None:
    text = "share of the cores that may be busy before a run (default 0.1)"
    add.add_argument("--idle", type=_share, default=0.1, metavar="SHARE", help=text)
    text = "how long to wait for an idle machine (default 1800)"
    add.add_argument("--longest-wait", type=float, default=1800, metavar="SECONDS", help=text)
    add.add_argument("--no-wait", action="store_true", help="race on a busy machine; the summary says so")
    text = "end a run after this (default 6 h)"
    add.add_argument("--limit", type=float, default=6 * 3600, metavar="SECONDS", help=text)


def _above_zero(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` words as a dict. Raises RaceError for a word of another form."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise RaceError(f"{option} {text}: write it as NAME=VALUE.")
        found[name] = value
    return found
