"""A worker: a process that holds the models, and answers what the front sends until the front is gone.

    python -m tenfold.serving.worker DESCRIPTOR

It takes one frame at a time, each with one or several jobs, on one thread. A crash of a decoder, memory that runs out
or a kill ends this process alone; the front starts another and asks again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback

# Before NumPy is first imported; see cli/predict.py.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tenfold.errors import TenfoldError
from tenfold.serving import wire


def main() -> None:
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
    ):  # a terminal's and a supervisor's go to every process; the front decides
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _serve(channel)
    sys.stderr.flush()
    os._exit(0)


def _serve(channel: socket.socket) -> None:
    first = wire.receive(channel)
    if first is None:
        return
    try:
        from tenfold.serving.handler import Handler

        handler = Handler.start(first[0])
    except TenfoldError as error:
        wire.send(channel, {"failed": error.message, "hint": error.hint, "exit_code": error.exit_code})
        return
    except Exception as error:
        traceback.print_exc()
        wire.send(channel, {"failed": f"A worker could not start: {error!r}.", "hint": None, "exit_code": 1})
        return
    wire.send(channel, {"ready": handler.cards})
    while (frame := wire.receive(channel)) is not None:
        heads, parts = handler.answer(*frame)
        wire.send(channel, {"id": frame[0]["id"], "jobs": heads}, parts)
        del frame, parts  # a picture's bytes are not kept until the next comes


if __name__ == "__main__":
    main()
