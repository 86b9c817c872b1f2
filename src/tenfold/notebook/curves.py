"""How a training goes, in a notebook: a line and curves, each changed in place."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tenfold import words
from tenfold.errors import CallError, MissingExtraError
from tenfold.notebook import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARE = 0.05  # of the training's time that drawing may take
REDRAW_SECONDS = 0.5  # between two drawings of the curves, at the least
SAY_SECONDS = 0.2  # between two changes of the line above them


@contextmanager
def live() -> Iterator[Callable[[Any], None]]:
    """A listener for ``tenfold.train(listen=...)``: a line that says how far it is, and curves of accuracy, loss and
    learning rate, drawn anew in place while the block runs and left standing after it.

    Drawing takes at most a twentieth of the time of training, which waits for it. Raises MissingExtraError without
    IPython or matplotlib, CallError where there is no notebook to draw in.
    """
    if importlib.util.find_spec("IPython") is None:
        raise MissingExtraError("ipython", "notebook", "Showing a training in a notebook")
    pictures.require_matplotlib("Drawing curves")
    from IPython import get_ipython

    if not hasattr(get_ipython(), "kernel"):
        raise CallError(
            "notebook.live() draws in a notebook, and this is none.",
            "Elsewhere give tenfold.train a function of your own as listen=, or run tenfold train in a terminal.",
        )
    shown = _Live()
    try:
        yield shown.take
    except BaseException:
        shown.close("Stopped")
        raise
    shown.close("Done")


class _Live:
    """A line of text and a picture below it, each changed in place."""

    def __init__(self) -> None:
        from tenfold.cli.board import Board
        from tenfold.cli.curve import Series

        self.board = Board("", time.monotonic())
        self.losses, self.accuracies, self.rates = Series(), Series(), Series()
        self.notes: list[str] = []
        self.line: Any = None
        self.picture: Any = None
        self.said = self.due = 0.0  # when the line was changed last; when the curves may be drawn again
        # The first drawing takes as long as several and would keep a training waiting: drawn now, for nobody.
        point = {"at": 0.0, "loss": 0.0, "accuracy": 0.0, "lr": 0.0}
        pictures.of(_figure([], [point], 1.0))

    def take(self, event: Any) -> None:
        """Any event of ``tenfold.train``."""
        from tenfold.engines.base import EpochEnd, Notice, Step

        now = time.monotonic()
        self.board.take(event, now)
        if isinstance(event, Notice):
            self.notes.append(event.message)
        elif isinstance(event, Step):
            for series, value in ((self.losses, event.loss), (self.accuracies, event.accuracy), (self.rates, event.lr)):
                series.add(event.epoch, value)
        if now - self.said >= SAY_SECONDS:
            self._say(self._now(now))
        if isinstance(event, Step | EpochEnd) and now >= self.due:
            self._draw()

    def close(self, word: str) -> None:
        now = time.monotonic()
        self.board.end(now)
        parts = [f"{name} {words.seconds(e - s)}" for name, (s, e) in self.board.phases.items() if e and e - s >= 0.05]
        self._draw()
        self._say(f"{word} after {words.seconds(now - self.board.started)}: {', '.join(parts)}.")

    def _now(self, now: float) -> str:
        board = self.board
        if board.phase == "train" and board.begin and board.step:
            left = board.seconds_left(now)
            parts = [
                f"epoch {board.step.epoch:.1f} of {board.begin.steps / board.begin.steps_per_epoch:.4g}",
                f"loss {board.step.loss:.3f}",
                words.rate(board.step.images_per_second),
                *([f"best validation accuracy {words.percent(board.best.val_accuracy)}"] if board.best else []),
                *([f"{words.seconds(left)} left"] if left is not None else []),
            ]
            return ", ".join(parts)
        if (done := board.progress) is not None:
            if done.unit == "bytes":
                amounts = [words.size(done.done), *([words.size(done.total)] if done.total else [])]
            else:
                amounts = [f"{n:,}" for n in (done.done, done.total) if n]
            return f"{done.stage} {' of '.join(amounts)} {'' if done.unit == 'bytes' else done.unit}".rstrip()
        return f"{board.phase or 'start'} …"

    def _say(self, text: str) -> None:
        from IPython.display import display

        self.said = time.monotonic()
        data = {"text/plain": "\n".join([text, *(f"Note: {note}" for note in self.notes)])}
        if self.line is None:
            self.line = display(data, raw=True, display_id=True)
        else:
            self.line.update(data, raw=True)

    def _draw(self) -> None:
        from IPython.display import display

        began = time.monotonic()
        figure = self._figure()
        if figure is None:
            return
        picture = pictures.of(figure)
        if self.picture is None:
            self.picture = display(picture, display_id=True)
        else:
            self.picture.update(picture)
        now = time.monotonic()
        self.due = now + max(REDRAW_SECONDS, (now - began) / SHARE)

    def _figure(self) -> Figure | None:
        """The report's curves, as wide from the start as the whole training; None before there is any."""
        board = self.board
        if board.begin is None or not self.losses.points:
            return None
        drawn = zip(self.losses.drawn(), self.accuracies.drawn(), self.rates.drawn(), strict=False)
        between = [{"at": at, "loss": loss, "accuracy": a, "lr": lr} for (at, loss), (_, a), (_, lr) in drawn]
        ends = [
            {
                "at": end.step / board.begin.steps_per_epoch,
                "val_loss": end.val_loss,
                "val_accuracy": end.val_accuracy,
            }
            for end in board.epochs
        ]
        return _figure(ends, between, board.begin.steps / board.begin.steps_per_epoch)


def _figure(ends: list[dict[str, Any]], between: list[dict[str, Any]], epochs: float) -> Figure:
    from tenfold.evaluation import plots

    with plots.style():
        figure = plots.curves(ends, between)
        for axis in figure.axes:
            axis.set_xlim(0, epochs)
    return figure
