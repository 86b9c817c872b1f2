"""What this machine is and what the process has used: stands beside every figure."""

from __future__ import annotations

import functools
import math
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

_IMPORTED = time.time()


def process_started() -> float:
    """When this process was started, in seconds since the epoch: before Python's own start-up where the system tells
    (Linux), else when tenfold was imported."""
    try:
        stat = Path("/proc/self/stat").read_text()
        ticks = int(stat.rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        age = uptime - ticks / os.sysconf("SC_CLK_TCK")
        return min(time.time() - age, _IMPORTED)
    except (OSError, ValueError, IndexError):
        return _IMPORTED


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far, in bytes; 0 where the system doesn't tell.

    On Linux from /proc: getrusage's figure there is at least the parent's, which fork and exec hand down.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cores() -> int:
    """Processor cores this process may use: those it may run on, and no more than a container is given the time of."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = _quota(CGROUP)
    return allowed if given is None else max(1, min(allowed, math.ceil(given)))


# Where a container sees its own control group, in versions 2 and 1 of them.
CGROUP = Path("/sys/fs/cgroup")


def _quota(group: Path) -> float | None:
    """The time that a control group is given (``docker run --cpus``, Kubernetes' limits.cpu), in cores; None without a
    limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / name).read_text() for name in names).split()
            return int(quota) / int(period) if quota not in ("max", "-1") else None
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None


@functools.cache
def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str] | None:
    """The processor's instruction sets as Linux names them (``avx2``, ``amx_bf16``), None where the system doesn't
    tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(line[1].split()) if line else None


def memory_bytes() -> int | None:
    """The machine's memory in bytes, None where the system doesn't tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the given packages that are installed, without importing them."""
    import importlib.metadata  # brings the email package along, a tenth of predict's start

    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """The machine in plain JSON: system, processor, cores, memory."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_bytes": memory_bytes(),
    }
