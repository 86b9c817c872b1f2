"""What ``tenfold bench`` prints: a table for each model, machines side by side, and which to take for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tenfold import words
from tenfold.benchmarking.best import best, marked, milliseconds, sentence, whole
from tenfold.benchmarking.records import FIGURES, FIRST, LATENCY, Benchmark, Row
from tenfold.benchmarking.sides import Sides
from tenfold.cli import render

BEST = "*"

# A figure's name, its heads where they are not FIGURES' own, and what shows its median.
SHOWN: dict[str, Callable[[float], str]] = {
    "images_per_second": lambda v: f"{v:,.0f}",
    "decoded_images_per_second": lambda v: f"{v:,.0f}",
    **{name: milliseconds for names in LATENCY.values() for name in names},
    "first_prediction_seconds": words.seconds,
    "first_step_seconds": words.seconds,
    "open_seconds": words.seconds,
    "epoch_seconds": words.seconds,
    "memory_bytes": words.size,
    "device_memory_bytes": words.size,
    "size_bytes": words.size,
    "accuracy": words.percent,
    "golden_difference": lambda v: f"{v:.1e}",
    "energy_wh": lambda v: f"{v:.3g} Wh",
    "cost": lambda v: f"{v:,.2f}" if v >= 0.1 else f"{v:.2g}",
}


def show(result: Benchmark) -> None:
    """A benchmark on standard output."""
    parts: list[Any] = []
    for subject in result.subjects:
        rows = [r for r in result.rows if r.configuration.subject == subject.name]
        facts = [
            subject.architecture,
            subject.image,
            f"{subject.parameters:,} parameters" if subject.parameters else "",
        ]
        head = Text(render.printable(subject.name), style="bold")
        head.append(f": {', '.join(fact for fact in facts if fact)}", "not bold")
        parts += ["", head] if parts else [head]
        if subject is result.subjects[0]:
            parts.append(Text(f"{result.machine}, {words.size(result.hardware.get('memory_bytes'))}"))
        if any(row.n for row in rows):
            parts += ["", _speed(result, rows), "", _process(result, rows)]
        if told := sentence(result, subject.name):
            parts += ["", Text(told)]
    parts += ["", Text(_legend(result), style="dim")] if any(row.n for row in result.rows) else []
    parts += _sentences(result)
    render.show(*parts)


def _legend(result: Benchmark) -> str:
    n = {row.n for row in result.rows if row.n}
    if n == {1}:
        text = "One process each."
    else:
        times = f"{min(n)}" if len(n) == 1 else f"{min(n)} to {max(n)}"
        text = f"Medians of {times} processes each; spread: the slowest and the fastest of them."
    if result.kind == "training":
        text += " Steps in ms. Best batch: the fastest. Energy and cost: of a million images."
    else:
        text += " Latency in ms. With decoding: from JPEG files' bytes."
    return f"{text} {BEST} is the best."


def _sentences(result: Benchmark) -> list[Any]:
    found = []
    for row in result.rows:
        if row.why:
            style = "red" if row.status == "failed" else "yellow"
            found.append(Text(f"{row.configuration}: {row.status}. {render.printable(row.why)}", style=style))
    for row in whole(result.rows):
        found += [Text(f"{row.configuration}: {render.printable(note)}", style="yellow") for note in row.notes]
        if row.provider and "(" in row.provider:
            found.append(Text(f"{row.configuration} ran on {row.provider}."))
    found += [Text(f"Note: {render.printable(note)}", style="yellow") for note in result.notes]
    return ["", *found] if found else []


# ---- tables ----------------------------------------------------------------------------------------------------------


def _empty(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for title in columns:
        table.add_column(title if "\n" in title else f"\n{title}", justify="right", no_wrap=True)
    return table


def _speed(result: Benchmark, rows: Sequence[Row]) -> Table:
    """Latency and throughput: a line for each batch size. Where the screen is narrow p90 and then the spread go."""
    middle, ninety, high = LATENCY[result.kind]
    names = [middle, ninety, high, "images_per_second", "spread", "decoded_images_per_second"]
    names = [n for n in names if n == "spread" or any(n in row.figures for row in rows)]
    if not any(row.n > 1 for row in rows):
        names.remove("spread")
    console = render.output()
    for leave in ([], [ninety], [ninety, "spread"]):
        table = _speed_table(result, rows, [n for n in names if n not in leave])
        if Measurement.get(console, console.options.update(max_width=1000), table).maximum <= console.width:
            break
    return table


def _speed_table(result: Benchmark, rows: Sequence[Row], names: Sequence[str]) -> Table:
    table = _empty(["batch", *(FIGURES[n].title if n in FIGURES else n for n in names)])
    stars, before = marked(result), None
    for row in (r for r in rows if r.n):
        name = str(row.configuration)
        cells = [Text(str(row.batch_size))]
        for figure in names:
            if figure == "spread":
                cells.append(Text(_spread(row), style="dim"))
            else:
                cells.append(_cell(row, figure, (row.configuration.subject, name, row.batch_size, figure) in stars))
        table.add_row(Text(name if name != before else "", style="bold"), *cells)
        before = name
    return table


def _spread(row: Row) -> str:
    """Of images/s: how far the slowest and the fastest process were from the median."""
    found = row.figures.get("images_per_second")
    if found is None or found.n < 2 or not found.median:
        return "–"
    low, high = (100 * (value / found.median - 1) for value in (found.min, found.max))
    return f"−{-low:.0f} +{high:.0f} %"


def _process(result: Benchmark, rows: Sequence[Row]) -> Table:
    """What is of the whole process: a line for each configuration."""
    names = [FIRST[result.kind], "open_seconds", "memory_bytes", "device_memory_bytes", "size_bytes", "accuracy",
             "golden_difference", "epoch_seconds", "energy_wh", "cost"]  # fmt: skip
    last = whole(rows)
    names = ["batch", *names] if result.kind == "training" else names
    names = [n for n in names if n == "batch" or any(n in row.figures for row in last)]
    table = _empty(["ran on", *("best\nbatch" if n == "batch" else FIGURES[n].title for n in names)])
    stars = marked(result)
    for row in last:
        name = str(row.configuration)
        mine = row.configuration.subject, name, None
        cells = [Text(f"{row.batch_size} ") if n == "batch" else _cell(row, n, (*mine, n) in stars) for n in names]
        table.add_row(Text(name, style="bold"), Text(row.ran_on or "–"), *cells)
    return table


def _cell(row: Row, figure: str, star: bool) -> Text:
    value = row.median(figure)
    text = "–" if value is None else SHOWN[figure](value)
    return Text(f"{text}{BEST}", style="bold green") if star else Text(f"{text} ")


# ---- side by side ----------------------------------------------------------------------------------------------------


def show_sides(found: Sides) -> None:
    """Machines side by side, on standard output."""
    parts: list[Any] = []
    for name, file, made in zip(found.names, found.files, found.benchmarks, strict=True):
        line = Text(f"{name}  ", style="bold")
        version = made.versions.get("tenfold")
        about = f"{made.machine}: {file}, tenfold {version}, {made.created[:10]}"
        line.append(render.printable(about), "not bold")
        parts.append(line)
    parts += ["", _bests(found)]
    for subject in dict.fromkeys(line.subject for line in found.lines):
        for figure, title in (("images_per_second", "images/s"), (LATENCY[found.kind][2], "p99, ms")):
            head = Text(title, style="bold")
            head.append(f", {render.printable(subject)}", "not bold")
            parts += ["", head, _side(found, subject, figure)]
    if found.notes:
        parts += ["", *(Text(f"Note: {render.printable(note)}", style="yellow") for note in found.notes)]
    render.show(*parts)


def _bests(found: Sides) -> Table:
    """Each machine's best, whatever the configuration."""
    table = _empty(["most\nimages/s", "by", "lowest\np99", "by"])
    for name, made in zip(found.names, found.benchmarks, strict=True):
        high = LATENCY[found.kind][2]
        smallest = min(r.batch_size or 0 for r in made.rows if r.n)
        speed = best(made.rows, "images_per_second")
        latency = best([r for r in made.rows if r.batch_size == smallest], high)
        table.add_row(
            Text(name, style="bold"),
            "–" if speed is None else f"{speed.speed:,.0f}",
            "–" if speed is None else f"{speed.configuration}, {speed.batch_size}",
            "–" if latency is None else f"{milliseconds(latency.median(high))} ms",
            "–" if latency is None else f"{latency.configuration}, {smallest}",
        )
    return table


def _side(found: Sides, subject: str, figure: str) -> Table:
    """One figure of every configuration and batch size, a column for each machine; behind those after the first, how
    many times as good they are."""
    table = _empty(["batch", *found.names])
    before = None
    for line in (one for one in found.lines if one.subject == subject):
        values = [None if row is None else row.median(figure) for row in line.rows]
        cells = []
        for at, value in enumerate(values):
            text = "–" if value is None else SHOWN[figure](value)
            base = values[0]
            if at and value and base:
                times = value / base if FIGURES[figure].better == "higher" else base / value
                text += f"  {times:.2f}×" if times < 9.995 else f"  {times:.1f}×"
            cells.append(Text(text))
        shown = line.configuration if line.configuration != before else ""
        table.add_row(Text(shown, style="bold"), Text(str(line.batch_size)), *cells)
        before = line.configuration
    return table
