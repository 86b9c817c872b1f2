"""What NVIDIA cards have used, from the counter of energy in each (NVML; package nvidia-ml-py, extra ``nvml``).

The counter adds up by itself, so a reading before a run and one after it tell all that was used in between.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JOULES_PER_WH = 3600.0


@dataclass(frozen=True)
class Reading:
    """A card's name and joules since its driver was loaded; ``uuid`` is its own for ever."""

    name: str
    uuid: str
    joules: float


Meter = Callable[[], dict[int, Reading]]


def meter() -> Meter | None:
    """A function that reads every card by NVML's index; None where there is no package, driver or counter."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # the package is missing, or its library; either way there is nothing to read
        return None

    def read() -> dict[int, Reading]:
        found = {}
        try:
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:
            return {}
        for index in range(count):
            try:
                found[index] = _read(pynvml, index)
            except pynvml.NVMLError:  # cards before Volta have no counter
                continue
        return found

    return read if read() else None


def _read(nvml: Any, index: int) -> Reading:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return Reading(_text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle)), millijoules / 1000)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def used_wh(before: Mapping[int, Reading], after: Mapping[int, Reading], ran_on: str | None) -> float | None:
    """Watt-hours that the card called ``ran_on`` (``cuda:0``) used between two readings; None where it isn't known.

    All of the card: what it takes when idle, and what other programs did on it meanwhile.
    """
    index = card(ran_on, after, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if index is None or index not in before or before[index].uuid != after[index].uuid:
        return None
    joules = after[index].joules - before[index].joules
    return joules / JOULES_PER_WH if joules >= 0 else None  # below 0: the driver was loaded anew


def card(ran_on: str | None, cards: Mapping[int, Reading], visible: str | None) -> int | None:
    """NVML's index of a device called ``cuda:N``, by CUDA_VISIBLE_DEVICES where that is set."""
    kind, _, number = (ran_on or "").partition(":")
    if kind not in ("cuda", "gpu") or not (number or "0").isdigit():
        return None
    n = int(number or 0)
    if visible is None:
        return n if n in cards else None
    shown = [word.strip() for word in visible.split(",") if word.strip()]
    if n >= len(shown):
        return None
    word = shown[n]
    if word.isdigit():
        return int(word) if int(word) in cards else None
    return next((i for i, reading in cards.items() if reading.uuid.startswith(word)), None)
