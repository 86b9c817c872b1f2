"""``tenfold compare``: the same recipe in each engine on each device, as one table and one plot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.train import OUT, RECIPE, WHERE, overrides_of
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.comparison.records import Comparison, Row, Spread, Trial


def compare(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A dataset's name (digits, cifar10, cifar100), a folder of pictures, or a CSV of paths and labels; "
            "digits where left out.",
            show_default=False,
        ),
    ] = None,
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
    recipe: Annotated[
        str,
        typer.Option("--recipe", metavar="NAME|FILE", rich_help_panel=RECIPE, help="A shipped recipe or a YAML file."),
    ] = "quick",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", rich_help_panel=RECIPE, help="Change any field of the recipe; repeatable."
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(rich_help_panel=RECIPE, help="Passes over the training images, 2.5 too.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=RECIPE, help="Images a step.")] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(metavar="TIME", rich_help_panel=RECIPE, help="Train each no longer than 30s, 10m, 2h or 1h30m."),
    ] = None,
    price_per_hour: Annotated[
        str | None,
        typer.Option(
            metavar="PRICE", rich_help_panel=OUT, help="Of the machine, or of each device: 2.5, or cpu=0.05,cuda=2.5."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=OUT,
            show_default=False,
            help="The folder (default: runs/compare-<data>-<recipe>-<n>). A comparison that was stopped goes on there.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", rich_help_panel=OUT, help="Print one JSON object.")] = False,
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
            engines=None if engines is None else _names(engines, "--engines"),
            devices=_names(devices, "--devices"),
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


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise CallError(f"{option} {text!r}: a name is empty.", "Write names with commas between: torch,jax.")
    return names


def price(text: str | None) -> float | dict[str, float] | None:
    """``2.5`` → 2.5; ``cpu=0.05,cuda=2.5`` → by device."""
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, sign, value = part.rpartition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            break
        if not sign:
            break
    if "" in found and text.count(",") == 0 and "=" not in text:
        return found[""]
    if "" in found or len(found) < len(text.split(",")):
        raise CallError(f"--price-per-hour {text!r} is no price.", "Write 2.5, or cpu=0.05,cuda=2.5.")
    return found


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
    who = f"{trial.contestant}, seed {trial.seed}"
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
        parts += ["", _table(result)]
        if any(row.n > 1 for row in result.rows):
            parts.append(Text("Medians; below them the lowest and the highest run.", style="dim"))
    parts += ["", *_sentences(result)] if _sentences(result) else []
    render.show(*parts)


def _sentences(result: Comparison) -> list[Any]:
    from rich.text import Text

    found = []
    for row in result.rows:
        if row.why:
            style = "red" if row.status == "failed" else "yellow"
            found.append(Text(f"{row}: {row.status}. {render.printable(row.why)}", style=style))
    return found + [Text(f"Note: {render.printable(note)}", style="yellow") for note in result.notes]


def _table(result: Comparison) -> Any:
    """A row for each contestant that was measured: the medians, and in a second line from where to where they go."""
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in result.rows if row.n]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    columns = [c for c in _columns(result) if any(c[1](row) for row in rows)]
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True, vertical="top")
    table.add_column("n", justify="right", no_wrap=True)
    for row in rows:
        cells = []
        for _, cell in columns:
            median, _, span = (cell(row) or "–").partition("\n")
            cells.append(Text.assemble(median, ("\n" + span, "dim")) if span else Text(median))
        table.add_row(Text(str(row), style="bold"), *cells, str(row.n))
    return table


def _columns(result: Comparison) -> Sequence[tuple[str, Callable[[Row], str]]]:
    """Titles, and what makes a row's cell; a column whose cells are all empty is left out."""

    def spread(name: str, show: Callable[[float], str]) -> Callable[[Row], str]:
        return lambda row: spanned(getattr(row, name), show)

    several = sum(row.n > 0 for row in result.rows) > 1
    reference = result.reference if several else None
    return [
        ("test\naccuracy", spread("accuracy", words.percent)),
        ("with\nTTA", spread("accuracy_with_tta", words.percent)),
        ("whole\nprocess", spread("seconds", words.seconds)),
        (f"times as fast\nas {reference}", lambda row: f"{row.speed_up:.3g}×" if reference and row.speed_up else ""),
        ("\ntraining", spread("train_seconds", words.seconds)),
        ("\nimages/s", spread("images_per_second", lambda v: f"{v:,.0f}")),
        ("peak\nmemory", spread("memory_bytes", words.size)),
        ("peak device\nmemory", spread("device_memory_bytes", words.size)),
        ("GPU's energy\na run", spread("energy_wh", lambda v: f"{v:.3g} Wh")),
        ("cost\na run", lambda row: "" if row.cost is None else f"{row.cost:.2g}"),
    ]


def spanned(spread: Spread | None, show: Callable[[float], str]) -> str:
    """The median, and below it lowest to highest where there are several and they differ when shown."""
    if spread is None:
        return ""
    low, high = show(spread.min), show(spread.max)
    if low == high:
        return show(spread.median)
    low_number, _, low_unit = low.partition(" ")
    if low_unit and low_unit == high.partition(" ")[2] and " " not in low_unit:
        low = low_number  # 5.1 to 5.6 s
    return f"{show(spread.median)}\n{low} to {high}"


def _places(result: Comparison) -> None:
    console = render.console()
    picture = result.path / "compare.png"
    if any(row.n for row in result.rows) and picture.exists():
        console.print(f"Plot     {render.printable(str(picture))}", soft_wrap=True)
    console.print(f"Figures  {render.printable(str(result.path / 'compare.json'))}", soft_wrap=True)
