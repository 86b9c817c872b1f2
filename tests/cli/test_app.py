from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer

from tenfold import __version__, errors
from tenfold.cli import app


def verb(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    """Let ``tenfold show`` run ``function`` for a test."""
    module = types.ModuleType("tenfold.cli.show")
    module.show = function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tenfold.cli.show", module)


def failing(error: BaseException):
    def show(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
        """Fails."""
        raise error

    return show


def tenfold(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a user runs it, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tenfold", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


def test_help_lists_every_verb_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    assert app.run(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, known in app.VERBS.items():
        assert name in listed
        assert " ".join(known.line.split()[:3]) in listed
    assert not [m for m in set(sys.modules) - before if m.startswith("tenfold.cli.")]


def test_every_verb_has_its_module_with_a_function_of_its_name() -> None:
    for name in app.VERBS:
        path = Path(app.__file__).with_name(f"{name}.py")
        assert f"def {name}(" in path.read_text()


def test_no_arguments_prints_the_help_and_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 2
    assert "Usage: tenfold" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"tenfold {__version__}\n"


def test_mistyped_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["trian", "cifar10"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Error: No command is called 'trian'.\nDid you mean train?")


def test_mistyped_option_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["recipes", "--jsn"]) == 2
    said = capsys.readouterr().err
    assert "tenfold recipes has no option --jsn." in said
    assert "Did you mean --json?" in said


def test_an_option_before_the_verb_is_told_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--json", "recipes"]) == 2
    said = capsys.readouterr()
    assert "tenfold COMMAND --json" in said.err
    assert json.loads(said.out)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recipes", "quick", "surplus"], "unexpected extra argument"),
        (["recipes", "quick", "--set"], "requires an argument"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_the_help(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("Error: ")
    assert expected in first
    assert "--help" in second


@pytest.mark.parametrize(
    "error",
    [
        errors.DataError("It is broken.", "Mend it."),
        errors.CallError("It is wrong."),
        errors.UnknownNameError("recipe", "quik", ["quick"]),
        errors.StoppedError("Stopped."),
    ],
)
def test_an_error_gives_its_exit_code_message_hint_and_json(
    error: errors.TenfoldError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(monkeypatch, failing(error))
    assert app.run(["show", "--json"]) == error.exit_code
    said = capsys.readouterr()
    assert said.err == f"Error: {error.message}\n" + (f"{error.hint}\n" if error.hint else "")
    assert json.loads(said.out) == {
        "error": {
            "kind": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
    }
    assert app.run(["show"]) == error.exit_code
    assert capsys.readouterr().out == ""


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    verb(monkeypatch, failing(KeyboardInterrupt()))
    assert app.run(["show"]) == 130
    assert capsys.readouterr().err == "Error: Interrupted.\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    verb(monkeypatch, failing(ZeroDivisionError("a bug")))
    assert app.run(["show", "--json"]) == 1
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert "in show" in said.err
    assert json.loads(said.out)["error"]["kind"] == "ZeroDivisionError"


def test_an_error_after_the_answer_prints_no_second_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tenfold.cli import render

    def show(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
        render.print_json({"done": True})
        raise errors.DataError("Too late.")

    verb(monkeypatch, show)
    assert app.run(["show", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"done": True}


def test_a_verb_that_can_not_be_imported_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tenfold.cli.show", None)
    assert app.run(["show"]) == 1
    assert app.run(["recipes", "--json"]) == 0
    assert app.run(["--help"]) == 0


def test_a_closed_pipe_ends_quietly() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tenfold", "recipes", "--fields"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 1


def test_a_name_that_is_not_text_is_printed_all_the_same() -> None:
    said = tenfold("recipes", os.fsdecode(b"/no/\xff\xfe\x1b[31m.yaml"), "--json")
    assert said.returncode == 2
    assert "\x1b" not in said.stderr
    assert "yaml" in json.loads(said.stdout)["error"]["message"]


def test_completion_answers_with_the_verbs() -> None:
    said = tenfold(_TENFOLD_COMPLETE="complete_bash", COMP_WORDS="tenfold re", COMP_CWORD="1")
    assert said.stdout.split() == ["recipes"]


# ---- parameters without Pydantic -------------------------------------------------------------------------------


def everything(
    name: Annotated[str, typer.Argument()],
    sources: Annotated[list[str] | None, typer.Argument()] = None,
    count: Annotated[int, typer.Option(min=1, max=9)] = 3,
    rate: Annotated[float, typer.Option()] = 0.5,
    path: Annotated[Path | None, typer.Option()] = None,
    kind: Annotated[Literal["a", "b"], typer.Option()] = "a",
    changes: Annotated[list[str] | None, typer.Option("--set")] = None,
    flag: Annotated[bool, typer.Option("--flag")] = False,
) -> None:
    """Take one of each."""
    print([name, sources, count, rate, path, kind, changes, flag])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["n"], ["n", None, 3, 0.5, None, "a", None, False]),
        (["n", "--count", "7", "--rate", "2"], ["n", None, 7, 2.0, None, "a", None, False]),
        (
            ["n", "x", "y", "--path", "p/q", "--flag", "--rate", "1e-3"],
            ["n", ["x", "y"], 3, 0.001, Path("p/q"), "a", None, True],
        ),
        (["n", "--kind", "b", "--set", "k=1", "--set", "l=2"], ["n", None, 3, 0.5, None, "b", ["k=1", "l=2"], False]),
    ],
)
def test_parameters_get_their_types(
    arguments: list[str],
    expected: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb(monkeypatch, everything)
    assert app.run(["show", *arguments]) == 0
    assert capsys.readouterr().out.strip() == repr(expected)


@pytest.mark.parametrize(
    "arguments", [["--count", "10"], ["--count", "0"], ["--count", "x"], ["--rate", "y"], ["--kind", "c"]]
)
def test_parameters_that_do_not_fit_are_refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(monkeypatch, everything)
    assert app.run(["show", "n", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_plain_parameters_cost_no_pydantic_and_no_rich() -> None:
    code = (
        "import sys, types, typer\n"
        "from pathlib import Path\n"
        "from typing import Annotated, Optional\n"
        "from tenfold.cli import app\n"
        "def show(run: Annotated[str, typer.Argument()], "
        "sources: Annotated[Optional[list[str]], typer.Argument()] = None,"
        " top: Annotated[int, typer.Option(min=1)] = 3, csv: Annotated[Optional[Path], typer.Option()] = None,"
        " json: Annotated[bool, typer.Option('--json')] = False): pass\n"
        "module = types.ModuleType('tenfold.cli.show'); module.show = show\n"
        "sys.modules['tenfold.cli.show'] = module\n"
        "assert app.run(['show', 'run', 'a.png', 'b.png', '--top', '5', '--csv', 'x.csv']) == 0\n"
        "heavy = {'pydantic', 'rich', 'yaml', 'numpy', 'torch', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
