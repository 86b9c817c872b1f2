"""Time left and durations: how fast work goes lately, and seconds in few cells."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 45.0  # the time left is judged by the pace over this long
SPACING_SECONDS = 0.25  # between two remembered points
SEEN_SECONDS = 1.0  # of work before the time left is guessed


@dataclass
class Pace:
    """Where some work stood over the last WINDOW_SECONDS."""

    points: deque[tuple[float, float]] = field(default_factory=deque)

    def at(self, now: float, done: float) -> None:
        """``done`` units are done at ``now`` (monotonic seconds)."""
        points = self.points
        if len(points) >= 2 and now - points[-2][0] < SPACING_SECONDS:
            points.pop()
        points.append((now, done))
        while len(points) > 2 and now - points[1][0] > WINDOW_SECONDS:
            points.popleft()

    def seconds_left(self, total: float, now: float) -> float | None:
        """Until ``total`` is done, counted down from the last point; None before there is a pace."""
        if len(self.points) < 2:
            return None
        (since, first), (last, done) = self.points[0], self.points[-1]
        if done <= first or last - since < SEEN_SECONDS:
            return None
        return max((total - done) * (last - since) / (done - first) - (now - last), 0.0)


def clock(value: float) -> str:
    """A duration in few cells: 1.9 s, 42 s, 1:23, 2:03:04."""
    value = max(value, 0.0)
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
