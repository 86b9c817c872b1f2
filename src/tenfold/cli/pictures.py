"""The pictures that a command line names: files, folders, patterns, standard input."""

# os.path and not pathlib: it answers False where pathlib raises (a name that is too long), and joins a million
# paths several times as fast.
# ruff: noqa: PTH112, PTH113, PTH118, PTH122, PTH207

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator

from tenfold.data.dataset import Skipped
from tenfold.data.decode import MAX_BYTES
from tenfold.data.formats import SUFFIXES
from tenfold.errors import CallError

STANDARD_INPUT = "-"


def find(sources: Iterable[str]) -> tuple[list[str], list[Skipped]]:
    """The pictures' paths, and the sources that gave none with the reason.

    A file counts whatever its name. A folder gives every file in it and below whose suffix is a picture's, sorted by
    path; names that begin with a dot are passed over, and links to folders are not followed. A pattern (``*``, ``?``,
    ``[…]``, ``**`` for folders at any depth) gives the files it matches whose suffix is a picture's, sorted, unless
    a file has just that name. ``-`` is one picture on standard input.

    Raises CallError where no picture is found at all, or ``-`` is given twice or is a terminal.
    """
    found: list[str] = []
    missing: list[Skipped] = []
    for source in sources:
        if source == STANDARD_INPUT:
            _check_standard_input(found)
            found.append(source)
            continue
        paths, reason = _expand(source)
        found += paths
        if reason:
            missing.append(Skipped(source, reason))
    if not found and missing:
        said = "; ".join(f"{m.path}: {m.reason}" for m in missing[:3])
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CallError(f"No picture was found. {said}{more}", f"Suffixes of pictures: {' '.join(sorted(SUFFIXES))}")
    return found, missing


def read(found: Iterable[str]) -> Iterator[str | bytes]:
    """Each picture as the model takes it: a path, or the bytes of standard input (one more than allowed at most)."""
    for path in found:
        yield sys.stdin.buffer.read(MAX_BYTES + 1) if path == STANDARD_INPUT else path


def _check_standard_input(found: list[str]) -> None:
    if STANDARD_INPUT in found:
        raise CallError("- can be given once: standard input holds one picture.")
    if sys.stdin is None or sys.stdin.isatty():
        raise CallError(
            "- reads a picture from standard input, which is a terminal.",
            "Pipe a picture into it: tenfold predict RUN - < photo.jpg",
        )


def _expand(source: str) -> tuple[list[str], str | None]:
    """(paths, why there are none)."""
    if os.path.isdir(source):
        paths = sorted(_below(source))
        return paths, None if paths else "the folder holds no pictures."
    if os.path.lexists(source):
        return [source], None
    if any(sign in source for sign in "*?["):
        import glob

        matched = sorted(p for p in glob.glob(source, recursive=True) if _is_picture(p) and os.path.isfile(p))
        return matched, None if matched else "no picture matches."
    return [], "there is no such file."


def _below(folder: str) -> Iterator[str]:
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(base, name) for name in files if not name.startswith(".") and _is_picture(name))


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
