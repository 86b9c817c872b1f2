"""What an export comes to: for every format a verdict, and what became of it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from tenfold.export.gate import Replay, Tolerance

State = Literal["exported", "refused", "kept", "failed", "unavailable", "not installed"]


@dataclass(frozen=True)
class Verdict:
    """An artifact's answers in its own runtime beside the bundle's.

    tolerance      how far they may be off, on each set
    runtime, device   what computed, and where
    bytes          of the model's files
    load_seconds   opening it and its first answer, without the runtime's imports
    sets           the golden images, then the split; see ``gate.Replay``
    seconds        for answering each set
    """

    tolerance: Tolerance
    runtime: str
    device: str
    bytes: int
    load_seconds: float
    sets: tuple[Replay, ...]
    seconds: dict[str, float]

    @property
    def reasons(self) -> list[str]:
        return [reason for part in self.sets for reason in part.reasons(self.tolerance)]

    @property
    def passed(self) -> bool:
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; a difference that is not finite becomes null."""
        return {
            "passed": self.passed,
            "reasons": self.reasons,
            "runtime": self.runtime,
            "device": self.device,
            "bytes": self.bytes,
            "load_seconds": self.load_seconds,
            "tolerance": self.tolerance.to_dict(),
            "sets": [
                {key: _finite(value) for key, value in dataclasses.asdict(part).items()}
                | {"seconds": self.seconds.get(part.set)}
                for part in self.sets
            ],
        }


@dataclass(frozen=True)
class Result:
    """What became of one format.

    state     ``exported``; ``refused`` by the gate, or ``kept`` though it was; ``failed`` to be written or opened;
              ``unavailable`` where the format can't hold this network; ``not installed``
    path      the artifact's folder; None where there is none
    message   why there is no artifact
    """

    format: str
    state: State
    path: str | None = None
    message: str | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    verdict: Verdict | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        verdict = self.verdict.to_dict() if self.verdict else None
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "verdict": verdict}


@dataclass(frozen=True)
class Exported:
    """All formats of one call.

    model     the name in the bundle
    results   one for each format, in the order asked for
    notes     sentences the user must be told
    seconds   all of it
    """

    model: str
    results: tuple[Result, ...]
    notes: tuple[str, ...]
    seconds: float
    every: bool = False  # all formats were asked for, so that one which can't be had is no failure

    @property
    def passed(self) -> bool:
        """Whether each format asked for is there. With ``all``: whether none was refused or failed."""
        fine = ("exported", "kept", "unavailable", "not installed") if self.every else ("exported", "kept")
        states = [result.state for result in self.results]
        return all(state in fine for state in states) and any(state in ("exported", "kept") for state in states)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "model": self.model,
            "passed": self.passed,
            "results": [result.to_dict() for result in self.results],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
