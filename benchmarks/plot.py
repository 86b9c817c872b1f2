"""The picture of a race: test accuracy against the seconds of the whole process, one point a run.

python benchmarks/plot.py benchmarks/results/cpu.json        → docs/images/race-cpu.svg and .png
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
# Middle tones, each with a contrast of at least 3 on white and on GitHub's dark grey alike; the page shows through.
COLOURS = ["#0f8f6b", "#d1603d", "#4f7fd9", "#a860c9", "#b0811a", "#d4548f", "#3c93a8", "#7c8a3a"]
INK, GRID = "#7d8590", "#7d859055"
MARKS = "osD^vPX*"
TICKS = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400]


def time_text(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    if seconds < 3600:
        return f"{seconds / 60:g} min"
    return f"{seconds / 3600:g} h"


def points(summary: dict[str, Any]) -> list[tuple[str, list[float], list[float]]]:
    """Label, whole seconds and accuracies in percent of every contestant that has a run."""
    found = []
    for contestant in summary["contestants"]:
        runs = [r for r in summary["runs"] if r["contestant"] == contestant["name"] and r["accuracy"] is not None]
        if runs:
            found.append((contestant["label"], [r["seconds"] for r in runs], [100 * r["accuracy"] for r in runs]))
    return found


def draw(summary: dict[str, Any]) -> Any:
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11, "svg.hashsalt": "race"})
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    found = points(summary)
    low, high = min(min(s) for _, s, _ in found), max(max(s) for _, s, _ in found)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.5, high * 1.5)
    every = [a for _, _, accuracies in found for a in accuracies]
    room = max(1.0, 0.15 * (max(every) - min(every)))
    axes.set_ylim(min(every) - room, min(max(every) + room, 100.5))
    for at, (_, seconds, accuracies) in enumerate(found):
        colour = COLOURS[at % len(COLOURS)]
        axes.plot(seconds, accuracies, MARKS[at % len(MARKS)], color=colour, markersize=7, markeredgewidth=0, alpha=0.9)
    _name(axes, found, (low * high) ** 0.5)
    axes.xaxis.set_major_locator(FixedLocator([t for t in TICKS if low / 1.5 <= t <= high * 1.5]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: time_text(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel("whole process, from its start to its end (logarithmic)", color=INK)
    axes.set_ylabel("test accuracy", color=INK)
    axes.tick_params(colors=INK, length=0, pad=9)
    axes.grid(color=GRID, linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def _name(axes: Any, found: list[tuple[str, list[float], list[float]]], middle: float) -> None:
    """Write each contestant's label beside its points, towards the middle; labels that would touch are moved apart."""
    taken: list[tuple[float, float]] = []
    for at, (label, seconds, accuracies) in sorted(enumerate(found), key=lambda item: statistics.fmean(item[1][2])):
        right = statistics.median(seconds) < middle
        anchor = (max(seconds) if right else min(seconds), statistics.fmean(accuracies))
        x, y = axes.transData.transform(anchor)
        lift = 0.0
        while any(abs(x - other) < 250 and abs(y + lift - height) < 17 for other, height in taken):
            lift += 2
        taken.append((x, y + lift))
        axes.annotate(
            label,
            anchor,
            xytext=(9 if right else -9, lift * 72 / axes.figure.dpi),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            color=COLOURS[at % len(COLOURS)],
            fontweight="bold",
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="what race.py wrote, e.g. benchmarks/results/cpu.json")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder (default docs/images)")
    args = parser.parse_args()
    try:
        summary = json.loads(args.summary.read_text(encoding="utf-8"))
        if not points(summary):
            raise ValueError(f"{args.summary} has no run to draw")
    except (OSError, ValueError) as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    device = {"cuda": "gpu"}.get(summary["device"], summary["device"])
    figure = draw(summary)
    for kind in ("svg", "png"):
        path = args.out / f"race-{device}.{kind}"
        figure.savefig(path, dpi=144, metadata={"Date": None} if kind == "svg" else None)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
