"""A load of pictures on a server, and what it answered, as one line of JSON.

    python benchmarks/serving/load.py http://127.0.0.1:8000/predict PICTURES --connections 32 --seconds 5
    python benchmarks/serving/load.py http://127.0.0.1:8000/predict PICTURES --rate 200 --seconds 5

Without ``--rate`` the loop is closed: each connection sends its next request when the last is answered. With it the
loop is open: requests are due at random times, so many a second, whatever the server does; ``--connections`` is then
the most that are opened, and a request that finds none free waits, which counts (see latency.py).

One process, one thread, the requests' bytes made before it starts: it shares the machine with what it measures, and
says how much of a core it took.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import re
import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wire
from alarm import Alarm
from latency import Tally, arrivals, percentile

BEST = re.compile(rb'"top"\s*:\s*\[\s*\{\s*"class"\s*:\s*"([^"]*)"')  # the most probable class, unknown or not
SWEEP_SECONDS = 0.25  # how often requests are looked through for those that wait too long
AGAIN_SECONDS = 0.05  # after a connection was refused


class _Wire(asyncio.Protocol):
    """One connection; told apart from its successor, as the end of a closed one is heard later."""

    def __init__(self, slot: Slot) -> None:
        self.slot: Slot | None = slot
        self.parser = wire.Parser()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.slot is None:
            return
        try:
            replies = self.parser.feed(data)
        except ValueError:
            self.give_up("not HTTP")
            return
        for reply in replies:
            self._replied(reply)

    def connection_lost(self, error: Exception | None) -> None:
        if self.slot is None:
            return
        try:
            reply = self.parser.end()
        except ValueError:
            reply = None
        if reply is None:
            self.give_up("reset" if error else "closed")
        else:
            self._replied(reply)

    def give_up(self, why: str) -> None:
        slot, self.slot = self.slot, None
        self.transport.abort()
        if slot is not None:
            slot.lost(why)

    def _replied(self, reply: wire.Reply) -> None:
        slot = self.slot
        if slot is None:
            return
        if not reply.keep_alive:
            self.slot = None
            self.transport.close()
        slot.replied(reply, reply.keep_alive)


class Slot:
    """A place for one request at a time; its connection is opened when it is needed."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.wire: _Wire | None = None
        self.picture = -1  # -1: no request under way
        self.due = self.sent = 0.0
        self.pause = 0  # seconds that the last reply asked to wait
        self._opening: asyncio.Task[None] | None = None

    def send(self, picture: int, due: float) -> None:
        self.picture, self.due, self.sent = picture, due, time.perf_counter()
        if self.wire is None:
            self._opening = asyncio.ensure_future(self._open())
        else:
            self.wire.transport.write(self.load.requests[picture])

    async def _open(self) -> None:
        new = _Wire(self)
        try:
            await self.load.loop.create_connection(lambda: new, self.load.host, self.load.port)
        except OSError:
            await asyncio.sleep(AGAIN_SECONDS)
            self.lost("refused")
            return
        if new.slot is None:  # closed at once
            return
        self.wire = new
        new.transport.write(self.load.requests[self.picture])

    def replied(self, reply: wire.Reply, keep: bool) -> None:
        if not keep:
            self.wire = None
        if self.picture < 0:
            return  # a reply that nobody asked for
        picture, self.picture = self.picture, -1
        self.pause = reply.retry_after if self.load.args.patient else 0
        tally, now = self.load.tally, time.perf_counter()
        tally.answered(reply.status, self.due, now)
        expected = self.load.expected
        if expected and reply.status == 200:
            found = BEST.search(reply.body)
            tally.wrong += found is None or found[1] != expected[picture]
        self.load.free(self)

    def lost(self, why: str) -> None:
        self.wire = None
        if self.picture >= 0:  # an idle connection may be closed
            self.picture = -1
            self.load.tally.failed(why)
            self.load.free(self)


class Load:
    """What both loops share. ``run`` gives the figures."""

    def __init__(self, args: argparse.Namespace) -> None:
        where = urlsplit(args.url)
        if where.scheme != "http" or not where.hostname:
            raise ValueError(f"{args.url} is no http:// address")
        self.host, self.port = where.hostname, where.port or 80
        path = (where.path or "/") + (f"?{where.query}" if where.query else "")
        at = f"{self.host}:{self.port}"
        found = wire.pictures(args.pictures)
        self.requests = [wire.request(at, path, data, name, args.body) for name, data in found]
        self.expected: list[bytes] = []
        if args.expect:
            told = json.loads(args.expect.read_text(encoding="utf-8"))
            self.expected = [told[name].encode() for name, _ in found]
        self.args = args
        self.tally = Tally()
        self.slots: list[Slot] = []
        self._next = 0

    def take(self) -> int:
        """The next picture."""
        self._next = (self._next + 1) % len(self.requests)
        return self._next

    async def run(self) -> dict[str, Any]:
        self.loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self.loop.create_future()
        sweep = asyncio.ensure_future(self._sweep())
        gc.collect()
        gc.disable()
        cpu, self.started = time.process_time(), time.perf_counter()
        self.tally.window_ends = self.started + self.args.seconds
        self.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.args.seconds + self.args.grace):
                await self.over
        now = time.perf_counter()
        used = time.process_time() - cpu
        sweep.cancel()
        for slot in self.slots:
            if slot.picture >= 0:
                slot.picture = -1
                self.tally.unanswered(slot.due, now)
            if slot.wire is not None:
                slot.wire.slot = None
                slot.wire.transport.abort()
        self.finish(now)
        client = {"cpu_seconds": used, "cores": used / (now - self.started), **self.client()}
        return {**self.about(), **self.tally.figures(self.args.seconds), "client": client}

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            oldest = time.perf_counter() - self.args.timeout
            for slot in self.slots:
                if slot.picture >= 0 and slot.sent < oldest and slot.wire is not None:
                    slot.wire.give_up("timeout")

    def start(self) -> None:
        raise NotImplementedError

    def free(self, slot: Slot) -> None:
        """A slot's request has come to its end."""
        raise NotImplementedError

    def finish(self, now: float) -> None:
        """What was never sent."""

    def client(self) -> dict[str, Any]:
        return {}

    def about(self) -> dict[str, Any]:
        args = self.args
        return {"loop": "closed", "body": args.body, "connections": args.connections, "seconds": args.seconds}


class Closed(Load):
    def start(self) -> None:
        self.busy = self.args.connections
        self.slots = [Slot(self) for _ in range(self.args.connections)]
        for slot in self.slots:
            slot.send(self.take(), time.perf_counter())

    def free(self, slot: Slot) -> None:
        now = time.perf_counter()
        if now < self.tally.window_ends:
            if slot.pause:
                pause, slot.pause = slot.pause, 0
                self.loop.call_later(pause, self.free, slot)
            else:
                slot.send(self.take(), now)
            return
        self.busy -= 1
        if not self.busy and not self.over.done():
            self.over.set_result(None)


class Open(Load):
    def start(self) -> None:
        self.due = [self.started + at for at in arrivals(self.args.rate, self.args.seconds, self.args.seed)]
        self.at = 0
        self.late: list[float] = []
        self.idle: list[Slot] = []
        self.waiting: deque[float] = deque()  # when they were due; no connection was free
        self.alarm = Alarm(self.loop, self._ring)
        self._ring()

    def _ring(self) -> None:
        now = time.perf_counter()
        while self.at < len(self.due) and self.due[self.at] <= now:
            self.late.append(now - self.due[self.at])
            self._begin(self.due[self.at])
            self.at += 1
        if self.at < len(self.due):
            self.alarm.set(self.due[self.at])
        else:
            self._end()

    def _begin(self, due: float) -> None:
        if self.idle:
            self.idle.pop().send(self.take(), due)
        elif len(self.slots) < self.args.connections:
            self.slots.append(Slot(self))
            self.slots[-1].send(self.take(), due)
        else:
            self.waiting.append(due)

    def free(self, slot: Slot) -> None:
        if self.waiting:
            slot.send(self.take(), self.waiting.popleft())
            return
        self.idle.append(slot)
        self._end()

    def _end(self) -> None:
        done = self.at == len(self.due) and not self.waiting and len(self.idle) == len(self.slots)
        if done and not self.over.done():
            self.over.set_result(None)

    def finish(self, now: float) -> None:
        self.alarm.close()
        for due in (*self.waiting, *self.due[self.at :]):
            self.tally.unanswered(due, now)

    def client(self) -> dict[str, Any]:
        late = round(percentile(sorted(self.late), 99) * 1000, 3) if self.late else None
        return {"late_ms_p99": late, "opened": len(self.slots)}

    def about(self) -> dict[str, Any]:
        return {**super().about(), "loop": "open", "rate": self.args.rate, "seed": self.args.seed}


def _fast_loop() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def room_for(connections: int) -> None:
    """Let the process have so many connections open, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where the pictures are posted, http://HOST:PORT/PATH")
    parser.add_argument("pictures", type=Path, help="a folder of .jpg and .png")
    parser.add_argument("--body", choices=("form", "raw"), default="form", help="a form's field file, or the bytes")
    parser.add_argument("--connections", type=int, help="closed loop: 1; open loop: 256 at most")
    parser.add_argument("--rate", type=float, help="requests a second; the loop is open")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0, help="of an open loop's times")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds after which a request has failed")
    parser.add_argument("--grace", type=float, default=3.0, help="seconds to wait for answers after the end")
    parser.add_argument("--patient", action="store_true", help="closed loop: wait as long as Retry-After says")
    parser.add_argument("--expect", type=Path, help='JSON, {"a.jpg": "cat"}: count the answers with another class')
    args = parser.parse_args(argv)
    args.connections = args.connections or (1 if args.rate is None else 256)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    room_for(args.connections)
    try:
        load = (Closed if args.rate is None else Open)(args)
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            print(json.dumps(runner.run(load.run())))
    except (OSError, ValueError, KeyError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
