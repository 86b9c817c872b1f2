"""The command line: which verbs there are, and what becomes of an error.

A verb's module is imported when that verb is called and not before, so ``tenfold predict`` pays for predict
alone, and a module that can't be imported breaks its own verb only. Each module ``tenfold.cli.<verb>`` holds
one plain function of the verb's name with Typer's annotations.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong, 130 interrupted. A failure with ``--json`` also
prints ``{"error": {"kind", "message", "hint", "exit_code"}}`` on standard output, so a script finds one JSON
object there; ``kind`` is the error's class, of the tree in ``tenfold.errors``. An error that is none of
these keeps its traceback: it is a bug.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import select
import sys
import traceback
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tenfold.cli import render
from tenfold.cli.coercion import LightCommand, lightened
from tenfold.errors import CallError, StoppedError, TenfoldError, UnknownNameError, nearest

MODEL, DATA, LOOKUP = "Models", "Data", "Reference"


HELP = """From a dataset's name or a folder of pictures to a trained, measured, explained model.

A first try: tenfold train digits. A command's own help: tenfold COMMAND --help. Every command takes --json: \
one JSON object on standard output, everything else on standard error.
"""


@dataclass(frozen=True)
class Verb:
    """``line`` is the help of one line, kept here so that listing the verbs imports none of them."""

    panel: str
    line: str


VERBS = {
    "train": Verb(MODEL, "Train a model on a dataset; leaves a run folder with a report."),
    "evaluate": Verb(MODEL, "Measure a trained model on a dataset: accuracy, each class."),
    "compare": Verb(MODEL, "Train in several engines, on several devices: speed, memory, accuracy."),
    "tune": Verb(MODEL, "Search a better recipe: many short trainings, the best confirmed."),
    "bench": Verb(MODEL, "Measure a model in every runtime and device: speed, latency, memory."),
    "profile": Verb(MODEL, "Say where the time of training or prediction goes; a page, a trace."),
    "predict": Verb(MODEL, "Classify pictures with a trained model."),
    "serve": Verb(MODEL, "Put a trained model behind HTTP: a page, an API, figures."),
    "verify": Verb(MODEL, "Ask every engine and runtime here for a model's answers; compare."),
    "export": Verb(MODEL, "Write a trained model in other formats; keep what gives its answers."),
    "show": Verb(DATA, "Draw samples of each class and count the classes."),
    "check": Verb(DATA, "Find corrupt files, duplicates, train/test leaks, imbalance."),
    "recipes": Verb(LOOKUP, "List the recipes, or print one with what its fields mean."),
    "doctor": Verb(LOOKUP, "Say what this machine has, what is missing, how to get it."),
}

# Newer versions of Typer ship their own copy of Click: the errors' base class is had without naming either.
_ClickError: Any = typer.BadParameter.__mro__[2]


class _Verbs(TyperGroup):
    """The group of all verbs; a verb's command is made when it is asked for."""

    listing = False

    def get_params(self, ctx: Any) -> Any:
        return lightened(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        return _listed(cmd_name) if self.listing else _command(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.listing = False

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not args[0].startswith("-") and args[0] not in VERBS:
            raise UnknownNameError("command", args[0], VERBS)
        return super().resolve_command(ctx, args)


def _listed(verb: str) -> Any:
    """A command that only knows its line of help."""
    app = typer.Typer(add_completion=False)
    app.command(verb, help=VERBS[verb].line, rich_help_panel=VERBS[verb].panel)(lambda: None)
    return typer.main.get_command(app)


def _command(verb: str) -> Any:
    module = importlib.import_module(f"tenfold.cli.{verb}")
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    function = getattr(module, verb)
    app.command(verb, cls=LightCommand, help=_flowing(function.__doc__), short_help=VERBS[verb].line)(function)
    return typer.main.get_command(app)


def _flowing(text: str | None) -> str:
    """A docstring with each paragraph on one line, for the terminal to break where it must."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(p if "\n  " in p or p.startswith("  ") else " ".join(p.split()) for p in paragraphs)


app = typer.Typer(name="tenfold", cls=_Verbs, rich_markup_mode="rich", pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        from tenfold import __version__

        print(f"tenfold {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, help=HELP)
def tenfold(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """The options of the program itself; what it says of itself is HELP."""
    if context.invoked_subcommand is None:
        print(context.get_help(), end="")
        raise typer.Exit(2)


def run(args: list[str]) -> int:
    """Run one command line and give its exit code; errors are shown here, and only here."""
    render.prepare_streams()
    command = typer.main.get_command(app)
    if "_TENFOLD_COMPLETE" in os.environ:  # a shell asks for completions; Typer answers it and leaves
        command.main(args, prog_name="tenfold")
    as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
    try:
        with command.make_context("tenfold", list(args)) as context:
            command.invoke(context)
        code = 0
        sys.stdout.flush()
    except typer.Exit as leave:
        code = leave.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _fail(StoppedError("Interrupted."), as_json)
    except TenfoldError as error:
        code = _fail(error, as_json)
    except _ClickError as error:
        code = _fail(_explained(error), as_json)
    except BrokenPipeError:
        code = _pipe_closed()
    except Exception as error:
        traceback.print_exc()
        code = render.fail(error, as_json)
    return _flushed(code)


def _fail(error: TenfoldError, as_json: bool) -> int:
    """Shows the error and gives its exit code. Of the several processes of a training one shows what all have met."""
    from tenfold import distributed

    met_by_all = isinstance(error, CallError | StoppedError) and distributed.follows()
    return error.exit_code if error.told or met_by_all else render.fail(error, as_json)


def _explained(error: Any) -> CallError:
    """Typer's complaint about the call as ours: one sentence, and the nearest option where one is unknown."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "tenfold"
    help_line = f"{path} --help explains the call."
    option = getattr(error, "option_name", None)
    if option is None or context is None or not str(error.message).startswith("No such option"):
        text = error.format_message().strip()
        return CallError(text if text.endswith((".", "?")) else f"{text}.", help_line)
    known = [o for p in context.command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")]
    near = nearest(option, known)
    if context.parent is None:
        help_line = f"A command's options stand after its name: tenfold COMMAND {option}. {help_line}"
    elif near:
        help_line = f"Did you mean {near}? {help_line}"
    return CallError(f"{path} has no option {option}.", help_line)


def _pipe_closed() -> int:
    """The reader of our output has gone (``| head``): end quietly. Any other broken pipe is a bug, shown."""
    if not _reader_gone():
        traceback.print_exc()
    return 1


def _reader_gone() -> bool:
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on Windows, or no real standard output
        return True


def _flushed(code: int) -> int:
    """Flush while a closed pipe can still be met quietly; Python's own flush at the end would complain."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 1
    return code
