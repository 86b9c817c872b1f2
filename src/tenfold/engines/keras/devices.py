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
    """What ``auto`` means on a device: bf16 on a card, and on a CPU with AMX where the framework computes faster in it
    (quick's step of 500 images on two cores: TensorFlow 163 ms instead of 271, JAX no less); else fp32."""
    if wanted != "auto":
        return wanted
    if device.name != "cpu":
        return "bf16"
    return "bf16" if chosen().fast_bf16_on_cpu and "amx_bf16" in (hardware.cpu_flags() or ()) else "fp32"
