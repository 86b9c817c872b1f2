"""``tenfold`` and ``python -m tenfold``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line with the process's arguments and leave with its exit code."""
    try:
        from tenfold.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # so early that the command line is not there yet to say it
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
