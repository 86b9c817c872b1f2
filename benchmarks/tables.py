"""A race's summary as Markdown; ``--write-readme`` puts it between the markers of README.md and docs/benchmarks.md.

python benchmarks/tables.py benchmarks/results/cpu.json --write-readme
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pages import ROOT, between

from tenfold.words import percent, seconds, size

Summary = dict[str, Any]
Figures = dict[str, Any]


def _accuracy(found: Figures) -> str:
    a, best = found["accuracy"], found["best_accuracy"]
    told = percent(a["mean"])
    if found["n"] > 1:
        told += f" ({100 * a['min']:.2f} to {100 * a['max']:.2f})"
    return told if best is None or best <= a["max"] else f"{told}, best epoch {percent(best)}"


def _whole(found: Figures) -> str:
    s = found["seconds"]
    return (
        seconds(s["median"])
        if found["n"] == 1
        else f"{seconds(s['median'])} ({seconds(s['min'])} to {seconds(s['max'])})"
    )


def _part(found: Figures, part: str) -> str:
    return seconds(found["parts"][part]["median"]) if part in found["parts"] else ""


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_runs(summary: Summary) -> list[Figures]:
    return [found for found in summary["contestants"] if found["n"]]


def short(summary: Summary) -> str:
    """The README's table: who, how good, how long, how often."""
    rows = [[found["label"], _accuracy(found), _whole(found), str(found["n"])] for found in _with_runs(summary)]
    table = _grid(["CIFAR-10", "test accuracy", "whole process", "runs"], rows)
    return f"{table}\n\n{_machine(summary)}"


def full(summary: Summary) -> str:
    """All that docs/benchmarks.md says of a race."""
    return "\n\n".join(part for part in (
        _machine(summary), _contestants(summary), _comparisons(summary), _notes(summary), _origin(summary)
    ) if part)  # fmt: skip


def _contestants(summary: Summary) -> str:
    targets = sorted({t for found in _with_runs(summary) for t in found["targets"]}, key=float)
    on_device = any(found["peak_device_bytes"] for found in _with_runs(summary))
    tta = any(found["accuracy_with_tta"] for found in _with_runs(summary))
    head = ["contestant", "test accuracy", "whole process", "of that training", "peak memory", "runs"]
    head += ["peak GPU memory"] * on_device + ["without test-time augmentation"] * tta
    head += [f"at or above {100 * float(t):g} %" for t in targets]
    rows = []
    for found in _with_runs(summary):
        row = [found["label"], _accuracy(found), _whole(found), _part(found, "train"), size(found["peak_memory_bytes"])]
        row += [str(found["n"])]
        row += [size(found["peak_device_bytes"]) if found["peak_device_bytes"] else ""] * on_device
        plain = found["accuracy_without_tta"]
        row += [percent(plain["mean"]) if plain else "not told"] * tta
        row += [f"{round(found['targets'][t] * found['n'])} of {found['n']}" for t in targets]
        rows.append(row)
    return _grid(head, rows)


def _comparisons(summary: Summary) -> str:
    labels = {found["name"]: found["label"] for found in summary["contestants"]}
    rows = []
    for pair in summary["comparisons"]:
        low, high = pair["times_faster_at_least"], pair["times_faster_at_most"]
        extremes = f" ({low:.1f} to {high:.1f})" if f"{low:.1f}" != f"{high:.1f}" else ""
        best = percent(pair["reference_best_accuracy"])
        if pair["lowest_is_at_least_best"]:
            word = f"yes, its lowest run too ({best})"
        elif pair["mean_is_at_least_best"]:
            word = f"its mean, not its lowest run ({best})"
        else:
            word = f"no ({best})"
        times = f"{pair['times_faster']:.1f} times{extremes}"
        rows.append([labels[pair["contestant"]], labels[pair["reference"]], times, word])
    if not rows:
        return ""
    return _grid(["", "faster than", "by, whole process", "at least as accurate as its best"], rows)


def _machine(summary: Summary) -> str:
    m = summary["machine"]
    memory = f", {m['memory_bytes'] / 2**30:.0f} GiB" if m["memory_bytes"] else ""
    virtual = {True: ", a virtual machine", False: ""}.get(m["virtual"], "")
    cards = f"; {', '.join(m['gpus'])}" if m["gpus"] else ""
    return f"{m['cores']} cores of {m['cpu']}{virtual}{memory}{cards}; {m['system']}. {summary['date'][:10]}."


def _notes(summary: Summary) -> str:
    lines = []
    if not summary["idle_machine"]:
        lines.append("- **The machine was not idle before every run: these times are no measure.**")
    for found in summary["contestants"]:
        told = [f"seed {f['seed']}: {f['why'] or 'exit code ' + str(f['exit_code'])}" for f in found["failed"]]
        if told:
            lines.append(f"- {found['label']} failed {len(told)} times, not counted above: {'; '.join(told)}")
        if (found["steal_share"] or 0) > 0.01:
            lines.append(
                f"- {found['label']}: up to {found['steal_share']:.1%} of the processor time went to the host's others"
            )
        if (found["others_cores"] or 0) > 0.1:
            lines.append(f"- {found['label']}: other processes used up to {found['others_cores']:.2f} cores meanwhile")
    lines += [f"- {name} was left out: {why}" for name, why in summary["left_out"].items()]
    return "\n".join(lines)


def _origin(summary: Summary) -> str:
    versions = "\n".join(
        f"- {found['label']}: {', '.join(f'{name} {v}' for name, v in found['versions'].items())}"
        for found in _with_runs(summary) if found["versions"]
    )  # fmt: skip
    commit = f" at {', '.join(summary['commit'])}" if summary["commit"] else ""
    return f"Versions:\n\n{versions}\n\nMade{commit} by\n\n```\n{summary['command']}\n```".replace(
        "Versions:\n\n\n\n", ""
    )


def picture(root: Path, page: Path, device: str) -> str:
    """The line that shows the plot, once benchmarks/plot.py has drawn it; its PNG is linked."""
    svg, png = (root / "docs" / "images" / f"race-{device}.{kind}" for kind in ("svg", "png"))
    if not (svg.exists() and png.exists()):
        return ""
    folder = "docs/images" if page.parent == root else "images"
    alt = "Test accuracy against the seconds of the whole process, one point a run"
    return f"\n\n![{alt}]({folder}/{svg.name})\n\nThe same as [PNG]({folder}/{png.name})."


def write(summary: Summary, root: Path = ROOT) -> list[Path]:
    """Put the tables into README.md and docs/benchmarks.md below ``root``; the pages written."""
    device = {"cuda": "gpu"}.get(summary["device"], summary["device"])
    pages = {root / "README.md": short, root / "docs" / "benchmarks.md": full}
    new = {}
    for page, table in pages.items():
        try:
            text = table(summary) + picture(root, page, device)
            new[page] = between(page.read_text(encoding="utf-8"), f"bench-{device}", text)
        except ValueError as error:
            raise ValueError(f"{page.name}: {error}") from None
    for page, text in new.items():
        page.write_text(text, encoding="utf-8")
    return list(new)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="what race.py wrote, e.g. benchmarks/results/cpu.json")
    parser.add_argument("--write-readme", action="store_true", help="write README.md and docs/benchmarks.md")
    args = parser.parse_args()
    try:
        summary = json.loads(args.summary.read_text(encoding="utf-8"))
        if args.write_readme:
            print("written:", ", ".join(page.name for page in write(summary)))
        else:
            print(full(summary))
    except (OSError, ValueError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
