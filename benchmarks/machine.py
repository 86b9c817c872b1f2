"""What this machine is: stands beside every figure of a race."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path
from typing import Any

from tenfold import hardware

ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, Any]:
    """Processor, cores, memory, GPUs, whether it is virtual, system: plain JSON."""
    return {**hardware.describe(), "gpus": gpus(), "virtual": virtual()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether figures taken on the two may stand in one table."""
    return all(one.get(key) == other.get(key) for key in ("cpu", "cores", "gpus", "virtual"))


def virtual() -> bool | None:
    """Whether a hypervisor runs below this system; None where it does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.startswith("flags")), None)
    return None if flags is None else "hypervisor" in flags.split()


def gpus() -> list[str]:
    """Names and driver of the NVIDIA cards; empty without a driver."""
    return _lines(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])


def commit() -> str | None:
    """The checkout's commit, with ``+`` where files are changed; None outside a checkout."""
    found = _lines(["git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD"])
    if not found:
        return None
    changed = _lines(
        ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks"]
    )
    mine = [line for line in changed if "benchmarks/results/" not in line]  # the race's own results
    return found[0] + ("+" if mine else "")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _lines(command: list[str]) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []
