"""The worker processes of a search: started, told what to do, heard, and ended."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold import children, hardware, processes
from tenfold.errors import TrainingError
from tenfold.tuning.worker import Setup

GRACE_SECONDS = 20.0  # between the request to end and the kill: a step, and the trial's last word to the storage
DEATHS = 3  # of workers one after the other, none of which finished anything


class Member:
    """One worker. ``job`` is what it was told to do and has not finished; ``number`` the trial it has."""

    def __init__(self, place: int, setup: Setup, log: Path, said: queue.SimpleQueue[tuple[Member, Any]]) -> None:
        self.place, self.log = place, log
        self.job: dict[str, Any] | None = None
        self.number: int | None = None
        self.ready = False
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                children.command("tenfold.tuning.worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=children.environment(),
                start_new_session=True,  # Ctrl-C reaches the parent alone, which asks for an end
            )
        self._send(setup.line())
        threading.Thread(target=self._hear, args=(said,), daemon=True).start()

    @property
    def idle(self) -> bool:
        return self.ready and self.job is None

    def tell(self, job: Mapping[str, Any]) -> None:
        self.job, self.number = dict(job), None
        self._send(json.dumps(job) + "\n")

    def stop(self) -> None:
        """Asks it to stop what it does now."""
        if self.job is not None:
            self._send('{"do": "stop"}\n')

    def end(self) -> None:
        """Asks it to stop and to leave."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            assert self.process.stdin
            self.process.stdin.close()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
        return ""

    def ending(self) -> str:
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return "its process was ended by the signal SIGKILL, as when memory runs out"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {how}: {self.last_words() or 'it said nothing'}"

    def _send(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has died: that is heard by the other pipe
            assert self.process.stdin
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _hear(self, said: queue.SimpleQueue[tuple[Member, Any]]) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                said.put((self, json.loads(line)))
        said.put((self, None))


class Pool:
    """All workers. Use it in a ``with`` block, after which none of them is left."""

    def __init__(self, setup: Setup, workers: int, logs: Path) -> None:
        self.setup, self.workers, self.logs = setup, workers, logs
        self.said: queue.SimpleQueue[tuple[Member, Any]] = queue.SimpleQueue()
        self.members: list[Member] = []
        self.deaths = self.started = 0

    def __enter__(self) -> Pool:
        self.logs.mkdir(exist_ok=True)
        for place in range(self.workers):
            self.members.append(self._start(place))
        return self

    def __exit__(self, *exc: object) -> None:
        for member in self.members:
            member.end()
        ended = time.monotonic() + GRACE_SECONDS
        try:
            for member in self.members:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    member.process.wait(max(0.0, ended - time.monotonic()))
        finally:
            for member in self.members:
                if member.process.poll() is None:
                    processes.end_session(member.process.pid, grace=0)
                member.kill()

    def hear(self, seconds: float) -> tuple[Member, dict[str, Any]] | None:
        """The next thing that a worker says, or ``{"event": "died"}``; None where none says anything in time.

        Raises TrainingError for what ends them all: an error before the first trial, or one death after another.
        """
        try:
            member, told = self.said.get(timeout=seconds)
        except queue.Empty:
            return None
        if told is None:
            return self._buried(member)
        if told["event"] == "error":
            raise TrainingError(told["message"], told["hint"])
        if told["event"] == "ready":
            member.ready = True
        elif told["event"] == "trial":
            member.number = told["number"]
        elif told["event"] in ("done", "confirmed", "unconfirmed", "tested", "untested"):
            member.job, self.deaths = None, 0
        return member, told

    def _buried(self, member: Member) -> tuple[Member, dict[str, Any]]:
        """A worker that died is replaced."""
        ending = member.ending()
        self.deaths += 1
        if not member.ready or self.deaths >= DEATHS:
            raise TrainingError(f"The workers die: {ending}.", f"What they said is in {self.logs}.")
        self.members[self.members.index(member)] = self._start(member.place)
        return member, {"event": "died", "why": ending}

    def _start(self, place: int) -> Member:
        self.started += 1
        setup = replace(self.setup, seed=self.setup.seed + self.started, cores=_cores(place, self.workers))
        return Member(place, setup, self.logs / f"worker-{place}.log", self.said)


def _cores(place: int, workers: int) -> tuple[int, ...]:
    """A worker's share of the processor cores, so that they don't wait for each other; none where it may use all."""
    import os

    if workers == 1 or not hasattr(os, "sched_getaffinity"):
        return ()
    mine = sorted(os.sched_getaffinity(0))[: hardware.cores()]
    return tuple(mine[place % len(mine) :: workers]) if workers < len(mine) else (mine[place % len(mine)],)
