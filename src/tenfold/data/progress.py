"""Progress of data work, as told to whoever shows it: a bar, a log line, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` units of a stage.

    stage  ``read`` (an archive), ``decode`` (pictures into the cache), ``download``, ``wait`` (another
           process builds)
    total  0 where it is not known
    unit   ``bytes``, ``files`` or ``images``
    """

    stage: str
    done: int
    total: int
    unit: str


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The Report for nobody."""
