"""``tenfold export``: a trained model in other formats, each held to the bundle's answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import AsJson

if TYPE_CHECKING:
    from tenfold.export.gate import Replay
    from tenfold.export.verdicts import Exported, Result

GOOD, ASIDE, BAD = "green", "yellow", "bold red"
STATES = {
    "exported": ("exported", GOOD),
    "kept": ("kept, too far off", ASIDE),
    "refused": ("refused", BAD),
    "failed": ("failed", BAD),
    "unavailable": ("not available", ASIDE),
    "not installed": ("not installed", ASIDE),
}


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or a bundle folder.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="FORMAT", show_default=False, help="Which format; several times for several."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Each format gets a folder in it.", show_default="exports in the run"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            show_default=False,
            help="Other data than the model's own, to calibrate and to judge with: a dataset's name, a folder, a CSV.",
        ),
    ] = None,
    allow_drift: Annotated[
        bool, typer.Option("--allow-drift", help="Keep an artifact whose answers are further off than they may be.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained model in other formats, and keep those that give its answers.

    Formats: onnx, onnx-fp16, onnx-int8, openvino, openvino-fp16, saved-model, litert, litert-int8, torch-export,
    triton, tensorrt, tensorrt-fp16; or all, every one that can be had here.

    Each artifact is reopened in its own runtime and asked for the golden images and the validation split. One that is
    further off than its format may be is refused, with exit code 1. predict, evaluate and serve take what is kept.
    """
    from tenfold.export.job import export_model

    with render.progress() as report:
        found = export_model(run, formats or [], out=out, data=data, allow_drift=allow_drift, report=report)
    if as_json:
        render.print_json({"run": str(run), **found.to_dict()})
    else:
        _show(found)
    if not found.passed:
        raise typer.Exit(1)


# ---- for people ------------------------------------------------------------------------------------------------------


def _show(found: Exported) -> None:
    from rich.text import Text

    name = render.printable(found.model).replace("\n", "\\n")
    there = [r for r in found.results if r.path]
    head = f"{name}: {words.count(len(there), 'artifact')} of {words.count(len(found.results), 'format')}"
    parts: list[Any] = [Text(head, style="bold" if found.passed else BAD)]
    judged = [r for r in found.results if r.verdict]
    if judged:
        parts += ["", _table(judged)]
    without = [r for r in found.results if r.message]
    if without:
        parts += ["", _reasons(without)]
    kept = [reason for r in found.results if r.state == "kept" and r.verdict for reason in r.verdict.reasons]
    for note in [*found.notes, *kept]:
        parts += ["", Text(f"Note: {render.printable(note)}", style=ASIDE)]
    if there:
        parts += ["", _paths(there)]
    parts += ["", Text(f"Each was reopened in its runtime. {words.seconds(found.seconds)} in all.", style="dim")]
    render.show(*parts)


def _table(judged: list[Result]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in ("golden", "split", "top-1", "accuracy", "change", "size", "load"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for result in judged:
        assert result.verdict
        by_set = {part.set: part for part in result.verdict.sets}
        golden = by_set.pop("golden")
        said, style = STATES[result.state]
        figures = _split(next(iter(by_set.values()), None))
        size, load = words.size(result.verdict.bytes), words.seconds(result.verdict.load_seconds)
        table.add_row(result.format, _difference(golden), *figures, size, load, Text(said, style=style))
    return table


def _split(part: Replay | None) -> tuple[str, str, str, str]:
    """Difference, agreement, accuracy and its change on the split."""
    if part is None:
        return "–", "–", "–", "–"
    same = words.percent((part.images - part.top1_changed) / part.images, 1)
    if part.accuracy is None or part.expected_accuracy is None:
        return _difference(part), same, "–", "–"
    change = 100 * (part.accuracy - part.expected_accuracy)
    return _difference(part), same, words.percent(part.accuracy, 2), f"{change:+.2f}" if change else "0"


def _difference(part: Replay) -> str:
    value = part.max_difference
    if value == float("inf"):
        return "not finite"
    return f"{value:.1e}" if value else "0"


def _reasons(results: list[Result]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for result in results:
        said, style = STATES[result.state]
        table.add_row(result.format, Text(f"{said}: {render.printable(result.message or '')}", style=style))
    return table


def _paths(results: list[Result]) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    for result in results:
        table.add_row(result.format, render.printable(result.path or ""))
    return table
