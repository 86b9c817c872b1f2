"""Starting a worker, waiting for it, and what is known of one that died."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenfold import children
from tenfold.runtimes.batches import first_line
from tenfold.verification.worker import Job, Outcome


def ask(job: Job) -> tuple[Outcome, float]:
    """What became of ``job``, and the seconds of the whole process. However this call ends, the process has ended."""
    begun = time.monotonic()
    log = Path(job.folder) / f"{job.kind}.{job.name}.log"
    with log.open("w+b") as said:
        process = subprocess.Popen(
            children.command("tenfold.verification.worker"),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            # a dump of every thread's stack would bury the error's own line
            env={**children.environment(), "PYTHONFAULTHANDLER": "", "PYTHONIOENCODING": "utf-8"},
        )
        try:
            assert process.stdin
            with suppress(BrokenPipeError):  # it died before it read; its status says so
                process.stdin.write(job.line().encode())
                process.stdin.flush()
            process.wait()
        finally:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]
    return _outcome(job, process.returncode, log), time.monotonic() - begun


def _outcome(job: Job, status: int, log: Path) -> Outcome:
    with suppress(OSError, ValueError, TypeError):
        return Outcome(**json.loads(job.outcome.read_bytes()))
    how = f"its process was ended by signal {-status}" if status < 0 else f"its process ended with status {status}"
    text = log.read_bytes()[-10_000:].decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Outcome("failed", f"{how}: {first_line(RuntimeError(lines[-1]))}" if lines else f"{how}.")


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While the block runs SIGTERM is met as Ctrl-C is, so that workers end and temporary files go."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
