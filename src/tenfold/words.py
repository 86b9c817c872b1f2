"""Numbers in words, the same in the terminal and in reports."""

from __future__ import annotations

import math


def seconds(value: float) -> str:
    """0.034 → 34 ms, 4.21 → 4.2 s, 75 → 1 min 15 s, 5400 → 1 h 30 min."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def seconds_fine(value: float) -> str:
    """As :func:`seconds`, with three digits below a second: 0.0123 → 12.3 ms, 0.000045 → 45 µs."""
    if value >= 1:
        return seconds(value)
    if value >= 0.0995:
        return f"{1e3 * value:.0f} ms"
    return f"{1e3 * value:.3g} ms" if value >= 0.0009995 else f"{1e6 * value:.3g} µs"


def size(value: float | None) -> str:
    """A size in bytes with a decimal unit: 1,253 B, 12.3 kB, 4.1 GB."""
    if value is None:
        return "unknown"
    if value < 1000:
        return f"{value:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"
    raise AssertionError("unreachable")


def percent(fraction: float | None, digits: int = 2) -> str:
    return "–" if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.{digits}f} %"


def rate(value: float, unit: str = "images") -> str:
    """Throughput: 12,345 images/s."""
    return f"{value:,.0f} {unit}/s"


def count(number: int, word: str, words: str | None = None) -> str:
    """1 image, 2,000 images."""
    return f"{number:,} {word if number == 1 else words or word + 's'}"
