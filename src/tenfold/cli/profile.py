"""``tenfold profile``: where the time of training steps, or of a model's prediction, goes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import OUT, ResultAsJson, overrides_of
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.profiling.records import Profile

TRAINING, PREDICTION = "Training, where SUBJECT is data", "Prediction, where SUBJECT is a model"
BAR = 46  # columns
KINDS, NODES = 12, 8  # rows


def profile(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA|RUN",
            help="Data as for train, to profile training; or the folder of a run, a bundle or an exported artifact, or "
            "a model.onnx, to profile prediction. digits where left out.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=False, help="Profile N steps, or batches (default: as many as take two seconds)."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Of the engine: auto (the fastest), cpu, cuda, cuda:1, opencl:0 …")
    ] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(show_default=False, help="Images a step, or a batch (default: the recipe's, or 64).")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="NAME|FILE", rich_help_panel=TRAINING, help="A shipped recipe or a YAML file."
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", rich_help_panel=TRAINING, help="Change any field of the recipe; repeatable."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=TRAINING, help="torch (default), tensorflow, jax, opencl."),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            rich_help_panel=TRAINING,
            show_default=False,
            help="Take the steps as they are when this share of the run is behind, 0 (default) to below 1: the first "
            "may be on smaller pictures.",
        ),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=PREDICTION,
            help="What computes: onnxruntime (default), openvino, or an engine.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", rich_help_panel=PREDICTION, help="Of the runtime (default: every core)."),
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            rich_help_panel=PREDICTION,
            show_default=False,
            help="Pictures, folders or patterns to predict; repeatable (default: the model's golden images).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=OUT,
            show_default=False,
            help="The folder (default: runs/profile-<subject>-<n>).",
        ),
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Tell where the time of training steps goes, or of a model's prediction.

    Prints a table, and leaves a page, the figures as JSON and a Chrome trace.
    """
    from tenfold.profiling.prediction import is_model
    from tenfold.profiling.work import profile as work

    subject = subject or "digits"
    of_training = {"--recipe": recipe, "--set": changes or None, "--engine": engine, "--at": at}
    of_prediction = {"--runtime": runtime, "--threads": threads, "--pictures": pictures or None}
    call: dict[str, Any]
    if is_model(subject):
        _refuse(of_training, subject, "a model", "data")
        call = {
            "runtime": runtime or "onnxruntime",
            "threads": threads,
            "batch_size": 64 if batch_size is None else batch_size,
            "pictures": _found(pictures),
        }
    else:
        _refuse(of_prediction, subject, "no model", "a model")
        call = {
            "recipe": recipe or "auto",
            "engine": engine or "torch",
            "overrides": overrides_of(changes or [], {"--batch-size": batch_size}),
            "at": at or 0.0,
        }
    command = shlex.join(["tenfold", *sys.argv[1:]])
    with render.progress() as report:
        found = work(subject, device=device, steps=steps, out=out, command=command, report=report, **call)
    if as_json:
        render.print_json(found.to_dict())
    else:
        show(found)
    _places(found)


def _refuse(options: dict[str, Any], subject: str, what: str, other: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise CallError(
            f"{subject} is {what}: {', '.join(given)} can't be given with it.", f"{', '.join(given)} go with {other}."
        )


def _found(given: list[str] | None) -> list[str]:
    from tenfold.cli import pictures

    if not given:
        return []
    if pictures.STANDARD_INPUT in given:
        raise CallError("--pictures -: pictures are predicted again and again, so standard input can't give them.")
    found, missing = pictures.find(given)
    for skipped in missing:
        print(f"{render.printable(skipped.path)}: {render.printable(skipped.reason)}", file=sys.stderr)
    return found


# ---- for people ------------------------------------------------------------------------------------------------------


def show(found: Profile) -> None:
    from rich.text import Text

    unit = found.unit
    what = f"recipe {found.recipe['name']}, " if found.recipe else ""
    head = Text(render.printable(found.subject), style="bold")
    head.append(f": {what}{found.computed_by} on {found.device} ({found.device_label}), {found.precision}", "not bold")
    size = f"{found.images} images of {found.pixels} pixels"
    pace = f"{words.rate(found.images_per_second)}, {words.seconds_fine(found.seconds)} a {unit} of {size}"
    lines: list[Any] = [head, Text(f"{pace}; peak memory {words.size(found.memory_bytes)}"), ""]
    lines += [_parts(found), ""]
    if found.kinds:
        lines += [_kinds(found), ""]
    if found.kind == "prediction" and found.operations:
        lines += [_nodes(found), ""]
    if found.phases:
        phases = ", ".join(f"{n} {words.seconds(v)}" for n, v in found.phases.items() if n != "total" and v >= 0.05)
        lines += [Text(f"The training took {words.seconds(found.phases.get('total', 0.0))}: {phases}."), ""]
    lines += [Text(f"• {sentence}") for sentence in found.advice]
    lines += [Text(f"Note: {render.printable(note)}", style="yellow") for note in found.notes]
    lines += ["", Text(_measured(found), style="dim")]
    render.show(*lines)


def _measured(found: Profile) -> str:
    cost = found.profiled / max(found.seconds, 1e-12) - 1
    units = words.count(found.units, found.unit, "steps" if found.kind == "training" else "batches")
    if found.kind == "prediction":
        return (
            f"{units}, one part after the other; the rate above is predict's, which decodes ahead while the model "
            f"computes. Nodes: {found.profiler}."
        )
    slower = f"{100 * cost:.0f} % slower than without" if cost >= 0.005 else "no slower than without"
    return f"{units} by {found.profiler}, {slower}; the rate above is without."


def _parts(found: Profile) -> Any:
    from rich.text import Text

    styles = {"data": "yellow", "decode": "yellow", "host": "cyan", "copy": "cyan", "device": "blue", "model": "blue"}
    bar, table = Text(), _grid(["", f"a {found.unit}", "share"])
    whole = max(found.whole, 1e-12)
    for part in found.parts:
        share = part.seconds / whole
        style = styles.get(part.key, "bright_black" if part.key == "idle" else "green")
        bar.append("█" * round(BAR * share), style)
        table.add_row(Text(part.name, style=style), words.seconds_fine(part.seconds), words.percent(share, 1))
    from rich.console import Group

    return Group(bar, table) if render.output().is_terminal else table


def _kinds(found: Profile) -> Any:
    table = _grid(["device" if found.kind == "training" else "operator", f"a {found.unit}", "share"])
    for cost in found.kinds[:KINDS]:
        table.add_row(cost.name, words.seconds_fine(cost.seconds), words.percent(cost.share, 1))
    return table


def _nodes(found: Profile) -> Any:
    from tenfold.evaluation.svg import shorten

    table = _grid(["slowest nodes", f"a {found.unit}", "share"])
    for node in found.operations[:NODES]:
        name = f"{shorten(render.printable(node.name), 30)} ({node.kind})"
        table.add_row(name, words.seconds_fine(node.seconds), words.percent(node.share, 1))
    return table


def _grid(titles: list[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(titles[0], no_wrap=True, min_width=34)
    for title in titles[1:]:
        table.add_column(title, justify="right", no_wrap=True, min_width=9)
    return table


def _places(found: Profile) -> None:
    console = render.console()
    assert found.path is not None
    for title, name in (("Page", "profile.html"), ("Figures", "profile.json"), ("Trace", "trace.json.gz")):
        console.print(f"{title:8} {render.printable(str(found.path / name))}", soft_wrap=True)
