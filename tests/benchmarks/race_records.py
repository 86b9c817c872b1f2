"""Records of two contestants, as race.py stores them."""

from __future__ import annotations

from typing import Any


def record(name: str, seed: int, accuracy: float | None, seconds: float, **more: Any) -> dict[str, Any]:
    fixed = {
        "contestant": name,
        "seed": seed,
        "accuracy": accuracy,
        "seconds": seconds,
        "parts": {"train": seconds / 2},
    }
    blank = {"exit_code": 0, "tree_bytes": 5, "process_bytes": 7, "versions": {}, "command": name, "why": None}
    return {**fixed, **blank, **more}


OWN = [record("own", s, a, t) for s, (a, t) in enumerate([(0.90, 10.0), (0.92, 12.0), (0.94, 20.0)])]
OTHER = [record("other", 0, 0.91, 100.0, best_accuracy=0.915), record("other", 1, 0.89, 144.0, best_accuracy=0.90)]
