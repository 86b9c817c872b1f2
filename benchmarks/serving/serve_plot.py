"""The pictures of serve_race.py's figures: latency against the rate, requests a second by connections.

python benchmarks/serving/serve_plot.py benchmarks/results/serving.json      → docs/images/serving-*.svg and .png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from plot import COLOURS, GRID, IMAGES, INK, MARKS
from serve_tally import quoted

TICKS_MS = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
PARTS = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11, "svg.hashsalt": "serving"}


def _figure() -> tuple[Any, Any]:
    plt.rcParams.update(PARTS)
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, length=0, pad=7)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def _label(server: dict[str, Any]) -> str:
    return str(server["label"]).replace("`", "")


def lines(summary: dict[str, Any]) -> list[tuple[str, list[float], list[float]]]:
    """Label, rates and p99 in ms of every server that kept up with a rate in all its rounds."""
    found = []
    for server in quoted(summary)[0]:
        kept = [(float(rate), x) for rate, x in server["open"].items() if x["kept_up"] == server["n"]]
        found.append((_label(server), [rate for rate, _ in kept], [x["p99"]["median"] for _, x in kept]))
    return found


def latency(summary: dict[str, Any]) -> Any:
    """p99 against the rate; a line ends at the highest rate that its server keeps up with."""
    figure, axes = _figure()
    found = lines(summary)
    every = [ms for _, _, values in found for ms in values]
    highest = max(rate for _, rates, _ in found for rate in rates)
    axes.set_yscale("log")
    axes.set_ylim(min(every) / 1.6, max(every) * 1.6)
    axes.set_xlim(0, highest * 1.04)
    for at, (label, x, y) in enumerate(found):
        colour, mark = COLOURS[at % len(COLOURS)], MARKS[at % len(MARKS)]
        axes.plot(x, y, color=colour, linewidth=1.8, marker=mark, markersize=7, markeredgewidth=0,
                  label=label if x else f"{label}: none")  # fmt: skip
    axes.yaxis.set_major_locator(FixedLocator(TICKS_MS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} ms"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(FixedLocator([rate for rate in summary["plan"]["rates"] if rate <= highest]))
    axes.set_xlabel(
        "requests that come a second; a line ends at the last rate that its server keeps up with", color=INK
    )
    axes.set_ylabel("99 % are answered within (logarithmic)", color=INK)
    axes.grid(color=GRID, linewidth=0.6)
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    figure.legend(loc="outside upper center", ncols=2, frameon=False, labelcolor=INK, fontsize=10)


def throughput(summary: dict[str, Any]) -> Any:
    """Bars: a group for each number of connections, a bar for each server with its lowest and highest round."""
    figure, axes = _figure()
    shown, levels = quoted(summary)[0], summary["plan"]["connections"]
    width = 0.84 / max(1, len(shown))
    for at, server in enumerate(shown):
        found = [server["closed"].get(str(n), {}).get("requests_per_second") for n in levels]
        places = [i + (at - (len(shown) - 1) / 2) * width for i, one in enumerate(found) if one]
        known = [one for one in found if one]
        axes.bar(places, [one["median"] for one in known], width * 0.9, color=COLOURS[at % len(COLOURS)],
                 label=_label(server))  # fmt: skip
        for place, one in zip(places, known, strict=True):
            axes.plot([place, place], [one["min"], one["max"]], color=INK, linewidth=1)
            axes.annotate(f"{one['median']:.0f}", (place, one["max"]), xytext=(0, 3), textcoords="offset points",
                          ha="center", va="bottom", color=INK, fontsize=7.5)  # fmt: skip
    axes.set_xticks(range(len(levels)), [f"{n} connection{'s' * (n > 1)}" for n in levels])
    axes.set_ylabel("requests/s", color=INK)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    _legend(figure)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="what serve_race.py wrote")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder (default docs/images)")
    args = parser.parse_args()
    try:
        summary = json.loads(args.summary.read_text(encoding="utf-8"))
        if not any(x for _, x, _ in lines(summary)):
            raise ValueError(f"{args.summary} has no rate that a server kept up with")
    except (OSError, ValueError) as error:
        print(f"serve_plot: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("latency", latency), ("throughput", throughput)):
        figure = draw(summary)
        for kind in ("svg", "png"):
            path = args.out / f"serving-{name}.{kind}"
            figure.savefig(path, dpi=144, metadata={"Date": None} if kind == "svg" else None)
            print(path)
        plt.close(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
