"""What was seen of some steps: who did what from when to when, whichever profiler saw it.

An engine that has a profiler makes a Recording of what that tells (``engines/torch/profile.py``). For the others
:func:`by_clock` records the step's parts and nothing inside them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tenfold.engines import parts

Kind = Literal["part", "operation", "kernel"]


@dataclass(frozen=True)
class Span:
    """Something that took time. All times in seconds; ``start`` and ``end`` from one zero for all of a recording.

    kind     ``part`` (see ``engines/parts.py``), ``operation`` (of the host's threads) or ``kernel`` (of a device that
             has a clock of its own)
    lane     the thread, or the device's queue, that it was in
    own      spent in it and in no other span that it called
    device   what its own kernels took on the device; 0 where the device is the CPU
    callers  the names of the spans around it in its lane, from the innermost out
    """

    kind: Kind
    name: str
    lane: str
    start: float
    end: float
    own: float
    device: float = 0.0
    callers: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Recording:
    """``steps`` steps that took ``seconds`` from before the first until the device had done the last.

    profiler    what recorded it, for people: ``PyTorch's profiler``
    inside      whether there are spans for the operations inside a step, or for its parts alone
    separate    whether the device has a clock of its own, so that it can be busy while the host does something else
    host        the lane that takes the steps
    computing   the lanes that compute, where the device is the CPU
    export      writes a Chrome trace with more than the spans hold, into a .json.gz; None where there is no more
    """

    steps: int
    seconds: float
    spans: tuple[Span, ...]
    profiler: str
    inside: bool
    separate: bool
    host: str
    computing: tuple[str, ...]
    export: Callable[[Path], None] | None = field(default=None, compare=False)


HOST = "host"


class Clock:
    """Records parts by the host's clock, in every thread. ``take`` is a listener for :func:`parts.heard`."""

    def __init__(self) -> None:
        self.zero = time.perf_counter()
        self.main = threading.get_ident()
        self.spans: list[Span] = []
        self._open = threading.local()

    @contextlib.contextmanager
    def take(self, name: str) -> Iterator[None]:
        stack: list[list[float | str]] = self._open.__dict__.setdefault("stack", [])
        callers = tuple(str(entry[0]) for entry in reversed(stack))
        entry: list[float | str] = [name, 0.0]
        stack.append(entry)
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            stack.pop()
            inner = float(entry[1])
            if stack:
                stack[-1][1] = float(stack[-1][1]) + end - start
            thread = threading.current_thread()
            lane = HOST if thread.ident == self.main else thread.name
            # a compiled step is all that there is to know of what the device does
            kind: Kind = "operation" if name == "compute" else "part"
            shown = "compiled step" if name == "compute" else name
            own = end - start - inner
            self.spans.append(Span(kind, shown, lane, start - self.zero, end - self.zero, own, 0.0, callers))


def by_clock(take: Callable[[], None], wait: Callable[[], object], steps: int) -> Recording:
    """``steps`` calls of ``take``, each waited for, as the host's clock sees them."""
    clock = Clock()
    with parts.heard(clock.take):
        start = time.perf_counter()
        for _ in range(steps):
            with parts.named("step"):
                take()
                with parts.named("compute"):  # sent before, computed now
                    wait()
        seconds = time.perf_counter() - start
    return Recording(steps, seconds, tuple(clock.spans), "the host's clock", False, False, HOST, (HOST,))


def chrome(spans: Iterable[Span], about: str) -> str:
    """A Chrome trace of spans, in JSON: what chrome://tracing and ui.perfetto.dev open."""
    spans = list(spans)
    lanes = {lane: number for number, lane in enumerate(dict.fromkeys(s.lane for s in spans))}
    events: list[dict[str, object]] = [{"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": about}}]
    events += [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": number, "args": {"name": lane}}
        for lane, number in lanes.items()
    ]
    events += [
        {
            "ph": "X", "name": s.name, "cat": s.kind, "pid": 0, "tid": lanes[s.lane],
            "ts": round(1e6 * s.start, 3), "dur": round(1e6 * s.seconds, 3),
        }
        for s in sorted(spans, key=lambda s: (s.start, -s.end))
    ]  # fmt: skip
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events})
