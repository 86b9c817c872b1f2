"""Starting a worker, waiting for it, and what is known of one that died."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from tenfold import children
from tenfold.verification.worker import Job, Outcome


def ask(job: Job) -> tuple[Outcome, float]:
    """What became of ``job``, and the seconds of the whole process. However this call ends, the process has ended."""
    begun = time.monotonic()
    log = Path(job.folder) / f"{job.kind}.{job.name}.log"
    found = children.outcome("tenfold.verification.worker", job.line(), log, job.outcome)
    return _outcome(found), time.monotonic() - begun


def _outcome(found: dict[str, object] | str) -> Outcome:
    if isinstance(found, str):
        return Outcome("failed", found)
    with suppress(TypeError):
        return Outcome(**found)  # type: ignore[arg-type]
    return Outcome("failed", "its process left an answer that can't be read.")
