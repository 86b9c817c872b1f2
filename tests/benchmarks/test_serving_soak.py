"""The soak's checks can fail, and pass where all is well. The servers here are small ones of the test's own."""

from __future__ import annotations

import asyncio
import json

import asking
import numpy as np
import pytest
import soak
import wire

METRICS = """\
# HELP tenfold_requests_total Requests by route and status.
# TYPE tenfold_requests_total counter
tenfold_requests_total{model="a",route="/predict",status="200"} 12.0
tenfold_requests_total{model="b, \\"c\\"}",route="/predict",status="200"} 1e+03
tenfold_requests_total{model="",route="/predict",status="503"} 3.0
tenfold_requests_total{model="a",route="/explain",status="200"} 7.0
tenfold_requests_created{model="a",route="/predict",status="200"} 1.7e+09
tenfold_requests_total_sum 5
"""


def test_requests_are_counted_by_status() -> None:
    assert soak.counted(METRICS) == {200: 1012, 503: 3}
    assert soak.counted(METRICS, "/explain") == {200: 7} and soak.counted("") == {}


def beside(closes: float | None, slow_probe: float = 0.0) -> list[tuple[bool, str, str]]:
    """The checks against a server that closes unfinished requests after ``closes`` seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(closes):
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    await asyncio.sleep(slow_probe)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await reader.read()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def both() -> list[tuple[bool, str, str]]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        checks = soak.Checks()
        await soak.beside_slow_ones(server.sockets[0].getsockname()[1], 9, 0.4, 0.5, checks)
        server.close()
        return checks.rows

    return asyncio.run(both())


def test_unfinished_requests_that_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SLACK", 0.5)
    rows = beside(closes=0.3)
    assert len(rows) == 5 and all(good for good, _, _ in rows), rows
    assert next(seen for _, what, seen in rows if "slow body" in what).startswith("3 of 3 closed")


def test_unfinished_requests_that_stay_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SLACK", 0.1)
    rows = beside(closes=None)
    assert [good for good, _, _ in rows] == [True, True, False, False, False]


def test_probes_that_take_too_long_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SLACK", 0.1)
    monkeypatch.setattr(soak, "PROBE_LIMIT", 0.2)
    rows = beside(closes=0.4, slow_probe=0.3)
    assert [good for good, _, _ in rows] == [False, False, True, True, True]
    assert "no answer" in rows[0][2]


def test_one_failed_check_fails_all() -> None:
    checks = soak.Checks()
    checks.add(True, "a", "b")
    assert checks.passed
    checks.add(False, "c", "d")
    assert not checks.passed


# ---- asking one picture at a time ----------------------------------------------------------------------------------


def test_tenfold_s_answers_and_the_peers_are_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    top = [{"class": "cat", "probability": 0.9}, {"class": "dog", "probability": 0.1}]
    answers = {
        "own": (200, {"model": "m", "predictions": [{"file": "a", "class": "unknown", "top": top}]}),
        "peer": (200, {"class": "cat", "probability": 0.9, "top": top}),
        "refused": (422, {"error": {"code": "bad_picture"}}),
        "other": (200, {"label": 3}),
        "none": (200, []),
    }

    def post(port: int, request: bytes, timeout: float = 60) -> wire.Reply:
        status, told = answers[request.rsplit(b"\r\n\r\n", 1)[-1].decode()]
        return wire.Reply(status, json.dumps(told).encode(), True)

    monkeypatch.setattr(asking, "post", post)
    ask = asking.asker(1, "/predict", "raw")
    assert ask("a.jpg", b"own") == ask("a.jpg", b"peer") == top
    for bad in (b"refused", b"other", b"none"):
        with pytest.raises(asking.AnswerError, match=r"a\.jpg"):
            ask("a.jpg", bad)


def test_how_far_the_probabilities_are_off() -> None:
    expected = np.array([[0.9, 0.1], [0.3, 0.7]])
    told = {b"x": [("a", 0.9), ("b", 0.1)], b"y": [("b", 0.6), ("a", 0.4)]}

    def ask(name: str, picture: bytes) -> asking.Top:
        return [{"class": c, "probability": p} for c, p in told[picture]]

    assert asking.furthest(ask, [b"x", b"y"], expected, ["a", "b"]) == pytest.approx(0.1)
