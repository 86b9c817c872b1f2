"""``tenfold`` and ``python -m tenfold``."""

from __future__ import annotations

import contextlib
import gc
import os
import sys


def main() -> None:
    """Run the command line with the process's arguments and leave with its exit code."""
    quick = sys.argv[1:2] == ["predict"]
    if quick:
        gc.disable()  # until the model is loaded: what is imported stays, and looking through it for garbage is slow
    try:
        from tenfold.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # so early that the command line is not there yet to say it
        code = 130
    if sys.argv[1:2] in (["predict"], ["train"], ["evaluate"]):
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """End the process without taking Python, NumPy and the framework apart first: for a picture that would be a sixth
    of all the time, after a training half a second. Nothing is lost: these verbs' files are closed, and their threads
    and processes have ended."""
    ending = sys.modules.get("multiprocessing.util")
    if ending is not None:  # tinygrad keeps processes that compile
        ending._exit_function()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
