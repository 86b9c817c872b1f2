from __future__ import annotations

from typing import Any

from tenfold.data.dataset import Dataset
from tenfold.evaluation.content import FEW_EPOCHS, ReportContent, epochs, moments
from tenfold.evaluation.report import html


def rows(count: int) -> list[dict[str, Any]]:
    """A metrics.jsonl of ``count`` epochs of ten steps, with a row every second step."""
    found: list[dict[str, Any]] = []
    for epoch in range(1, count + 1):
        for step in range(10 * epoch - 8, 10 * epoch + 1, 2):
            found.append(
                {"event": "step", "step": step, "epoch": step / 10, "loss": 9 / step, "accuracy": 0.5, "lr": 1}
            )
        end = {"event": "epoch", "step": 10 * epoch, "epoch": epoch, "loss": 9 / epoch, "accuracy": 0.5, "lr": 1}
        found.append({**end, "val_loss": 8 / epoch, "val_accuracy": 0.6})
    return found


def test_a_run_of_few_epochs_is_drawn_with_the_moments_between_them(squares: Dataset) -> None:
    content = ReportContent("x", squares, history=rows(2))
    assert [r["at"] for r in epochs(content)] == [1, 2]
    assert [r["at"] for r in moments(content)] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    assert "validation" in html(content)


def test_a_run_of_many_epochs_is_drawn_by_its_epochs(squares: Dataset) -> None:
    content = ReportContent("x", squares, history=rows(FEW_EPOCHS))
    assert moments(content) == epochs(content)
    assert moments(ReportContent("x", squares)) == []
