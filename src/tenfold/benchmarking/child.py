"""One configuration as a process of its own: started, measured, and what it wrote understood."""

from __future__ import annotations

import datetime
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tenfold import children, processes
from tenfold.benchmarking.records import Configuration, Status, Trial
from tenfold.benchmarking.targets import Target
from tenfold.benchmarking.worker import Job

WORKER = "tenfold.benchmarking.worker"
LIMIT_SECONDS = 900.0  # a process that takes longer is ended


@dataclass(frozen=True)
class Measured:
    """``devices``: what the runtime said that it has here; only a first process says so."""

    trial: Trial
    devices: dict[str, list[str]]


def run(
    target: Target,
    configuration: Configuration,
    number: int,
    *,
    pictures: Path,
    home: Path,
    batch_sizes: list[int],
    seconds: float,
    first: bool,
    found: bool,
) -> Measured:
    """Runs it to its end. ``number``: of the round; ``home``: a folder for its files; ``found``: nobody asked for its
    device, which the runtime told of: that it can't be started then is no failure.

    Never raises for what happens in the child; KeyboardInterrupt ends it and goes on.
    """
    outcome, file = home / "outcome.json", home / "job.json"
    out, err = home / "out.log", home / "err.log"
    outcome.unlink(missing_ok=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    job = Job(
        path=str(target.path.absolute()),
        kind=target.format,
        runtime=configuration.runtime,
        device=configuration.device,
        precision=configuration.precision,
        threads=configuration.threads,
        golden=str(target.golden.absolute()) if target.golden else None,
        folder=str(pictures),
        outcome=str(outcome),
        batch_sizes=batch_sizes,
        seconds=seconds,
        first=first,
        started=time.time(),
    )
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")
    environment = {**children.environment(), "PYTHONFAULTHANDLER": "", "PYTHONIOENCODING": "utf-8"}
    command = [*children.command(WORKER), str(file)]
    cost = processes.run(command, stdout=out, stderr=err, cwd=Path.cwd(), env=environment, limit=LIMIT_SECONDS)
    said = _said(outcome)
    common: dict[str, Any] = {
        "started": now,
        "seconds": round(cost.seconds, 3),
        "others_cores": cost.others_cores,
        "steal_share": cost.steal_share,
    }
    if said is None:
        why = f"it took longer than {LIMIT_SECONDS / 60:.0f} minutes" if cost.timed_out else _ended(cost.exit_code, err)
        return Measured(Trial(configuration, number, "failed", why, **common), {})
    state = said.pop("state")
    devices = said.pop("devices", {})
    absent = found and state == "absent"
    status: Status = "done" if state == "done" else "refused" if state == "refused" or absent else "failed"
    if status == "done" and first:
        said["figures"]["size_bytes"] = float(target.size(configuration.runtime))
    if status != "done":
        said |= {"figures": {}, "by_batch": {}}
    return Measured(Trial(configuration, number, status, **{**said, **common}), devices)


def devices_of(runtime: str, home: Path) -> dict[str, list[str]]:
    """What a runtime has here, asked in a process of its own; nothing where it can't tell."""
    outcome = home / "devices.json"
    outcome.unlink(missing_ok=True)
    command = [*children.command(WORKER), "--devices", runtime, str(outcome)]
    log = home / "devices.log"
    processes.run(command, stdout=log, stderr=log, cwd=Path.cwd(), env=children.environment(), limit=LIMIT_SECONDS)
    return _said(outcome) or {}


def _said(outcome: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(outcome.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _ended(code: int, err: Path) -> str:
    from tenfold.comparison.child import ending, last_words

    return f"{last_words(err) or 'it said nothing'} ({ending(code)})"
