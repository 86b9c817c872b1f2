"""What passes between the front and a worker: frames of a JSON head and bytes.

A frame is the head's length (4 bytes), the body's (8 bytes, both little-endian), the head as JSON, the body. Both ends
are tenfold's own processes; nothing of a stranger's is in a head but names and numbers that were checked.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_LENGTHS = struct.Struct("<IQ")

Frame = tuple[dict[str, Any], memoryview]


def pack(head: dict[str, Any], parts: Sequence[bytes] = ()) -> list[bytes]:
    """A frame as pieces to be written one after another; the body is not copied."""
    text = json.dumps(head, separators=(",", ":")).encode()
    return [_LENGTHS.pack(len(text), sum(map(len, parts))) + text, *parts]


def send(channel: socket.socket, head: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
    for piece in pack(head, parts):
        channel.sendall(piece)


def receive(channel: socket.socket) -> Frame | None:
    """The next frame, waited for; None where the other end has closed."""
    lengths = _exactly(channel, _LENGTHS.size)
    if lengths is None:
        return None
    head, body = _LENGTHS.unpack(lengths)
    data = _exactly(channel, head + body)
    if data is None:
        return None
    view = memoryview(data)
    return json.loads(bytes(view[:head])), view[head:]


def _exactly(channel: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = channel.recv_into(view[at:])
        if not got:
            return None
        at += got
    return data


class Reader:
    """Frames out of a stream's pieces as they come."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._data += data
        while len(self._data) >= _LENGTHS.size:
            head, body = _LENGTHS.unpack_from(self._data)
            start, end = _LENGTHS.size + head, _LENGTHS.size + head + body
            if len(self._data) < end:
                return
            whole = bytes(self._data[:end])
            del self._data[:end]
            yield json.loads(whole[_LENGTHS.size : start]), memoryview(whole)[start:]
