"""``tenfold serve``'s arguments; what a server does is in tests/serving."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs tenfold[serve]")

from tenfold.cli import serve
from tenfold.cli.app import run
from tenfold.errors import CallError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("32MiB", 32 * 2**20),
        ("10MB", 10**7),
        ("10 mb", 10**7),
        ("1.5k", 1500),
        ("1KiB", 1024),
        ("2g", 2 * 10**9),
        ("7", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert serve._size(text, "--memory") == size


@pytest.mark.parametrize("text", ["", "0", "MB", "-1", "1T", "1 000", "nan", "1e6"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(CallError, match="--memory"):
        serve._size(text, "--memory")


def test_models_have_the_names_of_their_runs_or_those_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = serve._models(["runs/cifar 10 ü", "b=runs/x", "/runs/c/model", "d/model/model.onnx", "e/net.onnx"])
    assert list(found) == ["cifar-10-", "b", "c", "d", "net"]
    assert found["b"] == Path("runs/x")
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert serve._models(["a=b"]) == {"a-b": Path("a=b")}, "a folder that has the mark in its name"
    with pytest.raises(CallError, match="Two models are called x"):
        serve._models(["a/x", "x=b"])


def test_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold import hardware

    monkeypatch.setattr(hardware, "cores", lambda: 3)
    assert serve._workers("auto") == 3 and serve._workers("7") == 7
    for odd in ("0", "-1", "many", "1.5", "٣", "99999"):
        with pytest.raises(CallError, match="--workers"):
            serve._workers(odd)


def test_the_clouds_say_their_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/health")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "nonsense")
    assert serve._clouds() == {"health": "/health"}


def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--help"]) == 0
    out = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()
    options = {
        word.strip("`,") for word in page.split("## Options")[1].split("## ")[0].split() if word.startswith("`--")
    }
    assert len(options) > 15
    for option in options:
        assert option in out, option


@pytest.mark.parametrize(
    "options", [["--deadline", "0"], ["--queue", "0"], ["--max-pixels", "nan"], ["--log", "xml"], ["--port", "-1"]]
)
def test_wrong_options_end_with_2_in_a_line(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "anything", *options]) == 2
    err = capsys.readouterr().err
    assert options[0] in err and len(err.strip().splitlines()) <= 2
