"""Answers compared with what they must be: the verdict on every engine and runtime, for every set of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tenfold.bundle import golden
from tenfold.export import gate
from tenfold.verification import backends
from tenfold.verification.backends import Backend
from tenfold.verification.verdicts import ImageSet, Row, State
from tenfold.verification.worker import Job, Outcome

GOLDEN = "golden"  # the set whose reference is stored in the bundle; a split's is what ONNX Runtime answers


@dataclass(frozen=True)
class Asked:
    """A backend, the job it was given, and what came of it."""

    backend: Backend
    job: Job
    outcome: Outcome
    seconds: float

    @property
    def answered(self) -> bool:
        return self.outcome.state == "answered"

    def answers(self, part: str) -> np.ndarray:
        """float32 N×classes: an engine's logits, a runtime's probabilities."""
        found: np.ndarray = np.load(self.job.answers(part), mmap_mode="r", allow_pickle=False)
        return found


class Compared:
    """Turns what was asked into rows.

    temperature   the model's, by which engines' logits are divided
    trained       the engine that trained it: its logits are those that others' are compared with, or where it gave
                  none the first's that did; ``first`` is who that is
    stored        float32 N×classes, the golden images' probabilities
    """

    def __init__(
        self, temperature: float, trained: object, asked: Sequence[Asked], sets: Sequence[ImageSet], stored: np.ndarray
    ) -> None:
        self.temperature = temperature
        self.asked = {a.backend: a for a in asked}
        self.expected: dict[str, np.ndarray] = {GOLDEN: stored}
        self.notes: list[str] = []
        engines = [a for a in asked if a.answered and a.backend.kind == "engine"]
        self.first = next(iter([*(a for a in engines if a.backend.name == trained), *engines]), None)
        reference = self.asked.get(backends.reference())
        for part in sets[1:]:
            if reference is not None and reference.answered:
                self.expected[part.name] = reference.answers(part.name)
            else:
                self.notes.append(f"{part.data}, {part.name}, was not compared: {backends.REFERENCE} gave no answers.")

    def rows(self, backend: Backend) -> list[Row]:
        """A row a set, or one that says why there are no answers."""
        if backend not in self.asked:
            return [Row(backend.kind, backend.name, "not installed", message=backend.command)]
        asked = self.asked[backend]
        outcome, process_seconds = asked.outcome, round(asked.seconds, 3)
        if not asked.answered:
            known: dict[str, State] = {"unavailable": "unavailable", "not installed": "not installed"}
            state, message = known.get(outcome.state, "failed"), outcome.message
            return [Row(backend.kind, backend.name, state, message=message, process_seconds=process_seconds)]
        return [self._row(asked, part, process_seconds) for part in self.expected]

    def _row(self, asked: Asked, part: str, process_seconds: float) -> Row:
        backend, outcome = asked.backend, asked.outcome
        row = Row(
            backend.kind,
            backend.name,
            "reference",
            part,
            outcome.device,
            outcome.version,
            len(self.expected[part]),
            seconds=round((outcome.seconds or {})[part], 4),
            process_seconds=process_seconds,
        )
        if part != GOLDEN and backend == backends.reference():
            return row
        answers = asked.answers(part)
        engine = backend.kind == "engine"
        with np.errstate(all="ignore"):  # answers that are not finite are infinitely far, and so the verdict
            probabilities = golden.expected(answers, self.temperature) if engine else answers
            verdict = gate.compare(self.expected[part], probabilities)
        return replace(
            row,
            state="passed" if verdict.passed else "failed",
            logit_difference=self._logits(asked, part) if engine else None,
            probability_difference=verdict.max_difference,
            top1_agree=verdict.images - verdict.top1_changed,
        )

    def _logits(self, asked: Asked, part: str) -> float | None:
        if self.first is None or asked is self.first:
            return None
        with np.errstate(all="ignore"):
            found = np.abs(asked.answers(part).astype(np.float64) - self.first.answers(part)).max(initial=0)
        return float(found) if np.isfinite(found) else float("inf")
