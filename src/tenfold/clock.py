"""Wall-clock time of a training by its phases, and who is told when one begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tenfold.data.progress import Progress
from tenfold.engines.base import Event

PHASES = ("import", "data", "setup", "train", "evaluate", "save")


@dataclass(frozen=True)
class Phase:
    """A part of the work begins; ``name`` is one of PHASES."""

    name: str


Listen = Callable[[Event | Progress | Phase], None]


class Clock:
    """Seconds by phase without a gap between them, so that they add up to the total. ``since`` is ``time.time()`` when
    the caller's wait began; the first phase, import, runs from there."""

    def __init__(self, since: float, listen: Listen) -> None:
        self.listen = listen
        self._since = self._last = since
        self._name = PHASES[0]
        self._seconds = dict.fromkeys(PHASES, 0.0)
        listen(Phase(self._name))

    def phase(self, name: str) -> None:
        now = time.time()
        self._seconds[self._name] += now - self._last
        self._last, self._name = now, name
        self.listen(Phase(name))

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase so far, and ``total``."""
        now = time.time()
        found = dict(self._seconds)
        found[self._name] += now - self._last
        return {**found, "total": now - self._since}
