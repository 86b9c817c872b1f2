"""An engine's training steps timed in a process of its own: begun, and what it wrote understood."""

from __future__ import annotations

import datetime
import json
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tenfold import children, processes
from tenfold.benchmarking.records import Configuration, Subject, Trial
from tenfold.benchmarking.training_worker import Job
from tenfold.comparison.records import price_of

WORKER = "tenfold.benchmarking.training_worker"
EACH = 90.0  # seconds after which a process begins no batch size
LIMIT_SECONDS = 1800.0  # a process that takes longer is ended


@dataclass(frozen=True)
class Asked:
    """What all processes of a benchmark have in common; ``home`` is a folder for their files."""

    data: str
    recipe: Path
    batch_sizes: Sequence[int]
    seconds: float
    price: float | Mapping[str, float] | None
    home: Path

    def job(self, engine: str, device: str = "auto", precision: str = "fp32", *, list_devices: bool = False) -> Job:
        return Job(
            data=self.data,
            recipe=str(self.recipe),
            engine=engine,
            device=device,
            precision=precision,
            batch_sizes=list(self.batch_sizes),
            seconds=self.seconds,
            limit=EACH,
            started=time.time(),
            outcome=str(self.home / "outcome.json"),
            list_devices=list_devices,
        )


def devices_of(engine: str, asked: Asked) -> tuple[dict[str, list[str]], str | None]:
    """Each device of an engine with [its label, its precisions …]; or why it tells none."""
    said, why, _ = _ask(asked.job(engine, list_devices=True), asked.home)
    found = said["devices"] if said else {}
    return found, None if found else (said or {}).get("why") or why or "it has no devices"


def measure(configuration: Configuration, turn: int, asked: Asked) -> tuple[Trial, Subject | None]:
    """What the process of a configuration measured, and what it trained. Never raises for what happens in it."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    job = asked.job(configuration.runtime, configuration.device, configuration.precision)
    said, why, cost = _ask(job, asked.home)
    return understood(said, why, configuration, turn, asked.price, now, cost)


def _ask(job: Job, home: Path) -> tuple[dict[str, Any] | None, str | None, processes.Cost]:
    """What the process of a job wrote; in words how it ended, where that was not by itself; and what it cost."""
    from tenfold.comparison.child import ending, last_words

    outcome, file = Path(job.outcome), home / "job.json"
    outcome.unlink(missing_ok=True)
    file.write_text(json.dumps(asdict(job)), encoding="utf-8")
    environment = {**children.environment(), "PYTHONFAULTHANDLER": "", "PYTHONIOENCODING": "utf-8"}
    command = [*children.command(WORKER), str(file)]
    out, err = home / "out.log", home / "err.log"
    cost = processes.run(command, stdout=out, stderr=err, cwd=Path.cwd(), env=environment, limit=LIMIT_SECONDS)
    try:
        said = json.loads(outcome.read_bytes())
    except (OSError, ValueError):
        said = None
    if cost.exit_code == 0 and said is not None:
        return said, None, cost
    if cost.timed_out:
        return said, f"it took longer than {LIMIT_SECONDS / 60:.0f} minutes", cost
    if cost.exit_code == -signal.SIGKILL:
        return said, f"its process was {ending(cost.exit_code)}", cost
    return said, f"{last_words(err) or 'it said nothing'} ({ending(cost.exit_code)})", cost


def understood(
    said: dict[str, Any] | None,
    why: str | None,
    configuration: Configuration,
    turn: int,
    price: float | Mapping[str, float] | None,
    now: str,
    cost: processes.Cost,
) -> tuple[Trial, Subject | None]:
    """A process's outcome as a trial. What was measured before a process was ended counts: that a batch was too large
    is told, and is no failure."""
    common: dict[str, Any] = {
        "started": now,
        "seconds": round(cost.seconds, 3),
        "others_cores": cost.others_cores,
        "steal_share": cost.steal_share,
    }
    if said is None:
        return Trial(configuration, turn, "failed", why, **common), None
    notes, trying = list(said["notes"]), said["trying"]
    status = said["state"]
    if status == "running":  # it was ended
        if not said["by_batch"]:
            return Trial(configuration, turn, "failed", why, **common), None
        status = "done"
        notes.append(f"A batch of {trying} ended the process: {why}.")
    if status != "done":
        return Trial(configuration, turn, status, said["why"] or why, **common), None
    a_second = (price_of(configuration.device, said["ran_on"], price) or 0.0) / 3600
    by_batch = {
        size: {**figures, **({"cost": 1e6 / figures["images_per_second"] * a_second} if a_second else {})}
        for size, figures in said["by_batch"].items()
    }
    subject = Subject(**said["subject"]) if said["subject"] else None
    trial = Trial(
        configuration, turn, "done", ran_on=said["ran_on"], device_label=said["device_label"], figures=said["figures"],
        by_batch=by_batch, versions=said["versions"], notes=[f"{configuration}: {note}" for note in notes if note],
        **common,
    )  # fmt: skip
    return trial, subject


# ---- what it comes to ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpeedUp:
    """How many times as many images a second an engine trains on ``device`` as on the CPU, each in its best batch size
    and precision."""

    engine: str
    device: str
    device_label: str | None
    times: float

    def __str__(self) -> str:
        where = f"{self.device} ({self.device_label})" if self.device_label else self.device
        return f"{self.engine} trains {self.times:.3g} times as fast on {where} as on the CPU."


def speed_ups(trials: Sequence[Trial]) -> list[SpeedUp]:
    """Of every engine that was measured on the CPU and on something else."""
    best: dict[tuple[str, str], float] = {}
    label: dict[str, str | None] = {}
    for configuration in dict.fromkeys(t.configuration for t in trials if t.status == "done"):
        own = [t for t in trials if t.configuration == configuration and t.status == "done"]
        for size in {size for t in own for size in t.by_batch}:
            rate = statistics.median(t.by_batch[size]["images_per_second"] for t in own if size in t.by_batch)
            key = configuration.runtime, own[0].ran_on or configuration.device
            best[key] = max(best.get(key, 0.0), rate)
            label[key[1]] = own[0].device_label
    return [
        SpeedUp(engine, device, label[device], rate / best[engine, "cpu"])
        for (engine, device), rate in best.items()
        if device != "cpu" and best.get((engine, "cpu"))
    ]


def energy_notes(trials: Sequence[Trial]) -> list[str]:
    told = {t.ran_on == "cpu" for t in trials for figures in t.by_batch.values() if "energy_wh" in figures}
    found = []
    if True in told:
        found.append("Energy on the CPU is all that its packages used (RAPL), other programs' work included.")
    if False in told:
        found.append("Energy on a card is all that the card used (NVML), without the rest of the machine.")
    return found
