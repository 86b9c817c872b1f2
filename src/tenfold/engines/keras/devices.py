"""What this process can compute on, and in which precision."""

from __future__ import annotations

from tenfold import hardware
from tenfold.engines.base import Device
from tenfold.engines.keras.framework import chosen


def found() -> list[Device]:
    """The devices of this process, cpu last."""
    label = f"{hardware.cpu_name()}, {hardware.cores()} threads"
    return [*chosen().cards(), Device("cpu", label, hardware.memory_bytes())]


def precision(wanted: str, device: Device) -> str:
    """What ``auto`` means on a device: bf16 on a card, fp32 on a CPU."""
    if wanted != "auto":
        return wanted
    return "fp32" if device.name == "cpu" else "bf16"
