"""``tenfold check``: what is wrong with a dataset, as a table, as JSON and as a page with the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.geometry import Changes, RecipeName, data_settings
from tenfold.cli.options import AsJson, Data

if TYPE_CHECKING:
    from tenfold.data.check import Checked

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def check(
    data: Data = "digits",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for check.html and check.json.", show_default="NAME-check"),
    ] = None,
    recipe: RecipeName = None,
    changes: Changes = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where there is an error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find corrupt files, duplicates, train/test leaks and imbalance.

    Also the same picture under different labels, blank, dark and bright pictures, and files of an unusual size or
    shape. Nothing is changed. The page shows the pictures; check.json lists every finding.
    """
    from tenfold.data import load_dataset
    from tenfold.data.check import check as look

    with render.progress() as report:
        dataset = load_dataset(data, data_settings(recipe, changes), report=report)
        checked = look(dataset, report)
    folder = out or Path(f"{dataset.name}-check")
    files = _write(folder, checked)
    if as_json:
        render.print_json(_summary(checked, files))
    else:
        _draw(checked, files)
    if strict and checked.count("error"):
        raise typer.Exit(1)


def _write(folder: Path, checked: Checked) -> dict[str, Path]:
    import json

    from tenfold.data.check_page import page
    from tenfold.errors import CallError
    from tenfold.paths import write_whole

    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {"page": folder / "check.html", "file": folder / "check.json"}
        write_whole(files["file"], json.dumps(checked.to_dict(), indent=1) + "\n")
        write_whole(files["page"], page(checked).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise CallError(f"{folder} can't be written to: {error.strerror}.", "Name another folder with --out.") from None
    return files


def _summary(checked: Checked, files: dict[str, Path]) -> dict[str, Any]:
    """The JSON of --json: what was found in numbers, and where the rest is."""
    dataset = checked.pool.dataset
    return {
        "dataset": dataset.name,
        "images": len(checked.pool),
        "errors": checked.count("error"),
        "warnings": checked.count("warning"),
        "findings": [
            {"name": f.name, "severity": f.severity, "count": f.count, "title": f.title, "text": f.text}
            for f in checked.findings
        ],
        **{name: str(path) for name, path in files.items()},
    }


def _draw(checked: Checked, files: dict[str, Path]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tenfold.data.check_page import verdict

    dataset = checked.pool.dataset
    sizes = ", ".join(f"{len(dataset[name]):,} {name}" for name in checked.pool.names)
    render.show(Text(f"{dataset.name}: {words.count(len(checked.pool), 'picture')} ({sizes})", style="bold"))
    for note in dataset.notes:
        render.show(Text(render.printable(note), style="dim"))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for finding in checked.findings:
        said = Text(render.printable(finding.title), style="bold")
        said.append(f"\n{render.printable(finding.text)} {finding.advice}", style="not bold")
        table.add_row(Text(finding.severity, style=STYLES[finding.severity]), f"{finding.count:,}", said)
    if checked.findings:
        render.show("", table)
    places = f"{files['page']} shows the pictures, {files['file']} lists every finding."
    render.show("", Text(verdict(checked), style="bold"), render.printable(places))
