"""A reply's end is found in whatever pieces it comes; a request is what curl would send."""

from __future__ import annotations

import email.parser
import email.policy
from pathlib import Path

import pytest
import wire
from wire import Parser, Reply

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;note=1\r\nhel\r\n0A\r\nlo\r\n\r\nworld\r\n0\r\nTrailer: 1\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\n{}"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTED = [
    Reply(200, b"hello", True),
    Reply(200, b"hello\r\n\r\nworl", True),
    Reply(204, b"", True),
    Reply(200, b"hello", True),
    Reply(503, b"{}", False, 3),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_replies_in_pieces_of_any_size(size: int) -> None:
    data = LENGTH + CHUNKS + EMPTY + CONTINUE + LENGTH + REFUSED
    parser, found = Parser(), []
    for i in range(0, len(data), size):
        found += parser.feed(data[i : i + size])
    assert found == EXPECTED
    assert parser.end() is None


def test_a_body_up_to_the_end_of_the_connection() -> None:
    parser = Parser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\n\r\nhel") == [] and parser.feed(b"lo") == []
    assert parser.end() == Reply(200, b"hello", False)


@pytest.mark.parametrize(
    ("version", "said", "keep"),
    [("1.1", "", True), ("1.1", "close", False), ("1.0", "", False), ("1.0", "Keep-Alive", True)],
)
def test_whether_a_connection_may_be_used_again(version: str, said: str, keep: bool) -> None:
    header = f"Connection: {said}\r\n" if said else ""
    (reply,) = Parser().feed(f"HTTP/{version} 200 OK\r\n{header}Content-Length: 0\r\n\r\n".encode())
    assert reply.keep_alive is keep


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
                                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                                  b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000])  # fmt: skip
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(ValueError):
        Parser().feed(data)


@pytest.mark.parametrize("data", [LENGTH[:-1], LENGTH[:20], CHUNKS[:-2]])
def test_a_reply_that_is_cut_short(data: bytes) -> None:
    parser = Parser()
    assert parser.feed(data) == []
    with pytest.raises(ValueError, match="cut short"):
        parser.end()


def split(request: bytes) -> tuple[bytes, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, dict(line.decode().split(": ", 1) for line in lines), body


def test_a_form_has_the_picture_in_its_field_file() -> None:
    picture = bytes(range(256)) + b"\r\n--\r\n"
    first, headers, body = split(wire.request("host:1", "/predict?top=3", picture, "a.png"))
    assert first == b"POST /predict?top=3 HTTP/1.1" and headers["Host"] == "host:1"
    assert int(headers["Content-Length"]) == len(body)
    whole = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(whole)
    (part,) = message.iter_parts()
    assert part.get_param("name", header="content-disposition") == "file" and part.get_filename() == "a.png"
    assert part.get_content_type() == "image/png" and picture in body


def test_a_raw_body_is_the_picture() -> None:
    _, headers, body = split(wire.request("host", "/", b"\xff\xd8", "a.jpg", "raw"))
    assert body == b"\xff\xd8" and headers["Content-Type"] == "image/jpeg" and headers["Content-Length"] == "2"
    with pytest.raises(ValueError, match="form or raw"):
        wire.request("host", "/", b"", "a.jpg", "json")


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no "):
        wire.pictures(tmp_path)
    (tmp_path / "b").mkdir()
    for name in ("b/1.jpg", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert wire.pictures(tmp_path) == [("a.png", b"a.png"), ("1.jpg", b"b/1.jpg")]
