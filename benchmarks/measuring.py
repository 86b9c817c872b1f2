"""When the machine is idle enough to measure on it."""

from __future__ import annotations

import time
from collections.abc import Callable

from tenfold.processes import busy_share


def wait_until_idle(
    limit: float, longest: float, say: Callable[[str], None], window: float = 2.0
) -> tuple[float, float | None]:
    """Wait until less than ``limit`` of all cores is busy, looking at ``window`` seconds at a time.

    Returns the seconds waited beyond the first look and the share that was busy at the end (None: not known here).
    Raises TimeoutError after ``longest`` seconds.
    """
    started = time.perf_counter()
    told = -float("inf")
    while True:
        looked = time.perf_counter()
        share = busy_share(window)
        if share is None or share < limit:
            return looked - started, share
        waited = time.perf_counter() - started
        if waited > longest:
            raise TimeoutError(f"{share:.0%} of the cores were still busy after {waited:.0f} s")
        if waited - told >= 30:
            say(f"waiting: {share:.0%} of the cores are busy, {limit:.0%} is allowed")
            told = waited
