"""``tenfold tune``: a search for a better recipe, its best trials shown as they come."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import (
    OUT,
    WHERE,
    Epochs,
    RecipeChanges,
    ResultAsJson,
    TrainingData,
    duration,
    out_option,
    overrides_of,
    recipe_option,
    time_limit_option,
    where_option,
)

if TYPE_CHECKING:
    from tenfold.tuning.records import Trial, Tuning, Update

SEARCH = "The search"
BEST = 8  # trials in the live table
REDRAW_SECONDS = 0.25
LOG_SECONDS = 60.0  # a log without any news has a line this often


def tune(
    data: TrainingData = None,
    recipe: Annotated[str, recipe_option("Where the search begins; its tune section says what is searched.")] = "quick",
    changes: RecipeChanges = None,
    epochs: Epochs = None,
    trials: Annotated[
        int | None,
        typer.Option(
            metavar="N", rich_help_panel=SEARCH, help="Trials in the study (default: 30, or as --time-limit allows)."
        ),
    ] = None,
    time_limit: Annotated[str | None, time_limit_option("For everything: 30m, 2h or 1h30m, 90s.", SEARCH)] = None,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N",
            rich_help_panel=SEARCH,
            help="Trainings of each candidate at the end; 0 confirms and tests none.",
        ),
    ] = 3,
    slower: Annotated[
        bool, typer.Option("--slower", rich_help_panel=SEARCH, help="Let trials train longer than the recipe does.")
    ] = False,
    workers: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=WHERE, help="Trials at a time, each in a process.")
    ] = 1,
    engine: Annotated[str, where_option("torch, tensorflow, jax or opencl.")] = "torch",
    device: Annotated[str, where_option("auto (the fastest), cpu, cuda, cuda:1 …")] = "auto",
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=OUT,
            show_default=False,
            help="postgresql://…, mysql://…, or a journal file (default: a journal in the folder).",
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", rich_help_panel=OUT, show_default=False, help="The study's name; one that is there goes on."
        ),
    ] = None,
    out: Annotated[
        Path | None, out_option("The folder (default: runs/tune-<study>, or runs/tune-<data>-<recipe>-<n>).")
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Search a better recipe: many short trainings, judged on validation images, the best confirmed with other seeds.

    The recipe itself is the first trial. At the end best.yaml is a recipe to train with.

    Ctrl-C keeps every finished trial and prints the command that goes on from there.
    """
    overrides = overrides_of(changes or [], {"--epochs": epochs})
    limit = None if time_limit is None else duration(time_limit)
    from tenfold import hardware
    from tenfold.tuning.work import tune as work

    title = f"{data or 'digits'} · recipe {recipe}"
    with _display(title) as listen:
        result = work(
            data or "digits",
            recipe=recipe,
            engine=engine,
            device=device,
            overrides=overrides,
            trials=trials,
            time_limit=limit,
            workers=workers,
            storage=storage,
            study=study,
            seeds=seeds,
            slower=slower,
            out=out,
            listen=listen,
            since=hardware.process_started(),
        )
    if as_json:
        render.print_json(result.to_dict())
    else:
        _show(result)
    _places(result)
    if result.best is None:
        raise typer.Exit(1)


# ---- while it runs -------------------------------------------------------------------------------------------------


@contextmanager
def _display(title: str) -> Iterator[Callable[[Any], None]]:
    """The best trials redrawn in place in a terminal, a line for each trial in a log."""
    from tenfold.cli.live import live_terminal
    from tenfold.data.progress import Progress

    with render.progress() as bars:
        shown: Any = _Live(title) if live_terminal(sys.stderr) else _Log()

        def take(event: Any) -> None:
            if isinstance(event, Progress):
                bars(event)
            else:
                shown.take(event)

        try:
            yield take
        finally:
            shown.close()


class _Log:
    def __init__(self) -> None:
        self.last = time.monotonic()

    def take(self, update: Update) -> None:
        line = news(update)
        if line is None and time.monotonic() - self.last >= LOG_SECONDS:
            line = f"{_budget(update)}: {_under_way(update)}"
        if line is not None:
            self.last = time.monotonic()
            print(render.printable(line).replace("\n", " "), file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class _Live:
    """Rich's live display; what a log would say of notes stands above it."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self.title, self.drawn = title, 0.0
        self.live = Live(console=render.console(), auto_refresh=False, transient=True)
        self.begun = False

    def take(self, update: Update) -> None:
        if not self.begun:
            self.live.start()
            self.begun = True
        if update.note:
            self.live.console.print(render.printable(update.note), style="yellow")
        now = time.monotonic()
        if now - self.drawn >= REDRAW_SECONDS or update.ended or update.confirmed:
            self.drawn = now
            self.live.update(board(self.title, update), refresh=True)

    def close(self) -> None:
        if self.begun:
            self.live.stop()


def news(update: Update) -> str | None:
    """What has just happened, in a line."""
    if update.note:
        return update.note
    if (one := update.confirmed) is not None:
        seed = list(one.accuracies)[-1]
        took = words.seconds(one.seconds[seed])
        return f"Confirming {one}, seed {seed}: {words.percent(one.accuracies[seed])} in {took}"
    if (trial := update.ended) is None:
        return None
    figure = f" {words.percent(trial.value)}" if trial.value is not None else ""
    took = f" in {words.seconds(trial.seconds)}" if trial.seconds else ""
    epochs = f", {trial.epochs:.3g} epochs" if trial.epochs else ""
    why = f": {trial.why}" if trial.why else ""
    state = "" if trial.state == "complete" else f" {trial.state}"
    return f"{_budget(update)} {trial}:{figure}{state}{took}{epochs}{why}"


def _budget(update: Update) -> str:
    ended = sum(t.state in ("complete", "pruned", "failed") for t in update.trials)
    wanted = "" if update.wanted is None else f"/{update.wanted}"
    left = "" if update.left is None else f", {words.seconds(max(0.0, update.left))} left"
    return f"[{ended}{wanted}{left}]"


def _under_way(update: Update) -> str:
    parts = [
        f"{r.name} {100 * r.done:.0f} %" + (f" ({words.percent(r.value)})" if r.value is not None else "")
        for r in update.running
    ]
    return ", ".join(parts) or "starting"


def board(title: str, update: Update) -> Any:
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble((title, "bold"), f"  {update.phase}")
    counts = {s: sum(t.state == s for t in update.trials) for s in ("complete", "pruned", "failed")}
    figures = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial has ended"
    times = [f"{words.seconds(update.elapsed)} gone"]
    times += [] if update.left is None else [f"{words.seconds(max(0.0, update.left))} left"]
    times += [] if update.estimate is None else [f"done in about {words.seconds(update.estimate)}"]
    wanted = "" if update.wanted is None else f" of {update.wanted}"
    return Group(
        head,
        Text(f"{figures}{wanted}; {', '.join(times)}"),
        _table(update.trials, BEST, 5),
        Text(f"now: {_under_way(update)}", style="dim"),
    )


def _table(trials: Sequence[Trial], most: int, fields: int) -> Any:
    """The best trials that were trained to the end, with the fields that differ among them most."""
    from rich.table import Table
    from rich.text import Text

    from tenfold.tuning.page import shown
    from tenfold.tuning.records import completed

    best = completed(trials)[:most]
    names = list(dict.fromkeys(name for t in best for name in t.params))[:fields]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title, side in (("", "left"), ("val", "right"), ("epochs", "right"), ("training", "right")):
        table.add_column(title, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for name in names:
        table.add_column(name.rpartition(".")[2], justify="right", no_wrap=True)
    for t in best:
        cells = [shown(t.params.get(name)) for name in names]
        took = words.seconds(t.seconds) if t.seconds else ""
        epochs = f"{t.epochs:.3g}" if t.epochs else ""
        table.add_row(Text(str(t), style="bold"), words.percent(t.value), epochs, took, *cells)
    return table


# ---- at its end ----------------------------------------------------------------------------------------------------


def _show(result: Tuning) -> None:
    from rich.text import Text

    counts = ", ".join(f"{count} {state}" for state, count in result.counts().items())
    head = Text(f"{render.printable(result.data)}, recipe {result.recipe['name']}", style="bold")
    head.append(
        f": {words.count(len(result.trials), 'trial')} ({counts}) in {words.seconds(result.seconds['total'])}",
        "not bold",
    )
    parts: list[Any] = [head]
    if any(t.state == "complete" for t in result.trials):
        parts += ["", _table(result.trials, 5, 4)]
    if any(c.accuracies for c in result.confirmed):
        parts += ["", _confirmations(result)]
    parts += ["", *(Text(sentence) for sentence in verdict(result))]
    parts += [Text(f"Note: {render.printable(note)}", style="yellow") for note in result.notes]
    render.show(*parts)


def _confirmations(result: Tuning) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("confirmed", no_wrap=True)
    for title in ("seeds", "val mean", "lowest", "highest", "training"):
        table.add_column(title, justify="right", no_wrap=True)
    for c in result.confirmed:
        if c.span is not None:
            figures = [words.percent(v) for v in (c.mean, *c.span)]
            took = words.seconds(c.mean_seconds() or 0.0)
            table.add_row(Text(str(c), style="bold"), str(len(c.accuracies)), *figures, took)
    return table


def spread_in_words(result: Tuning) -> str:
    """How the winner's gain stands to the seeds'."""
    won = result.winning()
    if won is None or len(won.accuracies) < 2:
        return "by one seed, which tells no spread"
    return "more than the spread of the seeds" if result.clear else "within the spread of the seeds"


def verdict(result: Tuning) -> list[str]:
    """Who won, by how much, and what the test split says: in sentences."""
    won = result.winning()
    found = []
    if result.recipe_won and won is not None:
        found.append("No trial is better than the recipe itself over the same seeds: best.yaml is the recipe.")
    elif won is not None and result.gain is not None:
        how = spread_in_words(result)
        found.append(f"{str(won).capitalize()} is better than the recipe by {100 * result.gain:.2f} points, {how}.")
    elif won is not None:
        known = any(c.recipe for c in result.confirmed)
        why = "there was no time to confirm the recipe itself" if known else "the recipe itself could not be trained"
        found.append(f"{str(won).capitalize()} is the winner; {why}.")
    if result.test is not None:
        reads = "" if result.test_reads == 1 else f" (the test split was read {result.test_reads} times in this study)"
        found.append(
            f"Test accuracy of the winner {words.percent(result.test['accuracy'])} on "
            f"{words.count(result.test['n'], 'image')}{reads}."
        )
    return found


def _places(result: Tuning) -> None:
    from rich.text import Text

    console = render.console()
    lines = [Text.assemble(("Page    ", "dim"), str(result.page))]
    if result.best is not None:
        best, data = shlex.quote(str(result.best)), shlex.quote(result.data)
        lines.append(Text.assemble(("Recipe  ", "dim"), str(result.best)))
        lines += [Text("Next", style="dim"), Text(f"  tenfold train {data} --recipe {best}")]
    for line in lines:
        console.print(Text(render.printable(line.plain)) if not line.plain.isprintable() else line, soft_wrap=True)
