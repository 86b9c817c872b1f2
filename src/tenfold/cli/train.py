"""``tenfold train``: from a dataset's name or a folder of pictures to a run folder, shown as it goes."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import distributed, words
from tenfold.cli import render
from tenfold.cli.options import (
    OUT,
    RECIPE,
    BatchSize,
    Epochs,
    RecipeChanges,
    ResultAsJson,
    TrainingData,
    out_option,
    overrides_of,
    recipe_option,
    time_limit_option,
    where_option,
)
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.training import TrainResult


def train(
    data: TrainingData = None,
    recipe: Annotated[str | None, recipe_option("A shipped recipe or a YAML file (default: auto).")] = None,
    changes: RecipeChanges = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Annotated[
        int | None, typer.Option(rich_help_panel=RECIPE, help="Of first weights, order and augmentation.")
    ] = None,
    time_limit: Annotated[
        str | None, time_limit_option("Train no longer than 30s, 10m, 2h or 1h30m, the schedule fitted to it.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="N", rich_help_panel=RECIPE, help="Stop after N epochs without a better validation accuracy."
        ),
    ] = None,
    engine: Annotated[str | None, where_option("The framework: torch (default), tensorflow, jax, opencl.")] = None,
    device: Annotated[str | None, where_option("auto (the fastest, default), cpu, cuda, cuda:1, opencl:0 …")] = None,
    out: Annotated[Path | None, out_option("The run folder itself (default: runs/<data>-<recipe>-<n>).")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", rich_help_panel=OUT, help="Go on with a run that was stopped; takes no other option."
        ),
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Train a model, measure it on the test images, and leave a run folder with the model and a report.

    The recipe decides everything. --set changes any of its fields; tenfold recipes --fields lists them. The named
    options are short for some of them.

    Ctrl-C leaves a checkpoint and prints the command that goes on from there.
    """
    named = {
        "--epochs": epochs,
        "--batch-size": batch_size,
        "--seed": seed,
        "--time-limit": time_limit,
        "--patience": patience,
    }
    if resume is not None:
        given = {"DATA": data, "--recipe": recipe, "--engine": engine, "--device": device, "--out": out}
        _refuse_with_resume(resume, {**given, "--set": changes or None, **named})
    overrides = overrides_of(changes or [], named)
    call: dict[str, Any] = {"resume": resume}
    if resume is None:
        call = {
            "data": data or "digits",
            "recipe": recipe or "auto",
            "engine": engine or "torch",
            "device": device or "auto",
            "overrides": overrides,
            "out": out,
        }
    if distributed.follows():
        _follow(call)
        return
    result = _run(call)
    _tell(result)
    if as_json:
        render.print_json(result.to_dict())


def _refuse_with_resume(run: Path, options: Mapping[str, Any]) -> None:
    """A resumed run goes on as it was started; anything that would make it another run is refused."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise CallError(
            f"--resume goes on with the run as it was started: {', '.join(given)} can't be given with it.",
            f"tenfold train --resume {shlex.quote(str(run))} is the whole call; for another recipe start a new run.",
        )


# ---- the work and its result ----------------------------------------------------------------------------------


def _run(call: dict[str, Any]) -> TrainResult:
    from tenfold import hardware
    from tenfold.cli.live import display
    from tenfold.training import train as work

    resume = call.get("resume")
    title = f"{call['data']} · recipe {call['recipe']}" if resume is None else f"going on with {resume}"
    with display(title, _limit(call)) as listen:
        return work(**call, listen=listen, since=hardware.process_started())


def _follow(call: dict[str, Any]) -> None:
    """A process that is not the first of its training, and says nothing."""
    from tenfold.training import train as work

    work(**call)


def _limit(call: Mapping[str, Any]) -> float | None:
    """The seconds that training may take. A resumed run has used up some of them, so it is shown by its steps."""
    from tenfold import recipe as recipes

    if "time_limit" in call.get("overrides", {}):
        value = call["overrides"]["time_limit"]  # as yet unchecked: train() refuses what is no time
        return float(value) if isinstance(value, (int, float)) and value > 0 else None
    return recipes.load(call["recipe"]).time_limit if call.get("recipe", "auto") != "auto" else None


def _tell(result: TrainResult) -> None:
    """The result in words, on standard error: figures, what was left where, what to do next."""
    from rich.text import Text

    console = render.console()
    run, report = shlex.quote(str(result.path)), shlex.quote(str(result.report))
    parts = [
        f"{name} {words.seconds(value)}" for name, value in result.seconds.items() if name != "total" and value >= 0.05
    ]
    console.print(_figure(result))
    console.print(_filled(f"in {words.seconds(result.seconds['total'])}:", parts, console.width))
    lines = [
        Text(),
        Text.assemble(("Report  ", "dim"), str(result.report)),
        Text.assemble(("Model   ", "dim"), str(result.bundle)),
        Text(),
        Text("Next", style="dim"),
        Text(f"  tenfold predict {run} photo.jpg"),
        Text(f"  tenfold evaluate {run}"),
        Text(f"  {_opener()} {report}"),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)  # a path is never broken: it is there to be copied


def _filled(start: str, parts: list[str], width: int) -> str:
    """``start`` and the parts after it, in lines of ``width``; a part is never broken."""
    joined = ", ".join(part.replace(" ", "\u00a0") for part in parts)
    return textwrap.fill(f"{start} {joined}", width).replace("\u00a0", " ")


def _figure(result: TrainResult) -> Any:
    from rich.text import Text

    if result.test is None:
        return Text("Trained; the data has no test images to measure it on.", style="bold")
    low, high = result.test.interval
    return Text.assemble(
        (f"Test accuracy {words.percent(result.test.accuracy)}", "bold green"),
        f" on {words.count(result.test.n, 'image')} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        + _with_tta(result)
        + _ending(result),
    )


def _with_tta(result: TrainResult) -> str:
    if result.accuracy_with_tta is None:
        return ""
    return f", {words.percent(result.accuracy_with_tta)} with test-time augmentation"


def _ending(result: TrainResult) -> str:
    epochs = f"{result.epochs:g} epochs"
    return {
        "patience": f", stopped after {epochs} without a better validation accuracy",
        "time_limit": f", after {epochs}: all that the time limit allowed",
    }.get(result.ended, "")


def _opener() -> str:
    """The command that opens a file in a browser here."""
    return {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
