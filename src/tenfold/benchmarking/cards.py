"""NVIDIA's cards by NVML (package nvidia-ml-py, extra ``nvml``): their names, and the memory that this process has."""

from __future__ import annotations

import os
from typing import Any


def _nvml() -> Any | None:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # the package, the library or the driver is missing; either way there is nothing to read
        return None
    return pynvml


def name(index: int) -> str | None:
    """The name of the card ``index``; None where nothing tells."""
    nvml = _nvml()
    try:
        found = nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(index)) if nvml else None
    except Exception:  # NVML's errors are made at run time
        return None
    return found.decode() if isinstance(found, bytes) else found


def memory_bytes() -> int | None:
    """Bytes that this process has taken of all cards, the runtime's own included; None where nothing tells, as in a
    container that has process numbers of its own."""
    nvml = _nvml()
    if nvml is None:
        return None
    total = 0
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            total += sum(p.usedGpuMemory or 0 for p in running if p.pid == os.getpid())
    except Exception:
        return None
    return total or None
