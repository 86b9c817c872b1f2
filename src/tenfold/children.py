"""Processes of this same package beside this one: ``python -m tenfold.<module>``.

Plain children rather than ``multiprocessing``, which would import the user's own script again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tenfold


def command(module: str) -> list[str]:
    """What runs ``module``. -P keeps modules that lie in the working folder from being imported."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """This process's environment, in which the child finds the same tenfold."""
    package = str(Path(tenfold.__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{inherited}" if inherited else package}


def outcome(module: str, job: str, log: Path, result: Path) -> dict[str, Any] | str:
    """What the process of ``module`` wrote as JSON into ``result``, having read the line ``job`` from standard input;
    in words how it ended, where it left nothing that can be read.

    What it prints goes to ``log``. However this call ends, the process has ended.
    """
    with log.open("w+b") as said:
        process = subprocess.Popen(
            command(module),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            # a dump of every thread's stack would bury the error's own line
            env={**environment(), "PYTHONFAULTHANDLER": "", "PYTHONIOENCODING": "utf-8"},
        )
        try:
            assert process.stdin
            with suppress(BrokenPipeError):  # it died before it read; its status says so
                process.stdin.write(job.encode())
                process.stdin.flush()
            process.wait()
        finally:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]
    with suppress(OSError, ValueError):
        found = json.loads(result.read_bytes())
        if isinstance(found, dict):
            return found
    return _ended(process.returncode, log)


def _ended(status: int, log: Path) -> str:
    from tenfold.runtimes.batches import first_line

    how = f"its process was ended by signal {-status}" if status < 0 else f"its process ended with status {status}"
    text = log.read_bytes()[-10_000:].decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{how}: {first_line(RuntimeError(lines[-1]))}" if lines else f"{how}."


def end_with_parent() -> None:
    """In the child: end when the process that started it does, however that one ends.

    It holds the other end of standard input, which closes then. Read past Python's own buffer, whose lock this thread
    would hold at the end.
    """

    def watch() -> None:
        while os.read(0, 1):
            continue
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """While the block runs SIGTERM and SIGINT raise KeyboardInterrupt, so that no child is left behind; SIGINT too
    because a script's background job inherits it ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """While the block runs SIGTERM is met as Ctrl-C is, so that children end and temporary files go."""

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
