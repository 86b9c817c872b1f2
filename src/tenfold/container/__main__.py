"""``python -m tenfold.container``: the entry point of the images."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from tenfold import container
from tenfold.errors import TenfoldError


def main() -> NoReturn:
    if os.getpid() == 1:
        # The kernel keeps signals from a first process that has no handler for them. The verbs that have something
        # to bring to an end set their own.
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    words = sys.argv[1:] or ["serve"]
    try:
        if words == ["train"]:
            from tenfold.container import training

            sys.exit(training.train(container.layout()))
        if words == ["health"]:
            from tenfold.container import health

            sys.exit(0 if health.ready(container.port()) else 1)
        if words[0] == "serve":
            from tenfold.container import serving

            words = ["serve", *serving.arguments(words[1:], container.layout())]
    except TenfoldError as error:
        from tenfold.cli import render

        sys.exit(render.fail(error))
    _tenfold(words)


def _tenfold(words: list[str]) -> NoReturn:
    """The command line, in this same process: signals meant for the container arrive."""
    from tenfold.__main__ import main as command_line

    sys.argv = ["tenfold", *words]
    command_line()
    raise AssertionError("the command line leaves the process")


if __name__ == "__main__":
    main()
