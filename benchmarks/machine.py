"""What this machine is: stands beside every figure of a race."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, Any]:
    """Processor, cores, memory, GPUs, whether it is virtual, system: plain JSON."""
    return {
        "cpu": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "virtual": virtual(),
        "system": f"{platform.system()} {platform.release()}",
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether figures taken on the two may stand in one table."""
    return all(one.get(key) == other.get(key) for key in ("cpu", "cores", "gpus", "virtual"))


def _cpuinfo(key: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def virtual() -> bool | None:
    """Whether a hypervisor runs below this system; None where it does not tell."""
    flags = _cpuinfo("flags")
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
