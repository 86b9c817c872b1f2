"""The errors that tenfold raises on purpose, and what each means to a shell and to an HTTP client.

    TenfoldError                  exit  HTTP
    ├── CallError                   2    400   the call was wrong; nothing was started
    │   ├── UnknownNameError        2    404   no such verb, recipe, field, dataset …; with the nearest known one
    │   ├── RecipeError             2    400   a recipe that can't be read or whose values don't fit
    │   ├── UnsupportedError        2    400   this engine or device can't do it; says which can
    │   ├── MissingExtraError       2    501   an optional package isn't installed; names the install command
    │   └── RunExistsError          2    409   the run folder asked for already holds a run
    ├── DataError                   1    422   the data can't be used as it is
    │   ├── ImageError              1    422   one picture that can't be decoded
    │   └── DownloadError           1    502   an archive or weights could not be had, or are not those expected
    ├── BundleError                 1    500   a bundle that is damaged, or not one
    ├── RunError                    1    409   a run folder that can't be used: locked, or nothing to resume
    ├── TrainingError               1    500   training could not go on: NaN, memory, disk
    ├── DeviceError                 1    500   another device computed than the one asked for
    └── StoppedError              130    503   Ctrl-C or SIGTERM; the last checkpoint is kept

An error that is not one of these is a bug of tenfold's and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TenfoldError(Exception):
    """What happened, where, and (in ``hint``) what to do next.

    ``exit_code`` is the process's exit status and ``http_status`` a server's answer when this error ends the work.
    """

    exit_code = 1
    http_status = 500
    told = False  # whether another process of the same training says it

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class CallError(TenfoldError):
    exit_code = 2
    http_status = 400


class UnknownNameError(CallError):
    """A name that is not known, with the nearest known ones in the hint.

    >>> UnknownNameError("recipe", "quik", ["quick", "sprint"]).hint
    'Did you mean quick? Known: quick, sprint.'
    """

    http_status = 404

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", limit: int = 12) -> None:
        known = list(known)
        near = nearest(name, known)
        parts = [f"Did you mean {near}?"] if near else []
        if known and (len(known) <= limit or not near):
            shown = ", ".join(known[:limit]) + (", …" if len(known) > limit else "")
            parts.append(f"Known: {shown}.")
        super().__init__(f"No {kind} is called {name!r}{where}.", " ".join(parts) or None)
        self.name = name
        self.nearest = near


class RecipeError(CallError):
    pass


class UnsupportedError(CallError):
    pass


class MissingExtraError(CallError):
    """An optional package is missing. ``extra`` is the name in ``pip install 'tenfold[extra]'``."""

    http_status = 501

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            f"Install it with: pip install 'tenfold[{extra}]'",
        )
        self.package = package
        self.extra = extra


class RunExistsError(CallError):
    http_status = 409


class DataError(TenfoldError):
    http_status = 422


class ImageError(DataError):
    """One picture that can't be decoded. ``reason`` is the message without the path, for a list of what was skipped."""

    def __init__(self, reason: str, hint: str | None = None, *, path: object = None) -> None:
        super().__init__(reason if path is None else f"{path}: {reason}", hint)
        self.reason = reason


class DownloadError(DataError):
    http_status = 502


class BundleError(TenfoldError):
    pass


class RunError(TenfoldError):
    http_status = 409


class TrainingError(TenfoldError):
    pass


class DeviceError(TenfoldError):
    pass


class StoppedError(TenfoldError):
    exit_code = 130
    http_status = 503


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, compared without case, or None where none is close."""
    folded = {k.casefold(): k for k in known}
    match = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[match[0]] if match else None
