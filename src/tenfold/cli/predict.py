"""``tenfold predict``: classes for pictures, on standard output as they come."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# Before NumPy is first imported: its linear algebra would start a thread for each core, which costs a sixth of
# predict's whole time, and predict multiplies no matrices with NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tenfold.cli import pictures, render
from tenfold.cli.options import AnyModel, AsJson
from tenfold.data.dataset import Skipped
from tenfold.errors import CallError, ImageError

if TYPE_CHECKING:
    from tenfold.predict import Model, Prediction

FEW = 8  # for so many pictures a second thread and the last optimizations of the graph don't pay
MANY = 64  # for more there is progress


def predict(
    run: AnyModel,
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="Pictures, folders, patterns such as 'photos/**/*.jpg', - for standard input."
        ),
    ],
    top: Annotated[int, typer.Option("--top", metavar="K", help="How many classes to give for each picture.")] = 3,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What computes: onnxruntime, openvino, or an engine: torch, tensorflow, jax, opencl.",
        ),
    ] = "onnxruntime",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where: auto, cpu, cuda; an engine's other devices (opencl:0 …) too.")
    ] = "auto",
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write the answers to a CSV file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify pictures with a trained model.

    Each picture gets a line: its path, then classes with their probabilities, the most probable first, and unknown
    where the highest is below the model's threshold: that may be a picture of something else. A picture that can't
    be read gets a line on standard error; the others are predicted all the same, and the exit code is 1.
    """
    from tenfold.predict import load

    if top < 1:
        raise CallError(f"--top must be 1 or more, not {top}.")
    if table is not None and table.is_dir():
        raise CallError(f"--csv {table}: this is a folder, not a file.")
    if table is not None and not table.absolute().parent.is_dir():
        raise CallError(f"--csv {table}: there is no such folder.", f"Make it with: mkdir -p {table.parent}")
    found, missing = pictures.find(source)
    model = load(run, runtime=runtime, device=device, quick=len(found) <= FEW)
    for note in model.notes:
        print(f"Note: {render.printable(note)}", file=sys.stderr)
    keep = as_json or table is not None
    kept: list[Prediction | Skipped] = []
    for skipped in missing:
        _tell(skipped)
    failures = len(missing)
    line = None if as_json else _Line(found, model.classes)
    with _progress(len(found)) as tick:
        gc.enable()  # see __main__
        for answer in _answers(model, found, top):
            if keep:
                kept.append(answer)
            if isinstance(answer, Skipped):
                failures += 1
                _tell(answer)
            elif line is not None:
                line.show(answer)
            tick()
    kept = [*missing, *kept]
    if table is not None:
        _write_csv(table, kept, min(top, len(model.classes)))
    if as_json:
        render.print_json(_to_dict(model, kept))
    if failures:
        raise typer.Exit(1)


def _answers(model: Model, found: Sequence[str], top: int) -> Iterator[Prediction | Skipped]:
    """The model's answers, the one to standard input under its name."""
    from tenfold.predict import Prediction

    for path, answer in zip(found, model.stream(pictures.read(found), top), strict=True):
        if path != pictures.STANDARD_INPUT:
            yield answer
        elif isinstance(answer, Skipped):
            yield Skipped("standard input", answer.reason)
        else:
            yield Prediction(path, answer.top, answer.unknown)


class _Line:
    """Lines of a picture each: columns in a terminal, else fields with tabs between them and four decimals."""

    def __init__(self, found: Sequence[str], classes: Sequence[str]) -> None:
        self.out = sys.stdout  # as it is now: progress bars put something else there while they are drawn
        self.columns = sys.stdout.isatty()
        self.path = min(max(len(_plain(path)) for path in found), 60) if self.columns else 0
        self.name = min(max(len(_plain(name)) for name in classes), 24)

    def show(self, answer: Prediction) -> None:
        path = _plain(answer.path)
        unknown = ["unknown"] if answer.unknown else []
        if not self.columns:
            fields = [path, *(f"{_plain(name)}\t{p:.4f}" for name, p in answer.top), *unknown]
            print("\t".join(fields), file=self.out)
            return
        cells = [*(f"{_plain(name):<{self.name}} {100 * p:5.1f} %" for name, p in answer.top), *unknown]
        print("  ".join([f"{path:<{self.path}}", *cells]), file=self.out, flush=True)


def _plain(text: str) -> str:
    """``text`` on one line and without what would steer a terminal."""
    return render.printable(text).replace("\n", "\\n")


def _tell(skipped: Skipped) -> None:
    render.fail(ImageError(_plain(skipped.reason), path=_plain(skipped.path)))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Something to call after each picture. Where lines fill a terminal they are the progress, and few need none."""
    if total <= MANY or (sys.stdout.isatty() and sys.stderr.isatty()):
        yield lambda: None
        return
    from tenfold.data.progress import Progress

    done = 0

    with render.progress() as report:

        def tick() -> None:
            nonlocal done
            done += 1
            if done % 16 == 0 or done == total:
                report(Progress("predict", done, total, "images"))

        yield tick


def _write_csv(path: Path, answers: Sequence[Prediction | Skipped], top: int) -> None:
    """A row a picture: path, class and probability for each place, whether it is unknown, and why there are none."""
    import csv

    from tenfold.paths import write_whole

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    places = [f"_{place}" if place > 1 else "" for place in range(1, top + 1)]
    writer.writerow(
        ["path", *(f"{head}{place}" for place in places for head in ("class", "probability")), "unknown", "error"]
    )
    for answer in answers:
        if isinstance(answer, Skipped):
            writer.writerow([_cell(answer.path), *[""] * 2 * top, "", _cell(answer.reason)])
            continue
        pairs = [cell for name, p in answer.top for cell in (_cell(name), f"{p:.6g}")]
        writer.writerow([_cell(answer.path), *pairs, "yes" if answer.unknown else "", ""])
    try:
        write_whole(path, text.getvalue().encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise CallError(f"--csv {path}: {error.strerror}.") from None


def _cell(text: str) -> str:
    """``text``, after a quote where a spreadsheet would take it for a formula: names of classes come from strangers."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _to_dict(model: Model, answers: Sequence[Prediction | Skipped]) -> dict[str, object]:
    return {
        "model": model.name,
        "predictions": [a.to_dict() for a in answers if not isinstance(a, Skipped)],
        "failed": [{"path": a.path, "reason": a.reason} for a in answers if isinstance(a, Skipped)],
    }
