"""From the runs of a race to its summary: plain arithmetic on records, no measuring."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """The records of a JSON-lines file; a last line that was cut off by a crash is removed from the file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole, _, rest = text.rpartition("\n")
    if rest:
        path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def succeeded(records: Iterable[Record]) -> list[Record]:
    return [r for r in records if r["exit_code"] == 0 and r.get("accuracy") is not None]


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, median, lowest, highest and standard deviation (of a sample; 0 for one value); None for no value."""
    if not values:
        return None
    return {
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


def figures(name: str, label: str, records: Sequence[Record], targets: Sequence[float]) -> dict[str, Any]:
    """What the runs of one contestant come to. Failed runs are counted and listed, and enter no figure."""
    runs = succeeded(records)
    failed = [r for r in records if r not in runs]

    def column(key: str) -> list[float]:
        return [r[key] for r in runs if r.get(key) is not None]

    accuracies = column("accuracy")
    parts = sorted({part for r in runs for part in r["parts"]})
    peak = [max(v for v in (r["tree_bytes"], r["process_bytes"]) if v is not None) for r in runs]
    return {
        "name": name,
        "label": label,
        "n": len(runs),
        "failed": [{"seed": r["seed"], "exit_code": r["exit_code"], "why": r.get("why")} for r in failed],
        "accuracy": spread(accuracies),
        "accuracy_without_tta": spread(column("accuracy_without_tta")),
        "accuracy_with_tta": spread(column("accuracy_with_tta")),
        # the most favourable reading of a program that looks at the test images after every epoch
        "best_accuracy": max((r.get("best_accuracy") or r["accuracy"] for r in runs), default=None),
        "seconds": spread(column("seconds")),
        "parts": {part: spread([r["parts"][part] for r in runs if part in r["parts"]]) for part in parts},
        "targets": {f"{t:g}": sum(a >= t for a in accuracies) / len(runs) if runs else None for t in targets},
        "peak_memory_bytes": max(peak, default=None),
        "peak_process_bytes": max(column("process_bytes"), default=None),
        "peak_device_bytes": max(column("device_bytes"), default=None),
        "steal_share": max(column("steal_share"), default=None),
        "others_cores": max(column("others_cores"), default=None),
        "versions": runs[-1]["versions"] if runs else {},
        "command": runs[-1]["command"] if runs else None,
    }


def compare(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any] | None:
    """``own`` against the reference ``other``, both from figures(); None where one of them has no run.

    ``times_faster`` is the quotient of the median whole times, ``at_least`` and ``at_most`` the quotients of the
    extremes. Accuracy is held against the reference's best: its best epoch of its best run, where it tells one.
    """
    if not own["n"] or not other["n"]:
        return None
    best = other["best_accuracy"]
    return {
        "contestant": own["name"],
        "reference": other["name"],
        "times_faster": other["seconds"]["median"] / own["seconds"]["median"],
        "times_faster_at_least": other["seconds"]["min"] / own["seconds"]["max"],
        "times_faster_at_most": other["seconds"]["max"] / own["seconds"]["min"],
        "reference_best_accuracy": best,
        "mean_is_at_least_best": own["accuracy"]["mean"] >= best,
        "lowest_is_at_least_best": own["accuracy"]["min"] >= best,
    }


def summarise(
    entries: Sequence[tuple[str, str]],
    records: Sequence[Record],
    targets: Sequence[float],
    references: Sequence[str],
) -> dict[str, Any]:
    """``entries`` are name and label in the order of the race; the contestants' figures and who beats whom by what."""
    found = [figures(n, label, [r for r in records if r["contestant"] == n], targets) for n, label in entries]
    by_name = {f["name"]: f for f in found}
    pairs = [
        compare(own, by_name[reference])
        for reference in references
        for own in found
        if reference in by_name and own["name"] not in references
    ]
    return {"contestants": found, "comparisons": [pair for pair in pairs if pair]}
