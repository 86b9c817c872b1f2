"""Where the time of a recording went: the device computed, its pictures were waited for, the host was busy, nobody was.

On a device with a clock of its own each moment of the wall's time is one of the four: the device computes; or else the
host is at the data; or else it runs Python and launches; or else it waits for a device that does nothing.

Where the CPU is the device, the time of the thread that takes the steps is divided: in an operation, at the data, or in
Python between the operations. While it waits for threads that compute a part of the batch each, it is their time that
is divided, each counting by its share: in an operation, in Python, or waiting for the others. Threads inside an
operation (OpenMP's) are not looked at: an operation takes the time that its caller waits for it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tenfold.engines.recording import Recording, Span
from tenfold.profiling.kinds import DATA, kind

Intervals = list[tuple[float, float]]


@dataclass(frozen=True)
class Split:
    """Seconds of the wall a step; they add up to the step's time. ``kinds``: what ``device`` (and, where the CPU is the
    device, the operations under ``data``) consists of, the largest first."""

    data: float
    host: float
    device: float
    idle: float
    kinds: dict[str, float]

    @property
    def total(self) -> float:
        return self.data + self.host + self.device + self.idle


@dataclass(frozen=True)
class Operation:
    """What the operations of one name took a step, in their own code; ``calls`` a step."""

    name: str
    kind: str
    seconds: float
    calls: float


def split(recording: Recording) -> Split:
    parts = _separate(recording) if recording.separate else _threads(recording)
    data, host, device, idle = (value / recording.steps for value in parts)
    return Split(data, host, device, idle, _by_kind(recording))


def operations(recording: Recording) -> list[Operation]:
    """By name, the largest first; in the device's time, or on a CPU in that of the computing threads."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    calls: Counter[tuple[str, str]] = Counter()
    for span, seconds in _spent(recording):
        key = span.name, kind(span.name, span.callers)
        spent[key] += seconds
        calls[key] += 1
    return [
        Operation(name, of, seconds / recording.steps, calls[name, of] / recording.steps)
        for (name, of), seconds in sorted(spent.items(), key=_largest)
    ]


def _largest(pair: tuple[object, float]) -> float:
    return -pair[1]


def _weight(span: Span, recording: Recording) -> float:
    """What a second in the span is of a second of the wall."""
    if recording.separate or span.lane == recording.host:
        return 1.0
    return 1.0 / max(1, len(recording.computing))


def _spent(recording: Recording) -> Iterable[tuple[Span, float]]:
    """Each operation with its own seconds of the wall: on the device where that has a clock, else on its thread."""
    for span in recording.spans:
        if span.kind != "operation" or _feeds(span, recording):
            continue
        seconds = span.device if recording.separate else span.own * _weight(span, recording)
        if seconds > 0:
            yield span, seconds


def _feeds(span: Span, recording: Recording) -> bool:
    """Whether it belongs to a thread beside the step, which reads ahead."""
    return not recording.separate and span.lane != recording.host and span.lane not in recording.computing


def _by_kind(recording: Recording) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)
    for span, seconds in _spent(recording):
        spent[kind(span.name, span.callers)] += seconds
    spent.pop(DATA, None)  # told as a whole
    return {name: seconds / recording.steps for name, seconds in sorted(spent.items(), key=_largest)}


# ---- the CPU is the device ---------------------------------------------------------------------------------------


def _threads(recording: Recording) -> tuple[float, float, float, float]:
    """(data, host, device, idle) of the wall, over all steps."""
    data = device = occupied = waiting = 0.0
    for span in recording.spans:
        if _feeds(span, recording):
            continue
        weight = _weight(span, recording)
        inside_data = "data" in span.callers
        if span.kind == "operation":
            device += 0.0 if inside_data else span.own * weight
        elif span.name == "data" and not inside_data:
            data += span.seconds * weight
        elif span.name in ("step", "share") and not set(span.callers) & {"step", "share"}:
            occupied += span.seconds * weight
        elif span.name == "wait" and "step" in span.callers:
            waiting += span.seconds
    host = max(0.0, occupied - waiting - data - device)
    idle = max(0.0, recording.seconds - data - device - host)
    scale = recording.seconds / max(data + device + host + idle, 1e-12)
    return data * scale, host * scale, device * scale, idle * scale


# ---- a device with a clock of its own -------------------------------------------------------------------------------


def _separate(recording: Recording) -> tuple[float, float, float, float]:
    """(data, host, device, idle) of the wall, over all steps."""
    parts = [s for s in recording.spans if s.kind == "part" and s.lane == recording.host]
    start = min((s.start for s in parts), default=0.0)
    wall = [(start, start + recording.seconds)]
    busy = common(union((s.start, s.end) for s in recording.spans if s.kind == "kernel"), wall)
    quiet = without(wall, busy)
    reading = union((s.start, s.end) for s in parts if s.name == "data")
    data = common(quiet, reading)
    waiting = union([*((s.start, s.end) for s in parts if s.name == "wait"), *_synchronizing(recording)])
    working = without(union((s.start, s.end) for s in parts if s.name == "step"), waiting)
    host = common(without(quiet, reading), working)
    rest = length(quiet) - length(data) - length(host)
    return length(data), length(host), length(busy), max(0.0, rest)


def _synchronizing(recording: Recording) -> Intervals:
    """When the host waits in the driver: ``cudaStreamSynchronize`` and its kin."""
    return [(s.start, s.end) for s in recording.spans if s.kind == "operation" and "ynchronize" in s.name]


def union(intervals: Iterable[tuple[float, float]]) -> Intervals:
    """Sorted, disjoint intervals that cover the same times."""
    found: Intervals = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        elif end > start:
            found.append((start, end))
    return found


def common(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> Intervals:
    """What two lists of sorted, disjoint intervals both cover."""
    found: Intervals = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            found.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return found


def without(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> Intervals:
    """What ``a`` covers and ``b`` doesn't; both sorted and disjoint."""
    found: Intervals = []
    for start, end in a:
        at = start
        for left, right in b:
            if right <= at or left >= end:
                continue
            if left > at:
                found.append((at, left))
            at = max(at, right)
        if at < end:
            found.append((at, end))
    return found


def length(intervals: Iterable[tuple[float, float]]) -> float:
    return sum(end - start for start, end in intervals)
