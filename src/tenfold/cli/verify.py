"""``tenfold verify``: whether every engine and runtime here gives the answers that a model must give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import AsJson, Split

if TYPE_CHECKING:
    from tenfold.verification.verdicts import ImageSet, Row, Verification

NONE = "none"
GOOD, ASIDE, BAD = "green", "yellow", "bold red"
VERDICTS = {"passed": ("same", GOOD), "failed": ("differs", BAD), "reference": ("reference", "")}


def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or a bundle folder.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            show_default=False,
            help="Other images than those of the model's own data: a dataset's name, a folder, or a CSV.",
        ),
    ] = None,
    split: Split = "test",
    golden: Annotated[bool, typer.Option("--golden", help="The golden images only, no split.")] = False,
    engines: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Ask these engines only, or none.", show_default="every one installed"),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Ask these runtimes only, or none.", show_default="every one installed"),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="D", help="Where engines compute; auto is the fastest of each.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Ask every engine and runtime that is installed for a model's answers, and compare them.

    The golden images in the bundle, and the test split of the model's own data, go through each in a process of its
    own. Leaves with exit code 1 where one gives other answers than it must.
    """
    from tenfold.verification import verify as replay

    with render.progress() as report:
        found = replay(
            model,
            data,
            split,
            engines=_names(engines),
            runtimes=_names(runtimes),
            golden_only=golden,
            device=device,
            report=report,
        )
    if as_json:
        render.print_json({"path": str(model), **found.to_dict()})
    else:
        _show(found)
    if not found.passed:
        raise typer.Exit(1)


def _names(given: str | None) -> list[str] | None:
    if given is None:
        return None
    names = [name.strip() for name in given.split(",") if name.strip()]
    return [] if names == [NONE] else names


# ---- for people ------------------------------------------------------------------------------------------------------


def _show(found: Verification) -> None:
    from rich.text import Text

    parts: list[Any] = [_head(found)]
    for part in found.sets:
        rows = [row for row in found.rows if row.set == part.name]
        if rows:
            parts += ["", Text(_title(part), style="bold"), _table(rows, found.logits_reference)]
    without = [row for row in found.rows if row.set is None]
    if without:
        parts += ["", Text("No answers", style="bold"), _reasons(without)]
    for note in found.notes:
        parts += ["", Text(f"Note: {render.printable(note)}", style=ASIDE)]
    took = f"Time: loading the model and answering; with the processes' starts {words.seconds(found.seconds)} in all."
    allowed = f"Same: no probability is off by more than {found.tolerance:g}, and no first class differs."
    parts += ["", Text(f"{allowed}\n{took}", style="dim")]
    render.show(*parts)


def _head(found: Verification) -> Any:
    from rich.text import Text

    gave = {(r.kind, r.name) for r in found.rows if r.state in ("passed", "reference")}
    wrong = {r.name: r.set for r in found.rows if r.state == "failed"}
    name = render.printable(found.model).replace("\n", "\\n")
    if wrong:
        differ = ", ".join(n for n, part in wrong.items() if part is not None)
        broken = ", ".join(n for n, part in wrong.items() if part is None)
        said = [f"{what} answers from {who}" for what, who in (("other", differ), ("no", broken)) if who]
        return Text(f"{name}: {', '.join(said)}", style=BAD)
    if not found.passed:
        return Text(f"{name}: nothing was verified", style=BAD)
    kinds = [kind for kind, _ in gave]
    asked = [words.count(kinds.count(k), k) for k in ("engine", "runtime") if k in kinds]
    verb = "gives" if len(gave) == 1 else "give"
    return Text(f"{name}: {' and '.join(asked)} {verb} the answers the model must give", style=f"bold {GOOD}")


def _title(part: ImageSet) -> str:
    what = words.count(part.images, "golden image") if part.data is None else words.count(part.images, "image")
    where = "" if part.data is None else f" of {render.printable(part.data)}, {part.name}"
    return f"{what}{where}, compared with {part.reference}"


def _table(rows: list[Row], first: str | None) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("", "device"):
        table.add_column(column, no_wrap=True)
    for column in ("logits", "probabilities", "top-1", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        verdict, style = VERDICTS[row.state]
        top1 = f"{row.top1_agree:,}/{row.images:,}" if row.top1_agree is not None else "–"
        logits = "reference" if row.kind == "engine" and row.name == first else _difference(row.logit_difference)
        differences = (logits, _difference(row.probability_difference))
        time = words.seconds(row.seconds or 0)
        table.add_row(row.name, row.device or "", *differences, top1, time, Text(verdict, style=style))
    return table


def _difference(value: float | None) -> str:
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    return f"{value:.1e}" if value else "0"


def _reasons(rows: list[Row]) -> Any:
    from rich.table import Table
    from rich.text import Text

    says = {"failed": ("failed: ", BAD), "unavailable": (None, ASIDE), "not installed": ("not installed: ", "")}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        before, style = says[row.state]
        before = before or f"not available in this {row.kind}: "
        table.add_row(row.name, Text(before + render.printable(row.message or ""), style=style))
    return table
