"""What clients do to a connection: slowly, halfway, in pieces, too early, too many."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_client import Server, png, serving, until

RECEIVE = 2.0


@pytest.fixture(scope="module")
def hurried(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits two seconds for a body, with room for 300 connections."""
    options = ("--workers", "1", "--receive-timeout", str(RECEIVE), "--max-connections", "300")
    with serving(tiny_bundle, *options, folder=tmp_path_factory.mktemp("hurried")) as running:
        yield running
        assert running.process.poll() is None and "Traceback" not in running.log.read_text()


@pytest.fixture(autouse=True)
def _as_before(hurried: Server) -> Iterator[None]:
    yield
    assert hurried.post("/predict", png()).status == 200
    until(lambda: hurried.figure("tenfold_queue_bytes") == 0)


def everything(connection: socket.socket) -> bytes:
    """What comes until the other end closes; a reset is an end."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def told(answer: bytes) -> tuple[int, str]:
    """(status, code) of a refusal that is the last thing on a connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head and b"connection: close" in head.lower(), answer[:400]
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def post(length: object, body: bytes = b"", path: str = "/predict") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + body


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def exchange(server: Server, *pieces: bytes) -> bytes:
    """Sends the pieces and reads what comes until the end."""
    with server.connect(15) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return everything(connection)


# ---- slowly ---------------------------------------------------------------------------------------------------------


def test_half_open_and_slow_clients_keep_nobody_waiting(hurried: Server) -> None:
    """200 connections that send no request whole, and bodies of a byte a second: probes answer all the while, and the
    slow ones are told and closed at the deadline."""
    half = [hurried.connect() for _ in range(200)]
    for i, connection in enumerate(half):
        connection.sendall((b"", b"POST /pred", b"GET / HTTP/1.1\r\nHost", b"POST / HTTP/1.1\r\nA: b\r\n")[i % 4])
    slow = [hurried.connect() for _ in range(20)]
    began = time.monotonic()
    for connection in slow:
        connection.sendall(post(1000))
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(1.0):
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    waits = []
    while time.monotonic() - began < RECEIVE + 1:
        for path in ("/v2/health/live", "/v2/health/ready", "/ping"):
            start = time.monotonic()
            assert hurried.get(path).status == 200
            waits.append(time.monotonic() - start)
        assert hurried.post("/predict", png()).status == 200
    stop.set()
    thread.join()
    assert max(waits) < 1.0, max(waits)
    for connection in slow:
        assert told(everything(connection)) == (408, "too_slow")
    assert hurried.figure("tenfold_connections") > 200, "their headers have ten seconds"
    for connection in half:
        connection.close()
    until(lambda: hurried.figure("tenfold_connections") < 10)


def test_headers_have_ten_seconds(hurried: Server) -> None:
    with hurried.connect() as connection:
        began = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\nA: ")
        for _ in range(30):
            try:
                connection.sendall(b"a")
                time.sleep(0.5)
            except OSError:
                break
        assert 9 < time.monotonic() - began < 14
        assert everything(connection) == b""


def test_a_client_that_takes_no_answers_is_cut_off(hurried: Server) -> None:
    with hurried.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        end = time.monotonic() + 20
        try:
            while time.monotonic() < end:
                connection.sendall(request * 8)
        except TimeoutError:  # the server reads no more
            pass
        except OSError:
            return
        until(lambda: hurried.figure("tenfold_connections") < 3)


# ---- lengths and chunks ---------------------------------------------------------------------------------------------


def test_a_length_that_is_too_large_is_refused_at_once(hurried: Server) -> None:
    for length in (2**31, 2**62, 33 * 2**20):
        began = time.monotonic()
        assert told(exchange(hurried, post(length, b"abc"))) == (413, "too_large")
        assert time.monotonic() - began < 1.9 * RECEIVE


def test_a_body_that_grows_too_large_is_refused_as_it_comes(hurried: Server) -> None:
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    assert told(exchange(hurried, CHUNKED, *[chunk] * 34)) == (413, "too_large")


def test_a_length_that_lies(hurried: Server) -> None:
    picture = png()
    assert told(exchange(hurried, post(len(picture) + 10, picture))) == (408, "too_slow")
    answer = exchange(hurried, post(len(picture), picture + b"more than was said"))
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1
    answer = exchange(hurried, post(10, picture))
    assert answer.startswith(b"HTTP/1.1 422 ")


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 5x",
        b"Content-Length: 0x10",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, gzip, x",
        b"A b: c",
        b"A\0: c",
        b": c",
    ],
)
def test_odd_heads(hurried: Server, head: bytes) -> None:
    answer = exchange(hurried, b"POST /predict HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\nabcde")
    assert told(answer)[0] in (400, 408, 413), answer


def test_a_million_chunks(hurried: Server) -> None:
    many = b"1\r\nx\r\n" * 10_000
    assert told(exchange(hurried, CHUNKED, *[many] * 100)) == (400, "too_many_pieces")


def test_chunks_of_a_usual_size(hurried: Server) -> None:
    picture = png(0, (300, 200))
    pieces = [picture[i : i + 100] for i in range(0, len(picture), 100)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    with hurried.connect() as connection:
        connection.sendall(CHUNKED + chunks + b"0\r\nA-Trailer: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "around", [b"0\r\nA: " + b"a" * 60_000, b"0\r\n" + b"A: a\r\n" * 10_000, b"5;" + b"a" * 60_000]
)
def test_what_surrounds_chunks_is_bounded(hurried: Server, around: bytes) -> None:
    began = time.monotonic()
    answer = exchange(hurried, CHUNKED, around, *[around[3:]] * 100)
    assert told(answer) in ((400, "too_many_pieces"), (400, "bad_http"), (431, "too_many_headers"))
    assert time.monotonic() - began < 1.9 * RECEIVE


# ---- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"A: " + b"a" * 40_000 + b"\r\n",
        b"".join(b"A%d: a\r\n" % n for n in range(101)),
        b"A: a\r\n" * 100_000,
        b"A" * 40_000 + b": a\r\n",
    ],
)
def test_headers_are_bounded(hurried: Server, head: bytes) -> None:
    answer = exchange(hurried, b"GET / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
    assert told(answer) == (431, "too_many_headers")


def test_an_address_is_bounded(hurried: Server) -> None:
    assert told(exchange(hurried, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n")) == (431, "too_many_headers")
    assert told(exchange(hurried, b"GET /", *[b"a" * 10_000] * 10_000))[0] in (400, 431)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / FTP/1.1\r\n\r\n",
        b"GET \r\n\r\n",
        b"G\xc3\xa9T / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_in_json(hurried: Server, data: bytes) -> None:
    assert told(exchange(hurried, data))[0] in (400, 404)


def test_other_protocols_are_not_spoken(hurried: Server) -> None:
    upgrade = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with hurried.connect() as connection:
        connection.sendall(upgrade)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


# ---- one behind another ---------------------------------------------------------------------------------------------


def test_requests_one_behind_another_are_answered_in_their_order(hurried: Server) -> None:
    paths = [b"/ping", b"/nothing", b"/v2", b"/metrics"] * 10
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths)
    with hurried.connect() as connection:
        connection.sendall(requests[:-2] + b"Connection: close\r\n\r\n")
        answer = everything(connection)
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 404, 200, 200] * 10


def test_too_many_requests_one_behind_another(hurried: Server) -> None:
    before = hurried.figure("tenfold_refusals_total", reason="too_many_requests")
    answer = exchange(hurried, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 100_000)
    assert answer.count(b"HTTP/1.1") <= 65
    assert hurried.figure("tenfold_refusals_total", reason="too_many_requests") == before + 1


def test_nonsense_behind_a_request_leaves_its_answer(hurried: Server) -> None:
    answer = exchange(hurried, b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n\0\0\0\0")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1


# ---- leaving --------------------------------------------------------------------------------------------------------


def test_clients_that_leave(hurried: Server) -> None:
    before = hurried.figure("tenfold_refusals_total", reason="client_gone")
    for data in (b"", b"POST", post(100), post(100, b"x"), post(len(png()), png()), CHUNKED + b"5\r\nab"):
        for _ in range(10):
            with hurried.connect() as connection:
                connection.sendall(data)
    until(lambda: hurried.figure("tenfold_connections") <= 1)
    assert hurried.figure("tenfold_refusals_total", reason="client_gone") >= before + 20


# ---- too many -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"GET / HT", post(1000, b"x"), CHUNKED + b"5\r\nab"])
def test_beyond_the_most_connections_the_oldest_is_closed_and_probes_get_in(hurried: Server, data: bytes) -> None:
    before = hurried.figure("tenfold_refusals_total", reason="too_many_connections")
    held = []
    for _ in range(330):
        held.append(hurried.connect())
        held[-1].sendall(data)
    for _ in range(10):
        began = time.monotonic()
        assert hurried.get("/v2/health/live").status == 200
        assert time.monotonic() - began < 1
    assert hurried.figure("tenfold_refusals_total", reason="too_many_connections") >= before + 30
    assert hurried.figure("tenfold_connections") <= 300
    for connection in held:
        connection.close()
    until(lambda: hurried.figure("tenfold_connections") < 10)
