"""HTTP/1.1 as a load generator needs it: a request's bytes made once, a reply's end found in whatever pieces come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BOUNDARY = "picture-7f3c1d90a2"
LONGEST_HEAD = 64 * 1024


def request(host: str, path: str, picture: bytes, name: str, body: str = "form") -> bytes:
    """The bytes of a POST with a picture: ``form`` is a multipart form whose field ``file`` has it, as ``curl -F
    file=@name`` sends; ``raw`` is the picture itself."""
    image = "image/png" if name.endswith(".png") else "image/jpeg"
    if body == "form":
        before = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Type: {image}\r\n\r\n"
        )
        content = before.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
    elif body == "raw":
        content, kind = picture, image
    else:
        raise ValueError(f"a body is form or raw, not {body}")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def pictures(folder: Path) -> list[tuple[str, bytes]]:
    """Name and bytes of every JPEG and PNG below a folder, by path. Raises ValueError where there is none."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    if not files:
        raise ValueError(f"{folder} has no .jpg and no .png")
    return [(path.name, path.read_bytes()) for path in files]


@dataclass(frozen=True)
class Reply:
    """status code, body, whether the connection may be used again, and the seconds of Retry-After (0: not told)."""

    status: int
    body: bytes
    keep_alive: bool
    retry_after: int = 0


class Parser:
    """Finds replies in the bytes of one connection; ``feed`` what comes, ``end`` when the other side has closed.

    Knows bodies by Content-Length, in chunks, and up to the end of the connection. Raises ValueError for what is no
    HTTP/1 reply. Replies 1xx are passed over. The requests must not be HEAD or CONNECT.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._head: _Head | None = None

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are whole now."""
        self._data += data
        found = []
        while (reply := self._next()) is not None:
            found.append(reply)
        return found

    def end(self) -> Reply | None:
        """The reply whose body is all that came up to the end; None where none was under way, ValueError where one is
        cut short."""
        head = self._head
        if head is None:
            if self._data:
                raise ValueError("a reply's head is cut short")
            return None
        if head.chunked or head.length is not None:
            raise ValueError("a reply's body is cut short")
        self._head = None
        return Reply(head.status, bytes(self._data), False, head.retry_after)

    def _next(self) -> Reply | None:
        if self._head is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                if len(self._data) > LONGEST_HEAD:
                    raise ValueError("a reply's head has no end")
                return None
            head = _Head.read(bytes(self._data[:end]))
            del self._data[: end + 4]
            if 100 <= head.status < 200:
                return self._next()
            self._head = head
        head = self._head
        if head.chunked:
            body, used = _dechunk(self._data)
        elif head.length is not None:
            used = head.length if len(self._data) >= head.length else 0
            body = bytes(self._data[: head.length]) if used == head.length else None
        else:
            return None  # its end is the connection's
        if body is None:
            return None
        del self._data[:used]
        self._head = None
        return Reply(head.status, body, head.keep_alive, head.retry_after)


@dataclass(frozen=True)
class _Head:
    status: int
    length: int | None
    chunked: bool
    keep_alive: bool
    retry_after: int

    @staticmethod
    def read(head: bytes) -> _Head:
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise ValueError(f"{first[:40]!r} begins no HTTP/1 reply")
        fields = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise ValueError(f"{line[:40]!r} is no header")
            fields[name.strip().lower()] = value.strip().lower()
        status = int(words[1])
        chunked = fields.get(b"transfer-encoding", b"").endswith(b"chunked")
        length = None if chunked or b"content-length" not in fields else int(fields[b"content-length"])
        if status in (204, 304):
            chunked, length = False, 0
        said = fields.get(b"connection", b"")
        keep_alive = b"close" not in said if words[0] == b"HTTP/1.1" else b"keep-alive" in said
        wait = fields.get(b"retry-after", b"")
        return _Head(status, length, chunked, keep_alive, int(wait) if wait.isdigit() else 0)


def _dechunk(data: bytearray) -> tuple[bytes | None, int]:
    """The body and how many bytes it took, or None where it is not whole yet."""
    parts, at = [], 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None, 0
        size = int(bytes(data[at:end]).split(b";")[0], 16)  # ValueError where it is no number
        at = end + 2
        if size == 0:
            if data[at : at + 2] == b"\r\n":
                return b"".join(parts), at + 2
            trailer = data.find(b"\r\n\r\n", at)
            return (b"".join(parts), trailer + 4) if trailer >= 0 else (None, 0)
        if len(data) < at + size + 2:
            return None, 0
        parts.append(bytes(data[at : at + size]))
        at += size + 2
