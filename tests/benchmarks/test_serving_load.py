"""The load generator against small servers of its own kind: what it counts is what they saw."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import load
import pytest

Handler = Callable[["Small", int], Awaitable[bytes | None]]


class Small:
    """Answers requests by ``handler``, which gets the number of the request; None closes without an answer."""

    def __init__(self, handler: Handler) -> None:
        self.handler, self.requests, self.connections = handler, 0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.body = await reader.readexactly(length)
                self.requests += 1
                reply = await self.handler(self, self.requests)
                if reply is None:
                    return
                writer.write(reply)
                if b"close" in reply:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


BODY = b'{"class": "unknown", "top": [{"class": "a.jpg"}]}'


def reply(body: bytes = BODY, status: int = 200, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


async def always(server: Small, number: int) -> bytes:
    return reply()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def run(handler: Handler, pictures: Path, *options: str) -> tuple[dict[str, Any], Small]:
    async def both() -> tuple[dict[str, Any], Small]:
        small = Small(handler)
        server = await asyncio.start_server(small.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        args = load.arguments([f"http://127.0.0.1:{port}/predict", str(pictures), *options])
        found = await (load.Closed if args.rate is None else load.Open)(args).run()
        server.close()
        return found, small

    return asyncio.run(both())


def test_a_closed_loop_counts_what_the_server_counts(pictures: Path) -> None:
    found, server = run(always, pictures, "--connections", "3", "--seconds", "0.3")
    assert found["requests"] == found["ok"] == server.requests > 30
    assert server.connections == 3 and found["errors"] == {} and found["by_status"] == {"200": server.requests}
    assert 0 < found["in_window"] <= found["ok"] and found["client"]["cores"] > 0


def test_an_open_loop_sends_what_is_due_and_no_more(pictures: Path) -> None:
    found, server = run(always, pictures, "--rate", "200", "--seconds", "0.5", "--seed", "1")
    due = load.arrivals(200, 0.5, 1)
    assert found["requests"] == found["ok"] == server.requests == len(due)
    assert found["latency_ms"]["p50"] < 100 and server.connections == found["client"]["opened"]


def stalling(seconds: float) -> Handler:
    """Every connection stalls together, once, from the fifth request on."""
    until: list[float] = []

    async def handler(server: Small, number: int) -> bytes:
        loop = asyncio.get_running_loop()
        if number >= 5 and not until:
            until.append(loop.time() + seconds)
        if until:
            await asyncio.sleep(max(0.0, until[0] - loop.time()))
        return reply()

    return handler


def test_a_stall_is_seen_by_those_who_would_have_come(pictures: Path) -> None:
    closed, _ = run(stalling(0.5), pictures, "--connections", "1", "--seconds", "1")
    opened, _ = run(stalling(0.5), pictures, "--rate", "200", "--connections", "2", "--seconds", "1")
    assert closed["latency_ms"]["max"] > 400 > closed["latency_ms"]["p90"]
    assert opened["latency_ms"]["p90"] > 300  # with two connections only, most waited for one: that counts


def test_a_server_that_closes_each_connection(pictures: Path) -> None:
    async def closing(server: Small, number: int) -> bytes:
        return reply(more="Connection: close\r\n")

    found, server = run(closing, pictures, "--connections", "2", "--seconds", "0.3")
    assert found["ok"] == server.requests == server.connections > 5 and found["errors"] == {}


@pytest.mark.parametrize("patient", [False, True])
def test_a_patient_client_waits_as_long_as_it_is_asked_to(patient: bool, pictures: Path) -> None:
    async def refuses(server: Small, number: int) -> bytes:
        return reply(status=503, more="Retry-After: 1\r\n")

    options = ("--connections", "2", "--seconds", "0.4", *(["--patient"] if patient else []))
    found, _ = run(refuses, pictures, *options)
    assert found["requests"] == 2 if patient else found["requests"] > 10


def test_refusals_and_broken_connections_are_told_apart(pictures: Path) -> None:
    async def mixed(server: Small, number: int) -> bytes | None:
        return [reply(status=503), None, b"nonsense\r\n\r\n", reply()][number % 4]

    found, server = run(mixed, pictures, "--connections", "1", "--seconds", "0.3")
    assert found["requests"] == server.requests
    assert set(found["by_status"]) == {"200", "503"} and set(found["errors"]) == {"closed", "not HTTP"}


def test_answers_of_another_picture_are_counted(pictures: Path, tmp_path: Path) -> None:
    expect = tmp_path / "expected.json"
    expect.write_text(json.dumps({"a.jpg": "a.jpg", "b.jpg": "b.jpg"}))
    found, _ = run(always, pictures, "--seconds", "0.3", "--expect", str(expect))
    assert abs(found["wrong"] - found["ok"] / 2) <= 1


def test_a_request_without_an_answer(pictures: Path) -> None:
    async def silent(server: Small, number: int) -> bytes:
        await asyncio.sleep(60)
        return reply()

    found, _ = run(silent, pictures, "--connections", "2", "--seconds", "0.3", "--grace", "0.2")
    assert found["errors"] == {"unanswered": 2} and found["latency_ms"]["p50"] >= 500
    found, _ = run(silent, pictures, "--connections", "1", "--seconds", "0.5", "--timeout", "0.1")
    assert found["errors"]["timeout"] >= 1 and found["ok"] == 0


def test_nobody_listens(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        assert load.main([url, str(pictures), "--seconds", "0.2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"]["refused"] >= 2 and found["ok"] == 0


def test_what_can_t_be_loaded(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main(["https://host/", str(pictures)]) == 2 and "no http://" in capsys.readouterr().err
    assert load.main(["http://127.0.0.1:1/", str(tmp_path / "none")]) == 2
