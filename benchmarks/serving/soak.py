"""Whether ``tenfold serve`` holds: 1,000 connections for two minutes, then 200 that never finish their request.

    python benchmarks/serving/soak.py RUN
    python benchmarks/serving/soak.py RUN --seconds 20 --connections 200 --serve-options='--workers 2'

Checks, each with what was seen; the exit code is 1 where one fails:

- under load every request is answered, with no 5xx but 503 and 504, and no answer is another picture's
- ``/metrics`` counts the requests by status as the client does
- all processes together grow by less than 100 MB
- beside 200 connections that send nothing, half a head, or a body at a byte a second, ``/v2/health/live`` and
  ``/v2/health/ready`` answer 200 within a second, asked every 100 ms
- those connections are closed by the server's deadlines, ``--head`` and ``--body``
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

import asking
import photos
import wire
from latency import percentile
from load import room_for
from serve_race import free_port, load, stop
from servers import HERE, Settings, tenfold
from watching import Running, ServerError, resident, tree

from tenfold.words import size

ALLOWED = {503, 504}
MOST_GROWTH = 100e6  # bytes
PROBES = ("/v2/health/live", "/v2/health/ready")
PROBE_SECONDS, PROBE_LIMIT = 0.1, 1.0
SLACK = 5.0  # seconds after a deadline
KINDS = ("no bytes", "half a head", "slow body")
ENDED = {0, -signal.SIGTERM, 128 + signal.SIGTERM}  # by itself, and not because it was killed
LINE = re.compile(r'^tenfold_requests_total\{((?:[^}"]|"(?:[^"\\]|\\.)*")*)\}\s+(\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass
class Checks:
    """What was looked at, and how it went."""

    rows: list[tuple[bool, str, str]] = field(default_factory=list)

    def add(self, good: bool, what: str, seen: str) -> None:
        self.rows.append((good, what, seen))
        print(f"{'ok    ' if good else 'FAILED'}  {what}: {seen}", flush=True)

    @property
    def passed(self) -> bool:
        return all(good for good, _, _ in self.rows)


# ---- under load ----------------------------------------------------------------------------------------------------


def counted(text: str, route: str = "/predict") -> Counter[int]:
    """Requests by status of a route, all models together, from what ``/metrics`` says."""
    found: Counter[int] = Counter()
    for line in text.splitlines():
        if match := LINE.match(line):
            labels = dict(LABEL.findall(match[1]))
            if labels.get("route") == route:
                found[int(labels["status"])] += round(float(match[2]))
    return found


def metrics(port: int) -> Counter[int]:
    status, body = asking.get(port, "/metrics")
    if status != 200:
        raise ServerError(f"/metrics answered {status}")
    return counted(body.decode())


def under_load(running: Running, port: int, folder: Path, expect: Path, args: argparse.Namespace, checks: Checks
               ) -> dict[str, Any]:  # fmt: skip
    """The load and its checks; what the client saw."""
    url = f"http://127.0.0.1:{port}/predict"
    load(url, folder, "--expect", str(expect), "--connections", "64", "--seconds", "3")
    before, start = metrics(port), resident(tree(running.process.pid))
    options = ["--connections", str(args.connections), "--seconds", str(args.seconds), "--timeout", "60"]
    options += ["--patient"] * args.patient
    seen: dict[str, Any] = {}
    used = running.watch(lambda: seen.update(load(url, folder, "--expect", str(expect), *options, "--grace", "60")))
    running.require()
    time.sleep(2)
    after, end = metrics(port), resident(tree(running.process.pid))
    statuses = {int(status): n for status, n in seen["by_status"].items()}
    bad = {status: n for status, n in statuses.items() if status >= 500 and status not in ALLOWED}
    told = ", ".join(f"{n:,} times {status}" for status, n in statuses.items())
    told += f"; {seen['requests_per_second']:,.0f} pictures/s"
    checks.add(not bad, "no 5xx but 503 and 504", told)
    checks.add(not seen["errors"], "every request is answered", f"{seen['errors'] or 'no errors'}")
    checks.add(not seen["wrong"] and seen["ok"] > 0, "every picture gets its own answer", f"{seen['wrong']} of "
               f"{seen['ok']:,} differ from the answer to the picture alone")  # fmt: skip
    server = dict(after - before)
    checks.add(server == statuses, "/metrics counts as the client does", f"{server} and {statuses}")
    grown = f"{size(start)} before, {size(end)} after, {size(used.resident_bytes)} at most"
    checks.add(end - start < MOST_GROWTH, "memory grows by less than 100 MB", grown)
    return seen


# ---- beside connections that never finish --------------------------------------------------------------------------


async def hold(port: int, kind: str, longest: float) -> float | None:
    """Open a connection that never finishes its request; seconds until the server closed it, None where it did not."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 50000\r\n"
    if kind == "half a head":
        writer.write(head)
    elif kind == "slow body":
        writer.write(head + b"\r\n")

    async def drip() -> None:
        while kind == "slow body":
            await asyncio.sleep(1)
            writer.write(b"\xff")

    dripping = asyncio.ensure_future(drip())
    try:
        async with asyncio.timeout(longest):
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):  # a refusal may come before the end
                    pass
            return time.monotonic() - began
    except TimeoutError:
        return None
    finally:
        dripping.cancel()
        writer.transport.abort()


async def probe(port: int, path: str) -> tuple[int | None, float]:
    """Status (None: no answer in time) and seconds of a GET on a connection of its own, as load balancers ask."""
    began = time.monotonic()
    parser, writer = wire.Parser(), None
    try:
        async with asyncio.timeout(PROBE_LIMIT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            while data := await reader.read(65536):
                if replies := parser.feed(data):
                    return replies[0].status, time.monotonic() - began
    except (TimeoutError, OSError, ValueError):
        pass
    finally:
        if writer is not None:
            writer.transport.abort()
    return None, time.monotonic() - began


async def beside_slow_ones(port: int, count: int, head: float, body: float, checks: Checks) -> None:
    """``head``, ``body``: seconds by which a request's headers and its body must be there."""
    deadlines = dict(zip(KINDS, (head, head, body), strict=True))
    longest = max(head, body) + SLACK
    holding = [asyncio.ensure_future(hold(port, KINDS[i % len(KINDS)], longest)) for i in range(count)]
    answers: dict[str, list[tuple[int | None, float]]] = {path: [] for path in PROBES}
    ends = time.monotonic() + longest

    async def ask(path: str) -> None:
        answers[path].append(await probe(port, path))

    asking_: set[asyncio.Task[None]] = set()
    while time.monotonic() < ends and not (all(h.done() for h in holding) and len(answers[PROBES[0]]) > 20):
        asking_ |= {asyncio.ensure_future(ask(path)) for path in PROBES}
        await asyncio.sleep(PROBE_SECONDS)
    await asyncio.gather(*asking_)
    for path, found in answers.items():
        bad = Counter(str(status or "no answer") for status, _ in found if status != 200)
        times = sorted(seconds for _, seconds in found)
        told = f"{len(found)} times, p99 {1000 * percentile(times, 99):.0f} ms, longest {1000 * times[-1]:.0f} ms"
        checks.add(not bad, f"{path} answers 200 within a second beside {count} unfinished requests",
                   told + (f", {dict(bad)}" if bad else ""))  # fmt: skip
    closed = await asyncio.gather(*holding, return_exceptions=True)
    for i, (kind, deadline) in enumerate(deadlines.items()):
        mine = closed[i :: len(KINDS)]
        times = [one for one in mine if isinstance(one, float)]
        told = f"{len(times)} of {len(mine)} closed" + (f", the last after {max(times):.1f} s" if times else "")
        good = len(times) == len(mine) and max(times, default=0.0) <= deadline + SLACK
        checks.add(good, f"connections with {kind} are closed within {deadline:g} s (and {SLACK:g})", told)


# ---- all of it -----------------------------------------------------------------------------------------------------


def soak(args: argparse.Namespace) -> int:
    room_for(args.connections + args.slow)
    checks, port = Checks(), free_port()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder, expect = scratch / "photos", scratch / "expected.json"
        photos.make(folder, args.pictures)
        settings = Settings(args.run.resolve(), scratch, args.connections)
        command = [*tenfold(settings, port), *shlex.split(args.serve_options)]
        with Running(command, cwd=HERE, log=scratch / "log") as running:
            found = wire.pictures(folder)
            request = wire.request(f"127.0.0.1:{port}", "/predict", found[0][1], found[0][0])
            running.wait(lambda: asking.answers(port, request), 120)
            ask = asking.asker(port, "/predict", "form")
            asking.write_expected(expect, {name: ask(name, data) for name, data in found})
            seen = under_load(running, port, folder, expect, args, checks)
            asyncio.run(beside_slow_ones(port, args.slow, args.head, args.body, checks))
            running.require()
            code, took = running.end()
            checks.add(code in ENDED, "it ends when it is asked to", f"exit code {code} after {took:.1f} s")
    if args.out:
        rows = [{"passed": good, "what": what, "seen": told} for good, what, told in checks.rows]
        args.out.write_text(json.dumps({"checks": rows, "load": seen}, indent=1) + "\n", encoding="utf-8")
    return 0 if checks.passed else 1


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder to serve")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--patient", action="store_true", help="clients wait as long as Retry-After says")
    parser.add_argument("--slow", type=int, default=200, help="connections that never finish their request")
    parser.add_argument("--head", type=float, default=10, help="seconds that the server gives a request's headers")
    parser.add_argument("--body", type=float, default=30, help="seconds that it gives a request's body")
    parser.add_argument("--pictures", type=int, default=200, help="different photos that are asked about")
    parser.add_argument("--serve-options", default="", help="more options of tenfold serve")
    parser.add_argument("--out", type=Path, help="the checks as JSON")
    args = parser.parse_args(argv)
    try:
        return soak(args)
    except (ServerError, asking.AnswerError, OSError, ValueError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    sys.exit(main())
