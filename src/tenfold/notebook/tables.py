"""A result's figures as a table: HTML in a notebook, columns in a terminal."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tenfold import words
from tenfold.errors import CallError

if TYPE_CHECKING:
    from tenfold.comparison.records import Comparison
    from tenfold.evaluation.metrics import Evaluation
    from tenfold.export.verdicts import Exported
    from tenfold.training import TrainResult


class Table:
    """Cells of text: HTML in a notebook, columns in a terminal. Columns of figures stand at the right."""

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
        self.head, self.rows, self.notes = tuple(head), [tuple(row) for row in rows], tuple(notes)

    def _repr_html_(self) -> str:
        def line(tag: str, cells: Sequence[str]) -> str:
            sides = ["left" if at == 0 else "right" for at in range(len(cells))]
            if not any(self.head):
                sides = ["left"] * len(cells)
            told = zip(sides, cells, strict=True)
            return "<tr>" + "".join(f'<{tag} align="{s}">{html.escape(c)}</{tag}>' for s, c in told) + "</tr>"

        head = f"<thead>{line('th', self.head)}</thead>" if any(self.head) else ""
        body = "".join(line("td", row) for row in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<table>{head}<tbody>{body}</tbody></table>{notes}"

    def __repr__(self) -> str:
        lines = [self.head, *self.rows] if any(self.head) else self.rows
        wide = [max(len(line[at]) for line in lines) for at in range(len(self.head))]
        told = ["  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip() for line in lines]
        return "\n".join([*told, *self.notes])


def table(result: TrainResult | Evaluation | Comparison | Exported) -> Table:
    """A result's figures as a table, for a cell's last line. Raises CallError for what is none of these."""
    from tenfold.comparison.records import Comparison
    from tenfold.evaluation.metrics import Evaluation
    from tenfold.export.verdicts import Exported
    from tenfold.training import TrainResult

    if isinstance(result, TrainResult):
        return _trained(result)
    if isinstance(result, Evaluation):
        return _measured(result)
    if isinstance(result, Comparison):
        return _compared(result)
    if isinstance(result, Exported):
        return _exported(result)
    raise CallError(f"There is no table of {type(result).__name__}.", "Give what train, evaluate, compare … return.")


def _trained(run: TrainResult) -> Table:
    figure = "the data has no test images"
    if run.test is not None:
        low, high = run.test.interval
        figure = f"{words.percent(run.test.accuracy)} of {words.count(run.test.n, 'image')}"
        figure += f" (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    rows = [
        ("Test accuracy", figure),
        (
            "Training",
            f"{run.epochs:.4g} epochs in {words.seconds(run.seconds['train'])}, {words.rate(run.images_per_second)}",
        ),
        ("In all", words.seconds(run.seconds["total"])),
        ("Network", f"{run.parameters:,} parameters, {run.precision}, {run.engine} on {run.device}"),
        ("Run folder", str(run.path)),
        ("Report", str(run.report)),
    ]
    return Table(("", ""), rows)


def _measured(evaluation: Evaluation) -> Table:
    rows = []
    for one in evaluation.per_class:
        low, high = one.recall_interval or (0.0, 0.0)
        interval = f"{100 * low:.1f} to {100 * high:.1f} %" if one.recall_interval else "–"
        rows.append(
            (one.name, f"{one.support:,}", words.percent(one.recall, 1), interval, words.percent(one.precision, 1))
        )
    low, high = evaluation.interval
    notes = [
        f"{words.percent(evaluation.accuracy)} of {words.count(evaluation.n, 'image')} right, "
        f"95 % interval {100 * low:.1f} to {100 * high:.1f} %."
    ]
    if pairs := evaluation.most_confused(3):
        notes.append(
            "Most confused: " + "; ".join(f"{p.true} taken for {p.predicted}, {p.count:,}" for p in pairs) + "."
        )
    return Table(("class", "images", "recall", "95 % interval", "precision"), rows, [*notes, *evaluation.notes])


def _compared(found: Comparison) -> Table:
    rows = []
    for row in found.rows:
        told = [
            "–" if row.seconds is None else words.seconds(row.seconds.median),
            "–" if row.train_seconds is None else words.seconds(row.train_seconds.median),
            "–" if row.images_per_second is None else words.rate(row.images_per_second.median),
            "–" if row.speed_up is None else f"{row.speed_up:.2f}",
            "–" if row.accuracy is None else words.percent(row.accuracy.median),
        ]
        rows.append((str(row), row.status if row.why else f"{words.count(row.n, 'run')}", *told))
    head = ("", "", "whole process", "training", "in training", "speed-up", "test accuracy")
    whys = [f"{row}: {row.status}. {row.why}" for row in found.rows if row.why]
    return Table(head, rows, [*whys, *found.notes])


def _exported(made: Exported) -> Table:
    rows, notes = [], []
    for result in made.results:
        verdict = result.verdict
        if verdict is None:
            rows.append((result.format, result.state, *["–"] * 4))
            notes.append(f"{result.format}: {result.state}. {result.message}")
            continue
        split = next((part for part in verdict.sets if part.set != "golden"), verdict.sets[0])
        rows.append(
            (
                result.format,
                result.state,
                words.size(verdict.bytes),
                f"{split.max_difference:.1e}" if split.max_difference else "0",
                f"{split.images - split.top1_changed:,} of {split.images:,}",
                words.percent(split.accuracy),
            )
        )
        notes += [f"{result.format}: {reason}" for reason in verdict.reasons]
    head = ("format", "verdict", "size", "largest difference", "same answer", "accuracy")
    return Table(head, rows, [*notes, *made.notes])
