"""``tenfold compare``: the same recipe in each engine on each device, as one table and one plot."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import (
    OUT,
    RECIPE,
    WHERE,
    BatchSize,
    Epochs,
    RecipeChanges,
    ResultAsJson,
    TrainingData,
    names_of,
    out_option,
    overrides_of,
    recipe_option,
    time_limit_option,
)
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.comparison.records import Comparison, Row, Spread, Trial


def compare(
    data: TrainingData = None,
    engines: Annotated[
        str | None,
        typer.Option(metavar="NAMES", rich_help_panel=WHERE, help="With commas between (default: all installed)."),
    ] = None,
    devices: Annotated[
        str,
        typer.Option(metavar="NAMES", rich_help_panel=WHERE, help="Such as cpu,cuda; auto is each engine's fastest."),
    ] = "auto",
    seeds: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=RECIPE, help="Trainings of each: with the seeds 0 to N-1.")
    ] = 3,
    recipe: Annotated[str, recipe_option("A shipped recipe or a YAML file.")] = "quick",
    changes: RecipeChanges = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    time_limit: Annotated[str | None, time_limit_option("Train each no longer than 30s, 10m, 2h or 1h30m.")] = None,
    price_per_hour: Annotated[
        str | None,
        typer.Option(
            metavar="PRICE", rich_help_panel=OUT, help="Of the machine, or of each device: 2.5, or cpu=0.05,cuda=2.5."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        out_option(
            "The folder (default: runs/compare-<data>-<recipe>-<n>). A comparison that was stopped goes on there."
        ),
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Train the same recipe in each engine on each device, and tell what each took and came to.

    Every training is a process of its own, run by tenfold train, one after the other, the contestants in turn. What
    can't run here is left out, with the reason.

    Exit code 1 where nothing could be measured or a training failed.
    """
    overrides = overrides_of(
        changes or [], {"--epochs": epochs, "--batch-size": batch_size, "--time-limit": time_limit}
    )
    from tenfold.comparison.work import compare as work

    with render.progress() as report:
        result = work(
            data or "digits",
            engines=names_of(engines, "--engines"),
            devices=names_of(devices, "--devices") or [],
            recipe=recipe,
            seeds=seeds,
            overrides=overrides,
            price_per_hour=price(price_per_hour),
            out=out,
            listen=_teller(report),
        )
    if as_json:
        render.print_json(result.to_dict())
    else:
        _show(result)
    _places(result)
    if not result.ok:
        raise typer.Exit(1)


def price(text: str | None) -> float | dict[str, float] | None:
    """``2.5`` → 2.5; ``cpu=0.05,cuda=2.5`` → by device."""
    if text is None:
        return None
    wrong = CallError(f"--price-per-hour {text!r} is no price.", "Write 2.5, or cpu=0.05,cuda=2.5.")
    pairs = [part.rpartition("=") for part in text.split(",")]
    try:
        values = [float(value) for _, _, value in pairs]
    except ValueError:
        raise wrong from None
    names = [name.strip() for name, _, _ in pairs]
    if names == [""] and not pairs[0][1]:
        return values[0]
    if "" in names or len(set(names)) < len(names):
        raise wrong
    return dict(zip(names, values, strict=True))


# ---- while it runs -------------------------------------------------------------------------------------------------


def _teller(report: Callable[[Any], None]) -> Callable[[Any], None]:
    """One line on standard error for each run as it starts and ends."""
    from tenfold.comparison.records import Ended, LeftOut, Started

    def tell(event: Any) -> None:
        if isinstance(event, Started):
            _say(f"[{event.number}/{event.total}] {event.contestant}, seed {event.seed} …")
        elif isinstance(event, Ended):
            kept = ", measured before" if event.kept else ""
            _say(f"[{event.number}/{event.total}] {_sentence(event.trial)}{kept}")
        elif isinstance(event, LeftOut):
            _say(f"{event.contestant} is left out: {event.why}")
        else:
            report(event)

    return tell


def _say(text: str) -> None:
    print(render.printable(text).replace("\n", " "), file=sys.stderr, flush=True)


def _sentence(trial: Trial) -> str:
    who = f"{trial}, seed {trial.seed}"
    took = words.seconds(trial.seconds)
    if trial.status != "done":
        return f"{who}: {trial.status} after {took}: {trial.why}"
    training = f" ({words.seconds(trial.parts['train'])} training)" if "train" in trial.parts else ""
    return f"{who}: {words.percent(trial.accuracy)} in {took}{training}"


# ---- at its end ----------------------------------------------------------------------------------------------------


def _show(result: Comparison) -> None:
    from rich.text import Text

    head = Text(f"{render.printable(result.data)}, recipe {result.recipe['name']}", style="bold")
    cores = words.count(int(result.hardware["cores"]), "core")
    head.append(f": {cores} of {result.hardware['cpu']}, {words.size(result.hardware['memory_bytes'])}", "not bold")
    parts: list[Any] = [head]
    for label in dict.fromkeys(r.device_label for r in result.rows if r.device_label and r.ran_on != "cpu"):
        parts.append(Text(render.printable(label)))
    if any(row.n for row in result.rows):
        parts += ["", *_tables(result), "", Text(_legend(result), style="dim")]
    parts += ["", *_sentences(result)] if _sentences(result) else []
    render.show(*parts)


def _legend(result: Comparison) -> str:
    measured = [row for row in result.rows if row.n]
    parts = []
    if any(row.n > 1 for row in measured):
        parts.append("Medians; below them the lowest and the highest run.")
    if len(measured) > 1:
        parts.append(f"Speed-up: over {result.reference}, by the whole process.")
    return " ".join([*parts, "All figures, and the spread of each: compare.json."])


def _sentences(result: Comparison) -> list[Any]:
    from rich.text import Text

    found = []
    for row in result.rows:
        if row.why:
            style = "red" if row.status == "failed" else "yellow"
            found.append(Text(f"{row}: {row.status}. {render.printable(row.why)}", style=style))
    return found + [Text(f"Note: {render.printable(note)}", style="yellow") for note in result.notes]


Column = tuple[str, "Callable[[Row], str]"]


def _tables(result: Comparison) -> list[Any]:
    """One table of all columns, or two where the screen is too narrow for it."""
    from rich.measure import Measurement

    result_columns, cost_columns = _columns(result)
    console = render.output()
    whole = _table(result, [*result_columns, *cost_columns])
    if Measurement.get(console, console.options.update(max_width=1000), whole).maximum <= console.width:
        return [whole]
    return [_table(result, result_columns), "", _table(result, cost_columns)]


def _table(result: Comparison, columns: Sequence[Column]) -> Any:
    """A row for each contestant that was measured: the medians, and in a second line from where to where they go. A
    column with nothing in it is left out."""
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in result.rows if row.n]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    columns = [c for c in columns if any(c[1](row) for row in rows)]
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        cells = []
        for _, cell in columns:
            median, _, span = (cell(row) or "–").partition("\n")
            cells.append(Text.assemble(median, ("\n" + span, "dim")) if span else Text(median))
        table.add_row(Text(str(row), style="bold"), *cells)
    return table


def _columns(result: Comparison) -> tuple[Sequence[Column], Sequence[Column]]:
    """Titles, and what makes a row's cell: first what is compared, then where it comes from."""

    def median(name: str, show: Callable[[float], str]) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            found = getattr(row, name)
            return "" if found is None else show(found.median)

        return cell

    several = sum(row.n > 0 for row in result.rows) > 1
    return (
        ("\nn", lambda row: str(row.n)),
        ("test\naccuracy", lambda row: spanned(row.accuracy, words.percent, (0.01, "%"), 2)),
        ("with\nTTA", lambda row: spanned(row.accuracy_with_tta, words.percent, (0.01, "%"), 2)),
        ("whole\nprocess", lambda row: spanned(row.seconds, words.seconds, *_unit(row.seconds))),
        ("\nspeed-up", lambda row: times(row.speed_up) if several and row.speed_up else ""),
    ), (
        ("\ntraining", median("train_seconds", words.seconds)),
        ("\nimages/s", median("images_per_second", lambda v: f"{v:,.0f}")),
        ("peak\nmemory", median("memory_bytes", words.size)),
        ("device\nmemory", median("device_memory_bytes", words.size)),
        ("GPU's\nenergy", median("energy_wh", lambda v: f"{v:.3g} Wh")),
        ("cost\na run", lambda row: "" if row.cost is None else money(row.cost)),
    )


def _unit(seconds: Spread | None) -> tuple[tuple[float, str], int]:
    """The unit of a span of seconds, and its decimals."""
    middle = seconds.median if seconds else 0.0
    return ((1, "s"), 1) if middle < 60 else ((60, "min"), 2) if middle < 3600 else ((3600, "h"), 2)


def times(value: float) -> str:
    return f"{value:.2g}×" if value < 0.1 else f"{value:.2f}×" if value < 9.995 else f"{value:.1f}×"


def money(value: float) -> str:
    """At least two places, and two digits that count: 12.50, 0.031, 0.000092."""
    digits = 2 if value == 0 else max(2, 1 - math.floor(math.log10(value)))
    return f"{value:,.{digits}f}"


def spanned(spread: Spread | None, show: Callable[[float], str], unit: tuple[float, str], digits: int) -> str:
    """The median as ``show`` has it, and in a second line lowest to highest in one unit, where they differ."""
    if spread is None:
        return ""
    size, name = unit
    low, high = f"{spread.min / size:.{digits}f}", f"{spread.max / size:.{digits}f}"
    return show(spread.median) if low == high else f"{show(spread.median)}\n{low} to {high} {name}"


def _places(result: Comparison) -> None:
    console = render.console()
    picture = result.path / "compare.png"
    if any(row.n for row in result.rows) and picture.exists():
        console.print(f"Plot     {render.printable(str(picture))}", soft_wrap=True)
    console.print(f"Figures  {render.printable(str(result.path / 'compare.json'))}", soft_wrap=True)
