"""The arithmetic of a load: when requests are due, which share is answered within what, what hides in it.

**Coordinated omission** (G. Tene, "How NOT to Measure Latency", 2015): a client that sends its next request only when
the last is answered sends none while the server stalls, and so one stall is one slow request of thousands. Users come
all the same. An open loop's requests are due at times that were drawn before, and a latency counts from the time at
which its request was *due*: waiting for a free connection, or for the client itself, is part of it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

PERCENTILES = (50, 90, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of ``ordered`` (ascending, not empty) that at least ``percent`` % of them don't exceed."""
    if not ordered:
        raise ValueError("no values, no percentile")
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests are due, in seconds from the start: a Poisson process of ``rate`` a second, the same for a seed."""
    rng = random.Random(seed)
    due, at = [], rng.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += rng.expovariate(rate)
    return due


class Tally:
    """Outcomes of requests. ``due`` and ``done`` are times of one clock in seconds."""

    def __init__(self, window_ends: float = math.inf) -> None:
        self.window_ends = window_ends
        self.by_status: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.wrong = 0
        self.in_window = 0
        self._latencies: list[float] = []

    def answered(self, status: int, due: float, done: float) -> None:
        """A reply. Of those with 200 the latency counts: a refusal may be quick, and would make the others look so."""
        self.by_status[status] += 1
        if status == 200:
            self._latencies.append(done - due)
            self.in_window += done <= self.window_ends

    def failed(self, why: str) -> None:
        self.errors[why] += 1

    def unanswered(self, due: float, now: float) -> None:
        """A request that has no reply at the end: its latency is at least what it has waited, and counts as that."""
        self.errors["unanswered"] += 1
        self._latencies.append(now - due)

    def figures(self, seconds: float) -> dict[str, Any]:
        """What a load of ``seconds`` came to; latencies in milliseconds, None where there was no answer."""
        ordered = sorted(self._latencies)
        ms = {f"p{p}": _ms(percentile(ordered, p)) if ordered else None for p in PERCENTILES}
        requests = sum(self.by_status.values()) + sum(self.errors.values())
        return {
            "requests": requests,
            "ok": self.by_status[200],
            "wrong": self.wrong,
            "by_status": {str(status): n for status, n in sorted(self.by_status.items())},
            "errors": dict(sorted(self.errors.items())),
            "in_window": self.in_window,
            "requests_per_second": self.in_window / seconds,
            "latency_ms": {**ms, "max": _ms(ordered[-1]) if ordered else None},
        }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def kept_up(figures: dict[str, Any]) -> bool:
    """Whether a server answered a load of a fixed rate: 99 % of the requests rightly, so many of them within a second,
    and 95 % before the load's end. Above what a server can do its queue grows as long as the load lasts; a short load
    may end before that takes a second, but then much is left to do."""
    p99, requests = figures["latency_ms"]["p99"], figures["requests"]
    if p99 is None or p99 > 1000:
        return False
    return figures["ok"] - figures["wrong"] >= 0.99 * requests and figures["in_window"] >= 0.95 * requests
