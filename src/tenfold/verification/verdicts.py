"""What a verification comes to: a row for every engine and runtime and every set of images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["passed", "failed", "reference", "unavailable", "not installed"]


@dataclass(frozen=True)
class ImageSet:
    """Images that were asked for.

    name        ``golden``, or the split: ``test`` …
    data        where a split's images are from; None for the golden ones
    images      how many
    reference   in words, what answers are compared with
    """

    name: str
    data: str | None
    images: int
    reference: str


@dataclass(frozen=True)
class Row:
    """One engine or runtime on one set of images; ``set`` is None where it gave no answers at all.

    state                    ``passed`` or ``failed``; ``reference`` for the answers that the others are compared with;
                             ``unavailable`` where this engine or device can't compute the model, ``not installed``
    device, version          what it ran on, and what computed
    logit_difference         largest absolute difference of a logit from ``Verification.logits_reference``'s; None for
                             that engine itself, and for runtimes, which give probabilities
    probability_difference   largest absolute difference of a probability from the set's reference
    top1_agree               images whose first class is the reference's, ties counted
    seconds                  loading the model and answering
    process_seconds          the whole process that did it, for all sets, its start and imports included
    message                  why there are no answers
    """

    kind: Literal["engine", "runtime"]
    name: str
    state: State
    set: str | None = None
    device: str | None = None
    version: str | None = None
    images: int | None = None
    logit_difference: float | None = None
    probability_difference: float | None = None
    top1_agree: int | None = None
    seconds: float | None = None
    process_seconds: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class Verification:
    """Whether every engine and runtime that could answer gave the answers that the model must give.

    model              the name in the bundle
    tolerance          the largest difference of a probability allowed
    logits_reference   the engine whose logits the others' are compared with, None where none answered
    sets, rows         see ImageSet and Row
    notes              sentences the user must be told
    seconds            all of it
    """

    model: str
    tolerance: float
    logits_reference: str | None
    sets: tuple[ImageSet, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """At least one verdict, and none that failed."""
        states = {row.state for row in self.rows}
        return "failed" not in states and "passed" in states

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; a difference that is not finite becomes null."""
        return {
            "model": self.model,
            "passed": self.passed,
            "tolerance": self.tolerance,
            "logits_reference": self.logits_reference,
            "sets": [asdict(part) for part in self.sets],
            "rows": [{key: _finite(value) for key, value in asdict(row).items()} for row in self.rows],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
