"""A request on its way through the front: who it is, what it holds of the server's memory, and its bounded body."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from tenfold.serving.refusal import Refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
KEY = "tenfold"  # of the call in a scope


class Memory:
    """Bytes that all requests under way hold together."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0


@dataclass
class Call:
    """``route`` and ``model`` are for figures: no text of a client's gets there. ``ms`` by stage, in milliseconds."""

    id: str
    began: float = field(default_factory=time.perf_counter)
    route: str = "other"
    model: str = ""
    status: int = 0
    code: str = ""
    held: int = 0
    ms: dict[str, float] = field(default_factory=dict)

    def since(self) -> float:
        """Milliseconds since the request's headers were there."""
        return 1000 * (time.perf_counter() - self.began)


def identified(scope: Scope) -> Call:
    """A call with the client's own id where it sent one that can be told, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return Call(value.decode())
    return Call(secrets.token_hex(8))


def header(scope: Scope, name: bytes) -> str:
    """A header's value, empty where there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def body(scope: Scope, receive: Receive, call: Call, memory: Memory, *, most: int, seconds: float) -> bytes:
    """The request's body, of ``most`` bytes at most, all there within ``seconds``. What it takes of ``memory`` is the
    call's until it ends. Raises Refusal: 413, 415, 408, 503, or 499 where the client leaves."""
    coding = header(scope, b"content-encoding")
    if coding not in ("", "identity"):
        raise Refusal(415, "encoded", "Send the body as it is, without a content encoding.", close=True)
    length = header(scope, b"content-length")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(seconds):
            data = await _chunks(receive, call, memory, most)
    except TimeoutError:
        raise Refusal(408, "too_slow", f"The body was not there after {seconds:g} s.", close=True) from None
    call.ms["receive"] = call.since()
    return data


async def _chunks(receive: Receive, call: Call, memory: Memory, most: int) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(499, "client_gone", "The client left.")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        if memory.used + len(chunk) > memory.most:
            raise Refusal(503, "no_memory", "Too many bytes are under way. Try again in a second.", close=True)
        memory.used += len(chunk)
        call.held += len(chunk)
        if chunk:
            chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too_large", f"The body is larger than {most:,} bytes.", close=True)
