"""The queue and the workers: jobs in, answers out, in bounded memory and time.

A job waits in one queue for all workers, so none waits while a worker is idle. A worker takes one frame at a time and
is sent the next while it works, so that it never waits for the front. A worker that dies or hangs is replaced, and what
it was working on is given to another, once, each job by itself: one that kills whoever opens it takes no other along.
New models come with new workers: the old ones answer what they have and
end when the new ones are ready.
"""

from __future__ import annotations

import asyncio
import collections
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.errors import BundleError, TenfoldError
from tenfold.serving import wire
from tenfold.serving.refusal import Refusal

BATCH_BYTES = 8 * 2**20  # of the jobs in one frame, unless one alone has more
START_SECONDS = 120.0  # for a worker to load the models
GRACE = 5.0  # seconds beyond a job's deadline until a worker that is still at it is killed
PATIENCE = 250  # fiftieths of a second until a worker that should have left is killed
BACKOFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # between starts of workers that die at once


@dataclass(frozen=True)
class Answer:
    """``head`` has ``version`` and ``ms`` (decode, compute, wait), ``body`` what the client is sent."""

    head: dict[str, Any]
    body: memoryview


class Job:
    """``head`` is what a worker is told, ``body`` the bytes beside it; ``answer`` is given an Answer, or a Refusal as
    its exception. Done, it is passed over wherever it is."""

    __slots__ = ("answer", "body", "head", "losses", "queued", "since")

    def __init__(self, head: dict[str, Any], body: bytes, answer: asyncio.Future[Answer]) -> None:
        self.head, self.body, self.answer = {**head, "size": len(body)}, body, answer
        self.losses, self.queued, self.since = 0, False, time.monotonic()


class Figures:
    """What a pool tells of itself; the server's metrics take its place."""

    def batch(self, pictures: int) -> None: ...

    def restarted(self) -> None: ...

    def note(self, message: str) -> None: ...


class Pool:
    """``count`` workers for the same models.

    spec      the first frame that each is sent (see ``handler.Handler.start``)
    batch     jobs in a frame at most, ``most`` jobs in the queue
    deadline  seconds that a job's client waits at most
    ahead     frames that a worker has at once: 2 is the one it works on and the next, so that it never waits for the
              front; with 1 jobs gather while it works, for a device to which a larger batch is worth more
    """

    def __init__(
        self,
        spec: dict[str, Any],
        count: int,
        batch: int,
        most: int,
        figures: Figures,
        *,
        deadline: float,
        ahead: int = 2,
    ) -> None:
        self.spec, self.count, self.batch, self.most, self.ahead = spec, count, batch, most, ahead
        self.patience = deadline + GRACE
        self.figures = figures
        self.cards: dict[str, dict[str, Any]] = {}
        self.waiting = 0
        self._queue: collections.deque[Job] = collections.deque()
        self._workers: list[_Worker] = []
        self._closing = False
        self._failures = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.reapers: set[asyncio.Task[None]] = set()

    # ---- jobs --------------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        return self.waiting >= self.most

    def submit(self, head: dict[str, Any], body: bytes) -> asyncio.Future[Answer]:
        """A place in the queue. Raises Refusal (503) where it is full."""
        if self.full:
            raise full_queue()
        job = Job(head, body, asyncio.get_running_loop().create_future())
        job.answer.add_done_callback(lambda _: self._forget(job))
        self._put(job, self._queue.append)
        self._dispatch()
        return job.answer

    def _put(self, job: Job, put: Callable[[Job], None]) -> None:
        job.queued = True
        self.waiting += 1
        put(job)

    def _forget(self, job: Job) -> None:
        """The job is done, perhaps by its client's leaving: it counts as waiting no longer."""
        if job.queued:
            job.queued = False
            self.waiting -= 1

    def _dispatch(self) -> None:
        while self.waiting and (worker := self._free()) is not None:
            idle = sum(w.ready and not w.frames for w in self._workers) or 1
            jobs = self._next(max(1, min(self.batch, -(-self.waiting // idle))))
            if jobs:
                self.figures.batch(len(jobs))
                worker.send(jobs)

    def _free(self) -> _Worker | None:
        able = [w for w in self._workers if w.ready and not w.retiring and len(w.frames) < self.ahead]
        return min(able, key=lambda w: len(w.frames), default=None)

    def _next(self, most: int) -> list[Job]:
        jobs: list[Job] = []
        size = 0
        while self._queue and len(jobs) < most:
            job = self._queue[0]
            if job.queued:
                if jobs and (job.losses or jobs[0].losses or size + len(job.body) > BATCH_BYTES):
                    break
                jobs.append(job)
                size += len(job.body)
                self._forget(job)
            self._queue.popleft()
        return jobs

    # ---- workers -----------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """Workers that answer."""
        return sum(w.ready and not w.retiring for w in self._workers)

    def pids(self) -> list[int]:
        return [w.process.pid for w in self._workers]

    async def start(self) -> None:
        """Starts the workers and waits until they are warm. Raises TenfoldError where the models can't be loaded."""
        self._workers = await self._generation(self.count)
        self.cards = self._workers[0].cards
        self.watch(self._hung(), self._tasks)

    async def reload(self) -> None:
        """New workers with what the paths hold now take the old ones' place. Raises TenfoldError, and the old ones go
        on, where that can't be loaded."""
        fresh = await self._generation(self.count)
        old, self._workers = self._workers, [*self._workers, *fresh]
        for worker in old:
            worker.retire()
        self.cards = fresh[0].cards
        self._dispatch()

    async def close(self) -> None:
        """Ends the workers; what is still waiting is refused."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        while self._queue:
            job = self._queue.popleft()
            if not job.answer.done():
                job.answer.set_exception(_stopping())
        workers = list(self._workers)
        for worker in workers:
            worker.end()
        await asyncio.gather(*(worker.gone for worker in workers))

    async def _generation(self, count: int) -> list[_Worker]:
        workers = [await self._spawn() for _ in range(count)]
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*(w.started for w in workers))
        except TimeoutError:
            raise _ended(workers, TenfoldError(f"The models were not loaded in {START_SECONDS:g} s.")) from None
        except TenfoldError as error:
            raise _ended(workers, error) from None
        versions = {tuple(card["version"] for card in w.cards.values()) for w in workers}
        if len(versions) > 1:
            raise _ended(workers, BundleError("A model was changed while it was being loaded.", "Try again."))
        return workers

    async def _spawn(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tenfold.serving.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(self.spec),
            )
        ours.setblocking(False)
        worker = _Worker(process, self)
        await asyncio.get_running_loop().create_connection(lambda: worker, sock=ours)
        worker.transport.writelines(wire.pack(self.spec))
        return worker

    def lost(self, worker: _Worker) -> None:
        """A worker has ended. What it had is given to others; in its place another is started."""
        known = worker in self._workers
        if known:
            self._workers.remove(worker)
        frames = [jobs for jobs, _ in worker.frames.values()]
        for job in frames[0] if frames else []:  # the others it had not begun
            job.losses += 1
        for job in [job for jobs in frames for job in jobs if not job.answer.done()][::-1]:
            if self._closing:
                job.answer.set_exception(_stopping())
            elif job.losses > 1:
                job.answer.set_exception(
                    Refusal(503, "worker_lost", "The process that worked on this request ended twice. Try again later.")
                )
            else:
                self._put(job, self._queue.appendleft)
        worker.frames.clear()
        if known and not worker.retiring and not self._closing:
            self.figures.restarted()
            self.watch(self._replace(), self._tasks)
        self._dispatch()

    async def _replace(self) -> None:
        """Another worker in the place of one that was lost, however often it takes."""
        while not self._closing:
            await asyncio.sleep(BACKOFF[min(self._failures, len(BACKOFF) - 1)])
            try:
                [worker] = await self._generation(1)
            except TenfoldError as error:
                self._failures += 1
                self.figures.note(f"a worker could not be started: {error}")
                continue
            self._failures = 0
            if [c["version"] for c in worker.cards.values()] != [c["version"] for c in self.cards.values()]:
                self.figures.note("a model's files were changed since the start; they are taken up, as by SIGHUP")
                worker.end()
                await self._reload_quietly()
                return
            self._workers.append(worker)
            self._dispatch()
            return

    async def _reload_quietly(self) -> None:
        try:
            await self.reload()
        except TenfoldError as error:
            self.figures.note(f"the models could not be loaded anew: {error}")

    async def _hung(self) -> None:
        """Kills a worker that is still at a frame for which nobody waits any more; its end does the rest."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for worker in list(self._workers):
                if worker.ready and worker.frames and now - worker.busy_since > self.patience:
                    self.figures.note(f"worker {worker.process.pid} has not answered for {self.patience:g} s")
                    worker.process.kill()

    def watch(self, coroutine: Any, among: set[asyncio.Task[None]]) -> None:
        """Runs it beside all else; it is kept until it is done."""
        task = asyncio.get_running_loop().create_task(coroutine)
        among.add(task)
        task.add_done_callback(among.discard)


class _Worker(asyncio.Protocol):
    """The front's end of a worker's socket. ``frames``: the jobs sent and not answered, by frame, with the time."""

    transport: asyncio.Transport

    def __init__(self, process: subprocess.Popen[bytes], pool: Pool) -> None:
        self.process, self.pool = process, pool
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.cards: dict[str, dict[str, Any]] = {}
        self.frames: dict[int, tuple[list[Job], float]] = {}
        self.ready = self.retiring = False
        self.busy_since = 0.0
        self._reader, self._count = wire.Reader(), 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, jobs: list[Job]) -> None:
        self._count += 1
        now = time.monotonic()
        if not self.frames:
            self.busy_since = now
        self.frames[self._count] = (jobs, now)
        head = {"id": self._count, "jobs": [job.head for job in jobs]}
        self.transport.writelines(wire.pack(head, [job.body for job in jobs]))

    def data_received(self, data: bytes) -> None:
        for head, body in self._reader.feed(data):
            if "ready" in head:
                self.cards, self.ready = head["ready"], True
                if not self.started.done():
                    self.started.set_result(None)
            elif "failed" in head:
                if not self.started.done():
                    self.started.set_exception(_failure(head))
            else:
                self._answered(head, body)
        if self.retiring and not self.frames:
            self.end()

    def _answered(self, head: dict[str, Any], body: memoryview) -> None:
        jobs, _ = self.frames.pop(head["id"])
        self.busy_since = time.monotonic()
        at = 0
        for job, told in zip(jobs, head["jobs"], strict=True):
            part, at = body[at : at + told["size"]], at + told["size"]
            if job.answer.done():
                continue
            if (error := told.get("error")) is not None:
                job.answer.set_exception(Refusal(error["status"], error["code"], error["message"]))
            else:
                told["ms"]["wait"] = round(max(0.0, 1000 * (told.pop("began") - job.since)), 3)
                job.answer.set_result(Answer(told, part))
        self.pool._dispatch()

    def retire(self) -> None:
        self.retiring = True
        if not self.frames:
            self.end()

    def end(self) -> None:
        """Closes the socket, at which the worker leaves."""
        self.retiring = True
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.ready = False
        if not self.started.done():
            self.started.set_exception(TenfoldError("A worker ended before it was ready.", "Its output says why."))
            self.started.exception()  # asked for here, in case nobody waits for it any more
        expected = self.retiring
        self.pool.lost(self)
        self.pool.watch(self._reap(expected), self.pool.reapers)

    async def _reap(self, expected: bool) -> None:
        """Takes the ended process off the system's table."""
        for _ in range(PATIENCE):
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.02)
        else:  # its socket is closed, and it is there all the same
            self.process.kill()
        code = self.process.wait()
        if not expected:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            self.pool.figures.note(f"worker {self.process.pid} ended {how}")
        self.gone.set_result(None)


def full_queue() -> Refusal:
    return Refusal(503, "queue_full", "Too many requests are waiting already. Try again in a second.")


def _stopping() -> Refusal:
    return Refusal(503, "stopping", "The server is stopping.")


def _ended(workers: list[_Worker], error: TenfoldError) -> TenfoldError:
    for worker in workers:
        worker.end()
    return error


def _failure(head: Mapping[str, Any]) -> TenfoldError:
    error = TenfoldError(head["failed"], head["hint"])
    error.exit_code = head["exit_code"]
    return error


def _environment(spec: Mapping[str, Any]) -> dict[str, str]:
    """One thread for whatever would start one a core, where a worker computes on one."""
    threads = spec.get("threads")
    own = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)) if threads else {}
    return {**os.environ, **own}
