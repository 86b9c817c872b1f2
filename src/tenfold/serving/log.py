"""A server's log: a line a request and a line an event, as text or as JSON, on standard error.

Lines are gathered and written by a thread a few times a second, so that a reader that stalls never stalls the server;
where it stalls for long, lines are dropped and counted.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from typing import Any

KEPT = 10_000  # lines that wait for a reader at most
EVERY = 0.2  # seconds

FORMS = ("text", "json", "none")


class Log:
    """``form`` is one of FORMS; ``none`` leaves requests out and keeps events, as text."""

    def __init__(self, form: str) -> None:
        self.form = form
        self._lines: list[str] = []
        self._dropped = 0
        self._writing = self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def event(self, message: str, **more: Any) -> None:
        """Something that happened to the server."""
        if self.form == "json":
            self._put(json.dumps({"time": _now(), "event": message, **more}, ensure_ascii=False))
        else:
            told = "".join(f"  {key} {value}" for key, value in more.items())
            self._put(f"{_now()}  {_plain(message)}{told}")

    def request(self, record: dict[str, Any]) -> None:
        """An answered request. ``record`` has at least method, path, status, ms, request_id."""
        if self.form == "json":
            self._put(json.dumps({"time": _now(), **record}, ensure_ascii=False))
        elif self.form == "text":
            told = f"{_now()}  {record['status']}  {record['method']} {_plain(record['path'])}  {record['ms']:.1f} ms"
            rest = [str(record[key]) for key in ("model", "code") if record.get(key)]
            self._put("  ".join([told, *rest, record["request_id"]]))

    def _put(self, line: str) -> None:
        if len(self._lines) >= KEPT:
            self._dropped += 1
            return
        self._lines.append(line)
        if self._closed:
            _write(self._taken())
        elif self._timer is None and not self._writing:
            try:
                self._timer = asyncio.get_running_loop().call_later(EVERY, self._start)
            except RuntimeError:  # before the loop runs: with the first line that comes in it
                return

    def _start(self) -> None:
        self._timer, self._writing = None, True
        text = self._taken()
        done = asyncio.get_running_loop().run_in_executor(None, _write, text)
        done.add_done_callback(self._written)

    def _written(self, done: Any) -> None:
        self._writing = False
        if self._lines and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._start)

    def _taken(self) -> str:
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append(f"{_now()}  {self._dropped:,} lines were dropped: nobody read them" if self.form != "json" else
                         json.dumps({"time": _now(), "event": "lines dropped", "lines": self._dropped}))  # fmt: skip
            self._dropped = 0
        return "".join(f"{line}\n" for line in lines)

    def close(self) -> None:
        """Writes what is left; lines that come later are written as they come."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _write(self._taken())


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # whoever read it has gone
        return


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(text: str) -> str:
    """On one line, and without what would steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
