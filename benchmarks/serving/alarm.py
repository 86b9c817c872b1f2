"""Wakes an event loop at a time, to some ten microseconds where the kernel can (Linux's timerfd).

An event loop's own timers count whole milliseconds: as long as an answer takes that is to be measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable

_MONOTONIC, _NONBLOCK = 1, os.O_NONBLOCK


class _Spec(ctypes.Structure):
    """struct itimerspec: interval and first expiry, each as seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


class Alarm:
    """``set(when)`` calls ``ring`` at a time of ``time.perf_counter``; a new time takes the place of the last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":  # where perf_counter is CLOCK_MONOTONIC too
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK)
            if self._fd >= 0:
                loop.add_reader(self._fd, self._expired)

    def set(self, when: float) -> None:
        if self._fd < 0:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_later(max(0.0, when - time.perf_counter()), self._ring)
            return
        wait = max(1e-6, when - time.perf_counter())  # zero would disarm it
        spec = _Spec(0, 0, int(wait), int(wait % 1 * 1e9))
        self._libc.timerfd_settime(self._fd, 0, ctypes.byref(spec), None)

    def _expired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
        self._ring()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
