"""``tenfold evaluate``: how good a stored model is, on the data it was trained with or on other data."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold import words
from tenfold.cli import render
from tenfold.cli.options import AnyModel, AsJson, Split
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.evaluation.metrics import ClassFigures, Evaluation
    from tenfold.evaluation.stored import Measured

EVALUATION = "evaluation.json"
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorflow": "TensorFlow", "litert": "LiteRT"}
IN_ORDER = 40  # with more classes the table shows the weakest
WEAKEST = 20
PAIRS = 8
NAME = 32  # columns of a class's name


def evaluate(
    run: AnyModel,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            show_default=False,
            help="Other data than the model's own: a dataset's name, a folder of class folders, or a CSV.",
        ),
    ] = None,
    split: Split = "test",
    tta: Annotated[
        str,
        typer.Option(metavar="T", help="Test-time augmentation: none, flip or flip+shift (2 and 6 times the work)."),
    ] = "none",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", show_default=False, help="Also write evaluation.json, report.html and plots/ into a folder."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a trained model: accuracy with its 95 % interval, each class, and what is confused with what.

    Without --data it is measured on the data it was trained with, on the same split. Nothing is written into the run.
    """
    _check_out(out)
    from tenfold.evaluation.stored import evaluate_fully

    started = time.monotonic()
    with render.progress() as report:
        measured = evaluate_fully(run, data, split, tta, report)
    took = time.monotonic() - started
    result = {"run": str(run), **measured.evaluation.to_dict(), "seconds": round(took, 3), "report": None}
    if out is not None:
        result["report"] = str(_write(out, run, data, measured, took, result))
    if as_json:
        render.print_json(result)
    else:
        _show(measured, took)
    if out is not None:
        render.console().print(f"Report  {render.printable(str(result['report']))}", soft_wrap=True)


def _check_out(out: Path | None) -> None:
    """Refuse, before any work, a folder whose files are a run's own or that can't be one."""
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise CallError(f"--out {out} is a file.", "Name a folder; it is made if it isn't there.")
    if (out / "run.json").exists() or (out / "manifest.json").exists():
        raise CallError(
            f"--out {out} is a run or a bundle, whose own evaluation and report would be replaced.",
            f"Name another folder, such as --out {shlex.quote(str(out / 'evaluation'))}.",
        )


def _write(out: Path, run: Path, data: str | None, measured: Measured, took: float, result: dict[str, Any]) -> Path:
    """``evaluation.json``, ``report.html`` and ``plots/`` in ``out``; the report's path."""
    from tenfold import paths
    from tenfold.evaluation import report

    out.mkdir(parents=True, exist_ok=True)
    path = report.write(out, _content(run, data, measured, took))
    text = json.dumps(render.plain({**result, "report": str(path)}), indent=2, ensure_ascii=False, allow_nan=False)
    paths.write_whole(out / EVALUATION, text + "\n")
    return path


def _content(run: Path, data: str | None, measured: Measured, took: float) -> Any:
    """The report's content: these figures, and of the training what the bundle and the run folder still know."""
    import datetime

    from tenfold import __version__, hardware
    from tenfold.evaluation.content import ReportContent
    from tenfold.evaluation.stored import history, recipe_text

    e, model = measured.evaluation, measured.model
    options = [f"--data {shlex.quote(data)}"] if data else []
    options += [f"--split {e.split}"] if e.split != "test" else []
    options += [f"--tta {e.tta}"] if e.tta != "none" else []
    speed = e.n / took if took else 0.0
    return ReportContent(
        title=f"{model.name} on {measured.dataset.name}, {e.split}",
        dataset=measured.dataset,
        evaluation=e,
        probabilities=measured.probabilities,
        measured=measured.split,
        history=history(run),
        recipe=recipe_text(model),
        command=" ".join(["tenfold evaluate", shlex.quote(str(run)), *options]),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        hardware=hardware.describe(),
        versions={"tenfold": __version__, **hardware.versions("numpy", "onnxruntime")},
        parameters=model.manifest.parameters if model.manifest else None,
        engine=ENGINES.get(model.runtime.name, model.runtime.name),
        device=model.runtime.device,
        facts={"evaluation": f"{e.n:,} images in {words.seconds(took)}, loading included ({words.rate(speed)})"},
    )


# ---- for people ------------------------------------------------------------------------------------------------------


def _show(measured: Measured, took: float) -> None:
    from rich.text import Text

    e = measured.evaluation
    head = Text(f"{_name(measured.model.name)} on {_name(measured.dataset.name)}, {e.split}", style="bold")
    head.append(f": {words.count(e.n, 'image')} in {words.seconds(took)}", style="not bold")
    parts: list[Any] = [head, "", _figures(e), "", _classes(e)]
    if e.confusion.trace() < e.n:
        parts += ["", _pairs(e)]
    for note in e.notes:
        parts += ["", Text(f"Note: {render.printable(note)}", style="yellow")]
    render.show(*parts)


def _figures(e: Evaluation) -> Any:
    from rich.table import Table
    from rich.text import Text

    digits = 2 if e.n >= 1000 else 1  # more would be noise
    low, high = (100 * x for x in e.interval)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row(
        "accuracy",
        Text(words.percent(e.accuracy, digits), style="bold green"),
        f"95 % interval {low:.{digits}f} to {high:.{digits}f} %",
    )
    if e.top3 is not None:
        table.add_row("top-3", words.percent(e.top3, digits), "the true class is among the three most probable")
    table.add_row("macro F1", words.percent(e.macro_f1, digits), "mean over the classes, each counting alike")
    table.add_row("loss", f"{e.loss:.4f}", "mean −log probability of the true class")
    chance = words.percent(e.ece_by_chance, digits)
    table.add_row("ECE", words.percent(e.ece, digits), f"calibration error; about {chance} by chance alone")
    if e.threshold is not None and e.known is not None:
        right = f"; {words.percent(e.known_accuracy, digits)} of the others are right" if e.known else ""
        table.add_row(
            "unknown", words.percent(1 - e.known, digits), f"highest probability below {e.threshold:.3f}{right}"
        )
    if e.tta != "none":
        table.add_row("tta", e.tta, "answers averaged over changed pictures")
    return table


def _classes(e: Evaluation) -> Any:
    from rich.table import Table

    shown: Sequence[ClassFigures] = e.per_class
    title = "class"
    if len(shown) > IN_ORDER:
        seen = [c for c in shown if c.recall is not None]
        shown = sorted(seen, key=lambda c: c.recall or 0.0)[:WEAKEST]
        title = f"class (the {len(shown)} weakest of {len(e.per_class):,})"
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column(title, overflow="ellipsis", no_wrap=True)
    for column in ("images", "recall", "95 % interval", "precision", "F1"):
        table.add_column(column, justify="right", no_wrap=True)
    for c in shown:
        interval = f"{100 * c.recall_interval[0]:.1f} to {100 * c.recall_interval[1]:.1f}" if c.recall_interval else "–"
        figures = (words.percent(c.recall, 1), interval, words.percent(c.precision, 1), words.percent(c.f1, 1))
        table.add_row(_name(c.name), f"{c.support:,}", *figures)
    return table


def _pairs(e: Evaluation) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    table.add_column("most confused", no_wrap=True)
    table.add_column("taken for", no_wrap=True)
    table.add_column("images", justify="right")
    table.add_column("of class", justify="right")
    for pair in e.most_confused(PAIRS):
        table.add_row(_name(pair.true), _name(pair.predicted), f"{pair.count:,}", words.percent(pair.share, 1))
    return table


def _name(text: str) -> str:
    """On one line, without what would steer a terminal, and not so long that the figures leave the screen."""
    line = render.printable(text).replace("\n", "\\n")
    return line if len(line) <= NAME else line[: NAME - 1] + "…"
