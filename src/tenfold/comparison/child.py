"""One training as a process of its own, by the real command line: started, measured, and what it said understood."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tenfold import energy, processes
from tenfold import run as runs
from tenfold.comparison.records import Contestant, Trial

LOGS = "logs"


@dataclass(frozen=True)
class Child:
    """A training to be run; ``data`` as the command line takes it, ``home`` the comparison's folder."""

    contestant: Contestant
    seed: int
    data: str
    recipe: Path
    home: Path

    @property
    def name(self) -> str:
        """Of its folder and its logs."""
        return f"{self.contestant.engine}-{self.contestant.device}-{self.seed}".replace(":", "-").replace("/", "-")

    @property
    def arguments(self) -> list[str]:
        options = {
            "--engine": self.contestant.engine,
            "--device": self.contestant.device,
            "--recipe": str(self.recipe),
            "--seed": str(self.seed),
            "--out": str(self.home / self.name),
        }
        return ["train", "--json", *(word for pair in options.items() for word in pair), "--", self.data]


def run(child: Child, meter: energy.Meter | None = None) -> Trial:
    """Runs it to its end. What an earlier, broken-off run left in its folder is removed first, as is what this one
    leaves when it is interrupted: its time would be of two processes.

    Never raises for what happens in the child; KeyboardInterrupt ends it and goes on.
    """
    folder, logs = child.home / child.name, child.home / LOGS
    shutil.rmtree(folder, ignore_errors=True)
    logs.mkdir(exist_ok=True)
    out, err = logs / f"{child.name}.json", logs / f"{child.name}.log"
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    command = [sys.executable, "-m", "tenfold", *child.arguments]
    before = meter() if meter else {}
    try:
        cost = processes.run(command, stdout=out, stderr=err, cwd=Path.cwd(), env=dict(os.environ))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    after = meter() if meter else {}
    said = _said(out)
    status, why = _verdict(cost.exit_code, said, err)
    figures = _figures(said, folder) if status == "done" else {}
    memory = [b for b in (cost.tree_bytes, cost.process_bytes) if b]
    return Trial(
        engine=child.contestant.engine,
        device=child.contestant.device,
        seed=child.seed,
        status=status,
        why=why,
        exit_code=cost.exit_code,
        started=started,
        seconds=round(cost.seconds, 3),
        folder=child.name,
        command=shlex.join(["tenfold", *child.arguments]),
        memory_bytes=max(memory, default=None),
        energy_wh=energy.used_wh(before, after, figures.get("ran_on")) if meter else None,
        cpu_seconds=cost.cpu_seconds,
        others_cores=cost.others_cores,
        steal_share=cost.steal_share,
        **figures,
    )


def _said(out: Path) -> dict[str, Any]:
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _verdict(code: int, said: Mapping[str, Any], err: Path) -> tuple[Literal["done", "refused", "failed"], str | None]:
    if code == 0 and "seconds" in said:
        return "done", None
    error = said.get("error")
    if isinstance(error, dict):
        words = " ".join(str(error[key]) for key in ("message", "hint") if error.get(key))
    else:
        words = last_words(err)
    if code == 2:
        return "refused", words or "the call was refused"
    return "failed", f"{words or 'it said nothing'} ({ending(code)})"


def ending(code: int) -> str:
    if code == 0:
        return "exit code 0, but no figures"
    if code > 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return "ended by the signal SIGKILL, as when memory runs out" if name == "SIGKILL" else f"ended by signal {name}"


def last_words(err: Path) -> str:
    try:
        lines = err.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _figures(said: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A Trial's fields from what ``train --json`` printed and what its run.json knows of device and versions."""
    test = said.get("test") or {}
    try:
        record = json.loads((folder / runs.RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = {}
    return {
        "ran_on": said.get("device"),
        "device_label": record.get("hardware", {}).get("device"),
        "precision": said.get("precision"),
        "accuracy": test.get("accuracy"),
        "accuracy_with_tta": test.get("accuracy_with_tta"),
        "test_images": test.get("n"),
        "parts": said["seconds"],
        "images_per_second": said.get("images_per_second"),
        "device_memory_bytes": said.get("device_memory_bytes"),
        "versions": record.get("versions", {}),
        "notes": said.get("notes", []),
    }
