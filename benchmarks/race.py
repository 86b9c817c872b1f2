"""Race programs that train on CIFAR-10 against each other: each run a process of its own, measured from its start to
its end, the contestants in turn. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import measuring
import options
import roster
import tally
from options import pairs
from roster import Contestant, RaceError, Settings

from tenfold import processes


@dataclass(frozen=True)
class Entry:
    contestant: Contestant
    runs: int
    extra: tuple[str, ...]


def entries(args: argparse.Namespace) -> list[Entry]:
    programs, extras = pairs(args.program, "--program"), pairs(args.args, "--args")
    found: list[Entry] = []
    for text in args.contestants:
        name, _, count = text.partition("=")
        if count and (not count.isdigit() or int(count) < 1):
            raise RaceError(f"{text}: the number of runs must be a number from 1 up.")
        extra = tuple(shlex.split(extras.pop(name, "")))
        if any(name == entry.contestant.name for entry in found):
            raise RaceError(f"{name} is named twice.")
        found.append(Entry(roster.find(name, extra, programs), int(count or args.runs), extra))
    if extras:
        raise RaceError(f"--args names {', '.join(extras)}, which does not race.")
    return found


def turns(order: Sequence[Entry], first_seed: int) -> list[tuple[Entry, int]]:
    """Who runs when with which seed: seed 0 of each, then seed 1 of those that have more runs, …"""
    longest = max((entry.runs for entry in order), default=0)
    return [(entry, first_seed + turn) for turn in range(longest) for entry in order if turn < entry.runs]


# ---- before the race ---------------------------------------------------------------------------------------------


def ready(entry: Entry, settings: Settings) -> str | None:
    """Make a contestant ready to race; where that can't be, why."""
    contestant = entry.contestant
    if settings.device not in contestant.devices:
        return f"it runs on {' and '.join(contestant.devices)} only"
    try:
        if contestant.environment is not None:
            python = settings.python(contestant.environment)
            if not (Path(python).exists() or shutil.which(python)):
                named = f"--python {contestant.environment}=PATH"
                return f"its environment is not there ({_short(python)}); {named} names another"
            lines = [f"import {', '.join(contestant.imports)}"]
            if settings.device == "cuda":
                lines.append("import torch\nassert torch.cuda.is_available(), 'PyTorch finds no CUDA device here'")
            if why := _trial([python, "-c", "\n".join(lines)]):
                return why
        if contestant.check is not None:
            command, meaning = contestant.check(settings)
            if _trial(command):
                return meaning
        return _trial(contestant.prepare(settings)) if contestant.prepare is not None else None
    except RaceError as error:
        return str(error)


def _short(path: str) -> str:
    """For the summary, which names no folder of this machine."""
    inside = Path(path).is_relative_to(roster.ROOT)
    return str(Path(path).relative_to(roster.ROOT)) if inside else "what --python names"


def _trial(command: Sequence[str]) -> str | None:
    """Run a command that must succeed; its last words where it doesn't."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        try:
            cost = processes.run(command, stdout=out, stderr=err, cwd=Path(folder), env=dict(os.environ), limit=1800)
        except OSError as error:
            return str(error)
        return _last_words(err, out) or f"exit code {cost.exit_code}" if cost.exit_code else None


def _last_words(*files: Path) -> str:
    for file in files:
        lines = [
            line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
        if lines:
            return lines[-1][:500]
    return ""


def arrays(settings: Settings) -> None:
    """The data as .npy files, written by tenfold where they are not there yet."""
    if all((settings.data / f"{split}_images.npy").exists() for split in ("train", "test")):
        return
    say("writing CIFAR-10 as arrays for the other programs (not counted)")
    why = _trial([settings.python("tenfold"), str(roster.PROGRAMS / "cifar_arrays.py"), str(settings.data)])
    if why:
        raise RaceError(f"CIFAR-10 could not be made ready: {why}")


# ---- a run -------------------------------------------------------------------------------------------------------


def race_once(entry: Entry, seed: int, settings: Settings, limit: float) -> dict[str, Any]:
    """One run as a record. A failure is a record too; its output stays in scratch/logs."""
    contestant = entry.contestant
    logs = settings.scratch / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    stem = f"{contestant.name.replace(':', '-')}-{settings.device}-{seed}"
    out, err = logs / f"{stem}.out", logs / f"{stem}.err"
    folder = Path(tempfile.mkdtemp(prefix="race-"))
    try:
        command = contestant.command(settings, seed, folder)
        record: dict[str, Any] = {
            "contestant": contestant.name,
            "seed": seed,
            "device": settings.device,
            "extra": list(entry.extra),
            "command": _plain(command, settings, folder),
            "date": machine.now(),
            "load_average_before": list(os.getloadavg()),
        }
        cost = processes.run(command, stdout=out, stderr=err, cwd=folder, env=dict(os.environ), limit=limit)
        record |= {key: value for key, value in vars(cost).items() if key != "timed_out"}
        why = f"ended after the limit of {limit:g} s" if cost.timed_out else None
        report: dict[str, Any] = {}
        if cost.exit_code == 0 and not why:
            try:
                report = contestant.read(out.read_text(encoding="utf-8", errors="replace"), folder)
            except RaceError as error:
                why = str(error)
        elif not why:
            why = _last_words(err, out)
        return record | _reported(report) | {"why": why}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reported(report: dict[str, Any]) -> dict[str, Any]:
    accuracy = report.get("accuracy")
    with_tta = report.get("accuracy_with_tta")
    plain = report.get("accuracy_without_tta", accuracy if with_tta is None else None)
    return {
        "accuracy": accuracy,
        "accuracy_without_tta": plain,
        "accuracy_with_tta": with_tta,
        "best_accuracy": report.get("best_accuracy"),
        "parts": report.get("seconds", {}),
        "device_bytes": report.get("device_bytes"),
        "versions": report.get("versions", {}),
        "history": report.get("history"),
    }


def _plain(command: Sequence[str], settings: Settings, folder: Path) -> str:
    """The command as a reader would type it: no folders of this machine."""
    line = shlex.join([Path(command[0]).name, *command[1:]])
    places = {
        folder: "OUT",
        settings.data: "DATA",
        settings.scratch: "SCRATCH",
        **{path.expanduser().resolve(): name.upper() for name, path in settings.paths.items()},
        roster.ROOT: ".",
    }
    for place, name in places.items():
        line = line.replace(str(place), name)
    return line


def _plain_call(argv: Sequence[str]) -> str:
    """The race's own command, with PATH for what lies outside the checkout."""
    words = []
    for word in argv:
        option, equals, value = word.rpartition("=")
        path = Path(value if "/" in value and " " not in value else "").expanduser()
        if path.is_absolute():
            inside = path.is_relative_to(roster.ROOT)
            value = str(path.relative_to(roster.ROOT)) if inside else "PATH"
        words.append(option + equals + value)
    return shlex.join(["python", "benchmarks/race.py", *words])


# ---- the race ----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def tell(record: dict[str, Any], at: str, started: float) -> None:
    who = f"{at} {record['contestant']} seed {record['seed']}"
    since = f"(race {_minutes(time.perf_counter() - started)})"
    if record["exit_code"] != 0 or record["accuracy"] is None:
        say(f"{who}: FAILED after {record['seconds']:.1f} s, exit code {record['exit_code']}: {record['why']} {since}")
        return
    disturbed = [f"{record['steal_share']:.1%} stolen"] if (record["steal_share"] or 0) > 0.01 else []
    if record["seconds"] > 2 and (record["others_cores"] or 0) > 0.1:  # a tick is 10 ms: short runs tell nothing
        disturbed.append(f"others used {record['others_cores']:.2f} cores")
    more = ", ".join(["", *disturbed])
    say(f"{who}: {record['accuracy']:.2%} in {record['seconds']:.1f} s{more} {since}")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def stored(path: Path, order: Sequence[Entry], args: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs stored so far. Raises RaceError where they are not runs of this race."""
    records = tally.read_records(path)
    extras = {entry.contestant.name: list(entry.extra) for entry in order}
    here = machine.describe()
    for record in records:
        name = record["contestant"]
        if not machine.same(record["machine"], here) or record["device"] != args.device:
            raise RaceError(
                f"{path} has runs of another machine or device; --out names another file, --fresh starts over."
            )
        if record["extra"] != extras.get(name, record["extra"]):
            raise RaceError(
                f"{path} has runs of {name} with other --args; --out names another file, --fresh starts over."
            )
    return records


def run_all(order: Sequence[Entry], records: list[dict[str, Any]], path: Path, settings: Settings,
            args: argparse.Namespace) -> None:  # fmt: skip
    """The runs that are not stored yet, in turn; each is appended to ``records`` and to the file as it ends."""
    done = {(r["contestant"], r["seed"]) for r in tally.succeeded(records)}
    plan = turns(order, args.first_seed)
    started = time.perf_counter()
    here, commit = machine.describe(), machine.commit()
    for number, (entry, seed) in enumerate(plan, 1):
        at = f"[{number}/{len(plan)}]"
        if (entry.contestant.name, seed) in done:
            say(f"{at} {entry.contestant.name} seed {seed}: stored already")
            continue
        waited, busy = 0.0, processes.busy_share(0.5) if args.no_wait else None
        if not args.no_wait:
            try:
                waited, busy = measuring.wait_until_idle(args.idle, args.longest_wait, say)
            except TimeoutError as error:
                raise RaceError(f"{error}. The same command goes on; --no-wait races all the same.") from None
        say(f"{at} {entry.contestant.name} seed {seed} …")
        record = race_once(entry, seed, settings, args.limit)
        record |= {"waited_seconds": waited, "busy_before": busy, "machine": here, "commit": commit}
        records.append(record)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        tell(record, at, started)


def write_summary(out: Path, order: Sequence[Entry], absent: dict[str, str], records: Sequence[dict[str, Any]],
                  args: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    names = [(entry.contestant.name, entry.contestant.label) for entry in order]
    references = args.reference or [name for name, _ in names if not name.startswith("tenfold:")]
    planned = {(entry.contestant.name, seed) for entry, seed in turns(order, args.first_seed)}
    used = [r for r in records if (r["contestant"], r["seed"]) in planned]
    summary = {
        "what": "CIFAR-10, whole processes",
        "device": args.device,
        "machine": machine.describe(),
        "date": machine.now(),
        "commit": sorted({r["commit"] for r in used if r["commit"]}),
        "command": _plain_call(argv),
        "idle_machine": not any((r["busy_before"] or 0) >= args.idle for r in used),
        "left_out": absent,
        **tally.summarise(names, used, sorted(args.target), references),
        "runs": [{key: value for key, value in r.items() if key not in ("machine", "versions")} for r in used],
    }
    partial = out.with_name(out.name + ".part")
    partial.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(out)
    return summary


def race(args: argparse.Namespace, argv: Sequence[str]) -> int:
    import tables

    paths = {name: getattr(args, name) for name in ("airbench", "speedrun") if getattr(args, name)}
    scratch = args.scratch.expanduser().resolve()
    settings = Settings(args.device, scratch / "data", scratch, pairs(args.python, "--python"), paths)
    name = {"cuda": "gpu"}.get(args.device, args.device)
    out = args.out or roster.ROOT / "benchmarks" / "results" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    runs = out.with_name(out.stem + ".runs.jsonl")
    if args.fresh:
        runs.unlink(missing_ok=True)
    order = entries(args)
    records = stored(runs, order, args)
    if any(entry.contestant.environment not in (None, "tenfold") for entry in order):
        arrays(settings)
    absent = {}
    for entry in order:
        if why := ready(entry, settings):
            absent[entry.contestant.name] = why
            say(f"{entry.contestant.name} is left out: {why}")
    racing = [entry for entry in order if entry.contestant.name not in absent]
    if not racing:
        raise RaceError("Nobody is left to race.")
    stopped = False
    try:
        run_all(racing, records, runs, settings, args)
    except KeyboardInterrupt:
        stopped = True
        say("stopped; what was measured is kept, and the same command goes on")
    summary = write_summary(out, racing, absent, records, args, argv)
    print(tables.full(summary))
    say(f"summary: {out}")
    return 130 if stopped else 0


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    args = options.parser(__doc__).parse_intermixed_args(argv)
    try:
        return race(args, argv)
    except RaceError as error:
        print(f"race: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("race: stopped before the first run", file=sys.stderr)
        return 130


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a script's background job inherits it ignored
        signal.signal(number, _stop)
    sys.exit(main())
