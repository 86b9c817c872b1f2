"""What the hardware says it has used: NVIDIA cards by NVML (package nvidia-ml-py, extra ``nvml``), processors by RAPL.

Both count up by themselves, so a reading before some work and one after it tell all that was used in between.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
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


# ---- processors ------------------------------------------------------------------------------------------------------

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Package:
    """A processor's counter (RAPL's domain ``package-N``): microjoules, which begin again at 0 after ``range``."""

    microjoules: int
    range: int


def packages() -> dict[str, Package]:
    """Every processor's counter, by its folder's name; nothing where there are none, or where they may not be read (on
    most systems root alone may: they tell other programs' secrets).

    Intel's processors since 2011, and AMD's since Zen by the same interface of Linux.
    """
    found = {}
    try:
        folders = sorted(POWERCAP.glob("intel-rapl:*"))
    except OSError:
        return {}
    for folder in folders:
        try:
            if re.fullmatch(r"intel-rapl:\d+", folder.name) and (folder / "name").read_text().startswith("package"):
                used, whole = ((folder / n).read_text() for n in ("energy_uj", "max_energy_range_uj"))
                found[folder.name] = Package(int(used), int(whole))
        except (OSError, ValueError):
            continue
    return found


def packages_wh(before: Mapping[str, Package], after: Mapping[str, Package]) -> float | None:
    """Watt-hours that all processors used between two readings, at most once round the counter apart; None where
    nothing was read. All of each: what it takes when idle, and what other programs did on it meanwhile."""
    if not after or before.keys() != after.keys():
        return None
    used = sum((after[name].microjoules - before[name].microjoules) % max(after[name].range, 1) for name in after)
    return used / 1e6 / JOULES_PER_WH
