"""A client's connection: uvicorn's, with what it has no bounds for.

- headers must be there within a time, and have a size at most (uvicorn waits for ever, and httptools keeps any amount)
- a body in a great many tiny pieces is refused: each costs as much as a large one; and so is one with more around it
  (the sizes of chunks, what follows the last) than it holds
- requests that are sent before the one before is answered are a few at most
- a client that doesn't take its answer is cut off
- above the number of connections that are open at once the one that has waited longest between two requests, or for
  its headers, is closed, and where there is none the one whose body has been on its way longest; a probe therefore
  always gets in
- what is no HTTP is answered in JSON, as everything else
- an answer that was given before the request was read whole is let through to the client, before the connection ends
"""

from __future__ import annotations

import asyncio
import collections
import secrets
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tenfold.serving.metrics import Metrics
from tenfold.serving.refusal import Refusal
from tenfold.serving.settings import Settings

MAX_HEADERS = 100
PIECES, PIECE = 1000, 64  # a body may come in so many pieces, and beyond it in pieces of that mean size
AHEAD = 64  # requests that a client may send before the first of them is answered
RESERVE = 64  # connections above the most, for probes
LINGER = 2.0  # seconds, and
LINGER_BYTES = 4 * 2**20  # bytes that are read and thrown away behind an early answer


class Limits:
    """What the connections of a server share."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        # Those with no request under way, the one that has been so longest first.
        self.idle: collections.OrderedDict[Connection, None] = collections.OrderedDict()
        # Those whose request is not there whole, in the order of their headers.
        self.receiving: collections.OrderedDict[Connection, None] = collections.OrderedDict()
        self.open: set[Connection] = set()
        metrics.connections.set_function(lambda: len(self.open))

    def crowded(self, new: Connection) -> None:
        """Makes room for a connection that was just opened. Where all others wait for an answer it is let in all the
        same, a few times, for it may be a probe's."""
        over = len(self.open) - self.settings.max_connections
        if over <= 0:
            return
        oldest = next(iter(self.idle), new)  # it is idle itself, as the last
        if oldest is new:
            oldest = next(iter(self.receiving), new)
        if oldest is not new or over > RESERVE:
            self.metrics.refusals.labels("too_many_connections").inc()
            self.forget(oldest)
            oldest.transport.abort()

    def forget(self, connection: Connection) -> None:
        """It is to be closed, or owes no more than an answer."""
        self.idle.pop(connection, None)
        self.receiving.pop(connection, None)


class Connection(HttpToolsProtocol):
    """Made by uvicorn for each connection; a server's own class of it (see :func:`protocol`) knows its limits."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._whole = True  # no request is being read: what comes is the next one's headers
        self._heading = False  # a request's headers have begun
        self._head_bytes = 0  # that have come of headers which are not complete
        self._head_size = 0  # of the address and the headers that are
        self._pieces = self._piece_bytes = self._body_bytes = 0
        self._ended = False  # nothing is answered any more; what still comes is thrown away
        self._left = LINGER_BYTES

    @property
    def _busy(self) -> bool:
        """Whether an answer is owed."""
        return self.cycle is not None and not self.cycle.response_complete

    # ---- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.limits.open.add(self)
        self._rest(self.limits.settings.header_timeout)
        self.limits.crowded(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.open.discard(self)
        self.limits.forget(self)
        self._stop()
        if self._slow is not None:
            self._slow.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._slow is None:
            self._slow = self.loop.call_later(self.limits.settings.receive_timeout, self._cut, "too_slow")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def data_received(self, data: bytes) -> None:
        if self._ended:
            self._left -= len(data)
            if self._left < 0:
                self.transport.abort()
            return
        if self._whole or self._heading:
            if not self._head_bytes and not self._busy:  # the first bytes of a request after another
                self._rest(self.limits.settings.header_timeout)
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
        super().data_received(data)
        if self._ended:
            return
        if (self._whole or self._heading) and self._head_bytes > self.limits.settings.max_header:
            self._large_head()
        elif self._body_bytes > 2 * self._piece_bytes + self.limits.settings.max_header:
            self._refuse(400, "too_many_pieces", "There is more around the body's chunks than in them.")

    def eof_received(self) -> None:
        if self._ended:
            self.transport.close()

    # ---- the request -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._whole, self._heading = False, True
        self._pieces = self._piece_bytes = self._head_size = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if len(self.headers) <= MAX_HEADERS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._heading, self._head_bytes, self._body_bytes = False, 0, 0
        self._stop()
        self.limits.forget(self)
        if self._ended:
            return
        self.limits.receiving[self] = None
        if len(self.pipeline) >= AHEAD:
            self.limits.metrics.refusals.labels("too_many_requests").inc()
            self._end()
            return
        if self._head_size > self.limits.settings.max_header:
            self._large_head()
            return
        if len(self.headers) > MAX_HEADERS:
            self._refuse(431, "too_many_headers", f"A request has more than {MAX_HEADERS} headers.")
            return
        super().on_headers_complete()
        self.cycle.transport = _Gentle(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        if self._ended:
            return
        self._pieces += 1
        self._piece_bytes += len(body)
        if self._pieces > PIECES and self._piece_bytes < PIECE * self._pieces:
            self._refuse(400, "too_many_pieces", "The body comes in too many tiny pieces. Send larger chunks.")
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._whole, self._head_bytes, self._body_bytes = True, 0, 0
        self.limits.receiving.pop(self, None)
        if self._ended:
            return
        super().on_message_complete()
        if not self._busy:  # it was answered before it was whole
            self._rest(self.limits.settings.idle_timeout)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self._ended or self._busy:
            return
        if self._whole:
            seconds = self.limits.settings.header_timeout if self._head_bytes else self.limits.settings.idle_timeout
            self._rest(seconds)
        else:
            self._stop()
            self._timer = self.loop.call_later(self.limits.settings.receive_timeout, self._cut, "too_slow")

    # ---- refusing ----------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "bad_http", "This is not HTTP that can be understood.")

    def _large_head(self) -> None:
        self._refuse(431, "too_many_headers", f"Headers are larger than {self.limits.settings.max_header:,} bytes.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """An answer by the connection itself, in the place of what the request would have got; then it ends."""
        if self._ended or self.transport.is_closing():
            return
        self.limits.metrics.refusals.labels(code).inc()
        under_way = self.cycle if self._busy else None
        if under_way is not None:
            if (under_way.response_started and under_way.more_body) or self.pipeline:
                self._end()
                return
            if not under_way.more_body:  # it is whole, and is answered; what is refused came behind it
                under_way.keep_alive = False
                self._ended = True
                return
            under_way.disconnected = True  # whoever works on it is told that nobody waits
            under_way.message_event.set()
        self.limits.metrics.requests.labels("connection", str(status), "").inc()
        request_id = secrets.token_hex(8)
        body = Refusal(status, code, message).body(request_id)
        phrase = {400: "Bad Request", 431: "Request Header Fields Too Large"}[status]
        head = (
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.linger()

    def linger(self) -> None:
        """Ends the connection when the client has had time to take its answer: closed at once, with bytes unread, the
        system would tell it of a reset instead."""
        self._ended = True
        self.limits.forget(self)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._stop()
        self._timer = self.loop.call_later(LINGER, self.transport.abort)

    def finish(self) -> None:
        """The connection's end after an answer."""
        if self._whole:
            self.transport.close()
        else:
            self.linger()

    def _end(self) -> None:
        """Without an answer, where none can be told from those that are owed."""
        self._ended = True
        self.limits.forget(self)
        self.transport.abort()

    def _rest(self, seconds: float) -> None:
        """No request is under way: until headers are there, so long. Then the connection is closed."""
        self._stop()
        self.limits.idle[self] = None
        self.limits.idle.move_to_end(self)
        self._timer = self.loop.call_later(seconds, self._cut, "")

    def _cut(self, code: str) -> None:
        if code or self._heading:
            self.limits.metrics.refusals.labels("too_slow").inc()
        self.transport.abort()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Gentle:
    """A connection's transport as an answer sees it: closed the way that fits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.write, self.is_closing = connection.transport.write, connection.transport.is_closing

    def close(self) -> None:
        self._connection.finish()


def protocol(limits: Limits) -> type[Connection]:
    """The class of connections for one server."""
    return type("Connection", (Connection,), {"limits": limits})
