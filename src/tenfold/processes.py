"""What one process costs: wall seconds, exit code, memory of its tree, and how undisturbed the machine was meanwhile.

Everything is read from /proc, a few files five times a second. Where there is no /proc, the time, the exit code and
(macOS) ru_maxrss remain and the other figures are None.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SAMPLE_SECONDS = 0.2
TREE_SECONDS = 1.0  # the list of the tree's processes is renewed this often: it needs a look at every process
GRACE_SECONDS = 10.0  # between the request to end and the kill


@dataclass(frozen=True)
class Ticks:
    """The machine's processor time since it was started, in clock ticks summed over its cores (/proc/stat)."""

    busy: int
    idle: int
    steal: int

    @property
    def total(self) -> int:
        return self.busy + self.idle + self.steal

    def __sub__(self, other: Ticks) -> Ticks:
        return Ticks(self.busy - other.busy, self.idle - other.idle, self.steal - other.steal)


def ticks() -> Ticks | None:
    """Now's ticks; None where the system does not tell."""
    try:
        words = (PROC / "stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in words[1:9])
    return Ticks(user + nice + system + irq + softirq, idle + iowait, steal)


def busy_share(seconds: float) -> float | None:
    """Share of all cores that computed, or was taken by the machine's host, during the next ``seconds``; None where
    the system does not tell."""
    before = ticks()
    time.sleep(seconds)
    after = ticks()
    if before is None or after is None:
        return None
    spent = after - before
    return (spent.busy + spent.steal) / max(spent.total, 1)


@dataclass(frozen=True)
class Cost:
    """What a process cost. Shares and memory are None where the system does not tell.

    seconds          wall time from before the process is made until it has ended
    exit_code        negative: the signal that ended it
    timed_out        it ran past the limit and was ended
    tree_bytes       largest sum of the resident memory of all its processes; pages that several share count in each
    process_bytes    the most resident memory that a single one of its processes had (the kernel's VmHWM; without
                     /proc ru_maxrss, which counts the parent's memory at the fork too)
    cpu_seconds      processor time of the process and the children it waited for
    steal_share      share of the machine's processor time that its host gave to others meanwhile
    others_cores     cores that other processes of this machine used meanwhile, on average
    """

    seconds: float
    exit_code: int
    timed_out: bool
    tree_bytes: int | None
    process_bytes: int | None
    cpu_seconds: float | None
    steal_share: float | None
    others_cores: float | None


def run(
    command: Sequence[str], *, stdout: Path, stderr: Path, cwd: Path, env: dict[str, str], limit: float | None = None
) -> Cost:
    """Run ``command`` to its end and tell what it cost; its output goes to the two files.

    The process gets a session of its own, by which its tree is known. On KeyboardInterrupt, and after ``limit``
    seconds, the whole tree is ended. Raises OSError where the program can't be started.
    """
    with stdout.open("wb") as out, stderr.open("wb") as err:
        before = ticks()
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=env, start_new_session=True
        )
        watch = _Watch(process, limit)
        watch.start()
        try:
            own = _wait(process)
            seconds = time.perf_counter() - started
            after = ticks()
        except BaseException:
            _end(process)
            process.wait()
            raise
        finally:
            watch.stop()
    if session(process.pid):
        end_session(process.pid)  # what the program left running would disturb the next run
    steal, others = _disturbance(before, after, own.cpu_seconds, seconds)
    return Cost(
        seconds=seconds,
        exit_code=process.returncode,
        timed_out=watch.timed_out,
        tree_bytes=watch.peak or None,
        process_bytes=watch.largest or own.largest_bytes,
        cpu_seconds=own.cpu_seconds,
        steal_share=steal,
        others_cores=others,
    )


@dataclass(frozen=True)
class _Usage:
    cpu_seconds: float | None
    largest_bytes: int | None


def _wait(process: subprocess.Popen[bytes]) -> _Usage:
    """Wait for the end; what the kernel then tells of the process and the children it waited for."""
    if not hasattr(os, "wait4"):  # Windows
        process.wait()
        return _Usage(None, None)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return _Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started."""
    if os.name == "nt":
        process.kill()
    else:
        end_session(process.pid)


def _disturbance(
    before: Ticks | None, after: Ticks | None, cpu: float | None, seconds: float
) -> tuple[float | None, float | None]:
    if before is None or after is None or cpu is None:
        return None, None
    spent = after - before
    others = spent.busy / os.sysconf("SC_CLK_TCK") - cpu
    return spent.steal / max(spent.total, 1), max(0.0, others / max(seconds, 1e-9))


def session(leader: int) -> list[int]:
    """The processes of the session that ``leader`` began; looks at every process of the machine."""
    found = []
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # pid (name) state ppid pgrp session …; a name may hold spaces and brackets
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3]) == leader:
                    found.append(int(entry.name))
    return found


def end_session(leader: int, grace: float = GRACE_SECONDS) -> None:
    """End the session's processes: asked first, killed after ``grace`` seconds."""
    ended = time.monotonic() + grace
    for how in (signal.SIGTERM, signal.SIGKILL):
        for pid in session(leader):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, how)
        if not PROC.is_dir():  # no list of the session: its first group is most of it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, how)
        while how == signal.SIGTERM and time.monotonic() < ended and _alive(leader):
            time.sleep(0.05)


def _alive(leader: int) -> bool:
    """Whether a process of the session still runs; one that has ended and was not waited for does not."""
    for pid in session(leader):
        with contextlib.suppress(OSError, IndexError):
            if (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                return True
    return False


def _high_water(pid: int) -> int:
    """Bytes that a process has had resident at most; 0 where the system does not tell."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class _Watch(threading.Thread):
    """Samples the memory of a session and ends it at its limit."""

    def __init__(self, process: subprocess.Popen[bytes], limit: float | None) -> None:
        super().__init__(daemon=True)
        self.peak, self.largest = 0, 0
        self.timed_out = False
        self._process, self._leader = process, process.pid
        self._limit = limit
        self._over = threading.Event()

    def run(self) -> None:
        started = time.monotonic()
        page = os.sysconf("SC_PAGE_SIZE") if PROC.is_dir() else 0
        renewed, pids = -float("inf"), [self._leader]
        while not self._over.wait(SAMPLE_SECONDS):
            now = time.monotonic()
            if page and now - renewed >= TREE_SECONDS:
                renewed, pids = now, session(self._leader)
            total = 0
            for pid in pids if page else ():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    total += int((PROC / str(pid) / "statm").read_text().split()[1]) * page
                    self.largest = max(self.largest, _high_water(pid))
            self.peak = max(self.peak, total)
            if self._limit is not None and now - started > self._limit and not self.timed_out:
                self.timed_out = True
                _end(self._process)

    def stop(self) -> None:
        self._over.set()
        self.join()
