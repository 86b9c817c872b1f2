"""A server as a process tree: started, asked until it answers, what it uses, ended.

The tree is the processes of the leader's session and all descendants: some servers give each worker a session of its
own. Everything is read from /proc; without it memory and processor time are None.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SAMPLE_SECONDS = 0.2


class ServerError(Exception):
    """A server does not start, or has ended; the message says why."""


def tree(leader: int) -> list[int]:
    """The leader, its descendants and the processes of their sessions that live; looks at every process."""
    parents, sessions = {}, {}
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # pid (name) state ppid pgrp session …; a name may hold spaces and brackets
                state, parent, _, session = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:4]
                if state != "Z":
                    parents[int(entry.name)], sessions[int(entry.name)] = int(parent), int(session)
    found = {pid for pid in parents if pid == leader or sessions[pid] == leader}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found)


def resident(pids: Sequence[int]) -> int:
    """Bytes that the processes have resident, pages that several share counted in each."""
    total, page = 0, os.sysconf("SC_PAGE_SIZE")
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError):
            total += int((PROC / str(pid) / "statm").read_text().split()[1]) * page
    return total


def proportional(pids: Sequence[int]) -> int:
    """The same with each shared page counted once among those who share it (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of the processes and of the children that they have waited for."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += sum(int(n) for n in (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[11:15])
    return total / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Used:
    """What a tree used over a time. resident: the largest sum seen, five looks a second. proportional: at the end."""

    seconds: float
    cpu_seconds: float | None
    resident_bytes: int | None
    proportional_bytes: int | None


class Running:
    """A started server. Use it as a context: at its end the whole tree is ended."""

    def __init__(self, command: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.started = time.perf_counter()
        with log.open("wb") as out:
            try:
                self.process = subprocess.Popen(
                    command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise ServerError(str(error)) from None

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def wait(self, ready: Callable[[], bool], longest: float) -> float:
        """Seconds from the start of the process until ``ready`` is true. Raises ServerError."""
        while time.perf_counter() - self.started < longest:
            self.require()
            if ready():
                return time.perf_counter() - self.started
            time.sleep(0.05)
        raise ServerError(f"it did not answer within {longest:g} s; {self.last_words()}")

    def require(self) -> None:
        """Raises ServerError where the server has ended."""
        if self.process.poll() is not None:
            raise ServerError(f"it ended with exit code {self.process.returncode}; {self.last_words()}")

    def last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    def watch(self, work: Callable[[], object]) -> Used:
        """Do the work and tell what the tree used meanwhile."""
        pids = tree(self.process.pid)
        peak, over = resident(pids), threading.Event()

        def look() -> None:
            nonlocal peak
            while not over.wait(SAMPLE_SECONDS):
                peak = max(peak, resident(pids))

        watch = threading.Thread(target=look, daemon=True)
        watch.start()
        cpu, began = cpu_seconds(pids), time.perf_counter()
        try:
            work()
            seconds = time.perf_counter() - began
            pids = tree(self.process.pid)
            used = cpu_seconds(pids) - cpu
        finally:
            over.set()
            watch.join()
        if not pids:
            return Used(seconds, None, None, None)
        return Used(seconds, used, max(peak, resident(pids)), proportional(pids))

    def end(self, grace: float = 10.0) -> tuple[int, float]:
        """Ask the leader to end, kill what is left of the tree after ``grace`` seconds; exit code and seconds taken."""
        began = time.perf_counter()
        living = {pid: _born(pid) for pid in tree(self.process.pid)}
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        took = time.perf_counter() - began
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid, born in living.items():
            if born is not None and _born(pid) == born:  # still that process, and not another with its number
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        return self.process.returncode, took


def _born(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None where it has ended."""
    try:
        words = (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if words[0] == "Z" else words[19]
