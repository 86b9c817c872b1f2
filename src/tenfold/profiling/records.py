"""What a profile says, and its JSON (``profile.json``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tenfold.engines.recording import Span

FORMAT, VERSION = "tenfold-profile", 1


@dataclass(frozen=True)
class Part:
    """A part of a step or a batch. ``key`` is its name in JSON, ``name`` what people read; seconds of the wall."""

    key: str
    name: str
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What a kind of operation takes of a step or a batch; ``share`` of the whole of it."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True)
class Operation:
    """An operation of a step, or a node of a graph: seconds in its own code, ``calls`` a step or a batch."""

    name: str
    kind: str
    seconds: float
    share: float
    calls: float


@dataclass(frozen=True)
class Profile:
    """Where the time of training steps, or of predicting batches, goes.

    kind        ``training`` (its unit is a step) or ``prediction`` (a batch of pictures)
    subject     the data, or the model
    computed_by the engine's or the runtime's name; ``device_label`` for people
    images      a unit's
    pixels      the longer side of the pictures
    units       so many were profiled
    seconds     a unit's, without the profiler: the median of several measurements, and its lowest and highest
    profiled    a unit's seconds with the profiler on
    memory_bytes  the most used: the device's, or on a CPU the process's
    parts       of a unit; they add up to it
    kinds       of operations, the largest first; of the device's time
    operations  the largest first; empty where nothing looked inside
    profiler    what recorded it
    phases      seconds of the whole training that left the model, where its run is at hand
    advice      sentences that say what takes the time and what may help
    timeline    spans of the first units; not in JSON
    """

    kind: Literal["training", "prediction"]
    subject: str
    computed_by: str
    device: str
    device_label: str
    precision: str
    images: int
    pixels: int
    units: int
    seconds: float
    seconds_lowest: float
    seconds_highest: float
    profiled: float
    memory_bytes: int | None
    parts: Sequence[Part]
    kinds: Sequence[Cost]
    operations: Sequence[Operation]
    profiler: str
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    created: str
    command: str
    recipe: Mapping[str, Any] | None = None
    phases: Mapping[str, float] | None = None
    advice: Sequence[str] = ()
    notes: Sequence[str] = ()
    path: Path | None = None
    timeline: Sequence[Span] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The subject's last word: of a path its file's name."""
        return self.subject.replace("\\", "/").rstrip("/").rpartition("/")[2] or self.subject

    @property
    def unit(self) -> str:
        return "step" if self.kind == "training" else "batch"

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-12)

    @property
    def whole(self) -> float:
        """Seconds of all parts: a unit with the profiler on."""
        return sum(part.seconds for part in self.parts)

    def share(self, key: str) -> float:
        """The share of the unit that the part called ``key`` takes."""
        return sum(p.seconds for p in self.parts if p.key == key) / max(self.whole, 1e-12)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: what ``--json`` prints and profile.json holds."""
        value = asdict(self)
        del value["timeline"]
        value["path"] = None if self.path is None else str(self.path)
        value["images_per_second"] = self.images_per_second
        for part in value["parts"]:
            part["share"] = part["seconds"] / max(self.whole, 1e-12)
        return {"format": FORMAT, "version": VERSION, **value}
