"""What serve_race.py measured as Markdown; ``--write`` puts it between the markers of docs/serve.md.

python benchmarks/serving/serve_tables.py benchmarks/results/serving.json --write
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from pages import ROOT, put
from serve_tally import level, quoted, times
from tables import _grid, _machine

from tenfold.words import percent, seconds, size

Summary = dict[str, Any]
MARKER = "bench-serving"
PAGE = ROOT / "docs" / "serve.md"


def full(summary: Summary) -> str:
    """All that the page says."""
    return "\n\n".join(part for part in (
        _about(summary), _closed(summary), _open(summary), _comparisons(summary), _notes(summary), _origin(summary)
    ) if part)  # fmt: skip


def _about(summary: Summary) -> str:
    p = summary["pictures"]
    sizes = f"{p['bytes']['min'] / 1e3:.0f} to {p['bytes']['max'] / 1e3:.0f} kB"
    closed, opened = summary["plan"]["seconds"]
    n = max((s["n"] for s in summary["servers"]), default=0)
    return (
        f"{_machine(summary)} {p['count']} JPEGs of {p['width']}×{p['height']} ({sizes}), each request one of them. "
        f"n = {n}, the servers in turn; median (lowest to highest). A closed loop lasts {closed:g} s, "
        f"an open one {opened:g} s."
    )


def _spread(found: dict[str, float] | None, digits: int = 0) -> str:
    if found is None:
        return ""
    low, middle, high = (f"{found[key]:,.{digits}f}" for key in ("min", "median", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _ms(value: float) -> str:
    """Two digits that count: 0.85, 4.2, 37, 120."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _closed(summary: Summary) -> str:
    levels, at = summary["plan"]["connections"], str(level(summary))
    head = ["requests/s", *(f"{n} connection{'s' * (n > 1)}" for n in levels)]
    head += [f"p50, p99 at {at}", "processor time a request", "memory", "ready after"]
    rows = []
    for server in quoted(summary)[0]:
        row = [server["label"]]
        row += [_spread(server["closed"].get(str(n), {}).get("requests_per_second")) for n in levels]
        found = server["closed"].get(at)
        row.append(f"{_ms(found['p50']['median'])}, {_ms(found['p99']['median'])} ms" if found and found["p99"] else "")
        cost = found and found["server_ms_per_request"]
        row.append(f"{_ms(cost['median'])} ms" if cost else "")
        row += [size(server["proportional_bytes"]), seconds(server["ready_seconds"]["median"])]
        rows.append(row)
    return _grid(head, rows)


def _open(summary: Summary) -> str:
    rates = summary["plan"]["rates"]
    head = ["p50, p99 in ms at a rate of", *(f"{rate:g}/s" for rate in rates)]
    rows = []
    for server in quoted(summary)[0]:
        rows.append([server["label"], *(_kept(server, f"{rate:g}") for rate in rates)])
    return _grid(head, rows)


def _kept(server: dict[str, Any], rate: str) -> str:
    found = server["open"].get(rate)
    if found is None or not found["kept_up"]:
        return "–"
    often = f" ({found['kept_up']} of {server['n']})" if found["kept_up"] < server["n"] else ""
    return f"{_ms(found['p50']['median'])}, {_ms(found['p99']['median'])}{often}"


def _comparisons(summary: Summary) -> str:
    shown, at = quoted(summary)[0], level(summary)
    own = next((s for s in shown if s["name"] == "tenfold"), None)
    lines = []
    for other in shown if own else ():
        if other["name"].startswith("tenfold"):
            continue
        found = times(own, other, summary["runs"], at)
        if found:
            lines.append(f"- {_spread(found, 1)} times as many requests a second as {other['label']}")
    return f"tenfold serve answers, at {at} connections:\n\n" + "\n".join(lines) if lines else ""


def _notes(summary: Summary) -> str:
    lines = []
    shown, rest = quoted(summary)
    if not summary["idle_machine"]:
        lines.append("- **The machine was not idle before every round: these figures are no measure.**")
    if told := [s["agreement"] for s in shown if s["agreement"]]:
        lines.append(
            "- The same network: for pictures of its own size the probabilities that the servers give are within "
            f"{max(a['furthest'] for a in told):.0e} of the bundle's. The photos are resized first, by each in its own "
            f"way: of {told[0]['photos']} so many have the class that `tenfold predict` gives: "
            + ", ".join(f"{s['label']} {s['agreement']['same_class']}" for s in shown)
        )
    at = str(level(summary))
    for server in rest:
        rate = _spread(server["closed"][at]["requests_per_second"]) if at in server["closed"] else "no"
        lines.append(f"- {server['label']}, measured too: {rate} requests/s at {at} connections")
    for server in summary["servers"]:
        if server["wrong"]:
            lines.append(f"- **{server['label']} gave {server['wrong']} answers of another picture.**")
        if bad := _failures(server):
            lines.append(f"- {server['label']}: {bad}")
        if server["failed"]:
            lines.append(f"- {server['label']} failed {len(server['failed'])} times: {'; '.join(server['failed'])}")
    disturbed = [f"{s['label']} {s['others_cores']:.2f}" for s in summary["servers"] if s["others_cores"] > 0.1]
    if disturbed:
        lines.append(f"- Other processes used up to so many cores meanwhile: {', '.join(disturbed)}")
    if (most := max((s["steal_share"] for s in summary["servers"]), default=0)) > 0.01:
        lines.append(f"- The machine's host took up to {percent(most, 1)} of the processor's time")
    g = summary["generator"]
    lines.append(
        f"- The load generator itself reaches {g['requests_per_second']:,.0f} requests/s, "
        f"{1000 * g['client']['cpu_seconds'] / g['requests']:.2f} ms of a core each; it runs beside the server"
    )
    lines += [f"- {name} was left out: {why}" for name, why in summary["left_out"].items()]
    return "\n".join(lines)


def _failures(server: dict[str, Any]) -> str:
    """What was not answered with 200 at the rates and connections that the tables show."""
    found: dict[str, int] = {}
    loads = [*server["closed"].values(), *(x for x in server["open"].values() if x["kept_up"] == x["n"])]
    for one in loads:
        for key, count in (*one["by_status"].items(), *one["errors"].items()):
            if key != "200" and count:
                found[key] = found.get(key, 0) + count
    total = sum(one["requests"] for one in loads)
    told = ", ".join(f"{count:,} {key}" for key, count in sorted(found.items()))
    return f"of {total:,} requests {told}" if told else ""


def _origin(summary: Summary) -> str:
    lines = [
        f"- {s['label']}: `{s['command']}`; {', '.join(f'{name} {version}' for name, version in s['versions'].items())}"
        for s in quoted(summary)[0]
    ]
    commit = f" at {', '.join(summary['commit'])}" if summary["commit"] else ""
    return "\n".join(lines) + f"\n\nMade{commit} by `{summary['command']}`."


def pictures(folder: Path) -> str:
    """The lines that show the plots, once serve_plot.py has drawn them; their PNGs are linked."""
    alts = {
        "serving-latency": "The 99th percentile of latency against the rate at which requests come",
        "serving-throughput": "Requests a second by the number of connections",
    }
    lines = []
    for name, alt in alts.items():
        if all((folder / f"{name}.{kind}").exists() for kind in ("svg", "png")):
            lines.append(f"![{alt}](images/{name}.svg)\n\nThe same as [PNG](images/{name}.png).")
    return "\n\n".join(lines)


def write(summary: Summary, page: Path = PAGE) -> None:
    """Raises ValueError where the page lacks the markers, OSError where there is none."""
    shown = pictures(page.parent / "images")
    put(page, MARKER, full(summary) + (f"\n\n{shown}" if shown else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("summary", type=Path, help="what serve_race.py wrote")
    parser.add_argument("--write", action="store_true", help="write docs/serve.md")
    args = parser.parse_args()
    try:
        summary = json.loads(args.summary.read_text(encoding="utf-8"))
        if args.write:
            write(summary)
            print("written:", PAGE.name)
        else:
            print(full(summary))
    except (OSError, ValueError) as error:
        print(f"serve_tables: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
