"""Decoding a list of files over the cores: in this process where there are few, else in worker processes."""

from __future__ import annotations

import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import IO

from tenfold import children, hardware
from tenfold.data.worker import Job, Reply, decode_run, job_line, parse_reply, run_line
from tenfold.errors import DataError

# Files handed out at a time: many enough to hide the talk, few enough for progress and an even end.
RUN = 64

MOST_WORKERS = 32

# Below about this many seconds of one core, starting workers (0.1 s of a core each) gains next to nothing: on two
# cores 500 JPEGs took 0.43 s in one process and 0.41 s in two workers, 2,000 took 1.55 s and 1.06 s (medians of 5).
_WORTH_WORKERS = 0.6
_SECONDS_A_FILE = 1e-4  # 32×32 PNGs take 0.09 ms each
_SECONDS_A_BYTE = 1.5e-8  # JPEGs of 48 kB take 1.2 ms decoded whole, 0.66 ms at 1/4

_Run = tuple[int, Sequence[str]]


def decode_all(
    job: Job, paths: Sequence[str], total_bytes: int, progress: Callable[[int], None], workers: int | None = None
) -> Reply:
    """Decode every path into its row of the job's files; ``progress`` is told how many are done.

    Raises DataError where a worker dies (and names the files it had), OSError where the files can't be
    written.
    """
    runs: list[_Run] = [(start, paths[start : start + RUN]) for start in range(0, len(paths), RUN)]
    if workers is None:
        work = len(paths) * _SECONDS_A_FILE + total_bytes * _SECONDS_A_BYTE
        workers = min(hardware.cores(), MOST_WORKERS) if work > _WORTH_WORKERS and sys.executable else 1
    workers = min(workers, len(runs))
    gathered = _Gathered(progress)
    if workers < 2:
        for start, files in runs:
            gathered.add(decode_run(job, start, files), len(files))
    else:
        _Crew(job, runs).work(workers, gathered)
    return Reply(sorted(gathered.skipped), gathered.reshaped)


class _Gathered:
    def __init__(self, progress: Callable[[int], None]) -> None:
        self.progress = progress
        self.done = 0
        self.reshaped = 0
        self.skipped: list[tuple[int, str]] = []

    def add(self, reply: Reply, files: int) -> None:
        self.done += files
        self.reshaped += reply.reshaped
        self.skipped += reply.skipped
        self.progress(self.done)


class _Crew:
    """Worker processes, each led by a thread that hands it a run and waits for the answer."""

    def __init__(self, job: Job, runs: list[_Run]) -> None:
        self.job = job
        self.runs = iter(runs)
        self.lock = threading.Lock()
        self.answers: queue.SimpleQueue[tuple[Reply, int] | Exception | None] = queue.SimpleQueue()

    def work(self, workers: int, gathered: _Gathered) -> None:
        """Until every run is answered; whatever ends it early ends the workers too."""
        with tempfile.TemporaryFile() as said:
            processes = [_start(said) for _ in range(workers)]
            leaders = [threading.Thread(target=self._lead, args=(p, said), daemon=True) for p in processes]
            try:
                for leader in leaders:
                    leader.start()
                working = workers
                while working:
                    answer = self.answers.get()
                    if isinstance(answer, Exception):
                        raise answer
                    if answer is None:
                        working -= 1
                    else:
                        gathered.add(*answer)
            finally:
                for process in processes:
                    process.kill()
                    process.wait()
                for leader in leaders:
                    leader.join()
                for process in processes:
                    _close(process)

    def _lead(self, process: subprocess.Popen[str], said: IO[bytes]) -> None:
        try:
            assert process.stdin and process.stdout
            _send(process.stdin, job_line(self.job))
            while run := self._next():
                start, files = run
                _send(process.stdin, run_line(start, files))
                line = process.stdout.readline()
                if not line:
                    raise _died(process, said, files)
                self.answers.put((parse_reply(line), len(files)))
        except BrokenPipeError:
            self.answers.put(_died(process, said, []))
        except Exception as error:  # carried to the thread that waits, which raises it
            self.answers.put(error)
        else:
            self.answers.put(None)

    def _next(self) -> _Run | None:
        with self.lock:
            return next(self.runs, None)


def _start(said: IO[bytes]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        children.command("tenfold.data.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
        encoding="ascii",
        env=children.environment(),
    )


def _send(pipe: IO[str], line: str) -> None:
    pipe.write(line + "\n")
    pipe.flush()


def _close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            try:
                pipe.close()
            except BrokenPipeError:  # what was left unsent no longer matters
                continue


def _died(process: subprocess.Popen[str], said: IO[bytes], files: Sequence[str]) -> DataError:
    status = process.wait()
    said.seek(0)
    last = said.read()[-10_000:].decode("utf-8", "replace").strip().splitlines()[-1:]
    where = f" while it decoded {files[0]} to {files[-1]}" if files else ""
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return DataError(
        f"A worker process died ({how}){where}" + (f": {last[0]}" if last else "."),
        "One of these files may bring down an image library, or memory ran out; remove it and try again.",
    )
