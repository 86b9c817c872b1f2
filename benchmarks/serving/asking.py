"""One picture at a time: whether a server answers, what it answers, and whether that is what the network says."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wire

Top = list[dict[str, Any]]  # [{"class", "probability"}, …], the most probable first


class AnswerError(Exception):
    """A server's answer is not one."""


def post(port: int, request: bytes, timeout: float = 60) -> wire.Reply:
    """Send a request on a connection of its own. Raises OSError, ValueError where there is no reply."""
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request)
        parser = wire.Parser()
        while data := connection.recv(65536):
            if replies := parser.feed(data):
                return replies[0]
        reply = parser.end()
        if reply is None:
            raise ValueError("the connection was closed without a reply")
        return reply


def get(port: int, path: str, timeout: float = 10) -> tuple[int, bytes]:
    """Status and body of a GET. Raises OSError, http.client.HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def answers(port: int, request: bytes) -> bool:
    """Whether a picture is answered with 200 by now."""
    try:
        return post(port, request).status == 200
    except (OSError, ValueError):
        return False


def asker(port: int, path: str, body: str) -> Callable[[str, bytes], Top]:
    """What a picture shows, by name and bytes: asks, and reads tenfold's answer or the peers'."""

    def ask(name: str, picture: bytes) -> Top:
        reply = post(port, wire.request(f"127.0.0.1:{port}", path, picture, name, body))
        if reply.status != 200:
            raise AnswerError(f"{name} was answered with {reply.status}: {reply.body[:200]!r}")
        try:
            told = json.loads(reply.body)
            top: Top = told.get("predictions", [told])[0]["top"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise AnswerError(f"{name}'s answer can't be read: {reply.body[:200]!r}") from None
        return top

    return ask


def furthest(ask: Callable[[str, bytes], Top], images: Sequence[bytes], expected: np.ndarray, classes: Sequence[str]
             ) -> float:  # fmt: skip
    """The largest difference between the probabilities that are answered for PNGs of the network's own size, which
    nothing resizes, and those of the bundle (``expected``, N×classes)."""
    worst = 0.0
    for i, image in enumerate(images):
        for one in ask(f"{i:03}.png", image):
            worst = max(worst, abs(one["probability"] - float(expected[i][list(classes).index(one["class"])])))
    return worst


def png(pixels: np.ndarray) -> bytes:
    """uint8 H×W×3 as a PNG's bytes."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_expected(file: Path, found: dict[str, Top]) -> None:
    """The first classes, for load.py's --expect."""
    file.write_text(json.dumps({name: top[0]["class"] for name, top in found.items()}), encoding="utf-8")
