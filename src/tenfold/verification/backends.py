"""Which engines and runtimes there are, and which of them are asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tenfold.engines.base import ENGINES
from tenfold.errors import MissingExtraError, UnknownNameError
from tenfold.runtimes.base import RUNTIMES

Kind = Literal["engine", "runtime"]
REFERENCE = "onnxruntime"  # the runtime whose answers to a split are the reference


@dataclass(frozen=True)
class Backend:
    """An engine or a runtime. ``extra`` brings the ``packages`` it imports; None where tenfold itself does."""

    kind: Kind
    name: str
    packages: tuple[str, ...]
    extra: str | None

    def missing(self) -> str | None:
        """The first of its packages that is not installed."""
        return next((p for p in self.packages if importlib.util.find_spec(p) is None), None)

    @property
    def command(self) -> str:
        return f"pip install 'tenfold[{self.extra}]'" if self.extra else "pip install --upgrade tenfold"


def choose(engines: Iterable[str] | None, runtimes: Iterable[str] | None) -> list[Backend]:
    """The engines and runtimes of these names, or with None all of that kind, installed or not.

    Raises UnknownNameError for a name that isn't known, MissingExtraError for a named one that isn't installed.
    """
    known = [Backend("engine", name, entry.packages, entry.extra) for name, entry in ENGINES.items()]
    return [*_named(known, "engine", engines), *_named(_runtimes(), "runtime", runtimes)]


def reference() -> Backend:
    return next(b for b in _runtimes() if b.name == REFERENCE)


def _runtimes() -> list[Backend]:
    return [Backend("runtime", name, (package,), extra) for name, (package, extra) in RUNTIMES.items()]


def _named(known: list[Backend], kind: Kind, names: Iterable[str] | None) -> list[Backend]:
    if names is None:
        return known
    by_name = {backend.name: backend for backend in known}
    chosen = []
    for name in dict.fromkeys(names):
        if name not in by_name:
            raise UnknownNameError(kind, name, by_name)
        backend = by_name[name]
        if (package := backend.missing()) is not None:
            raise MissingExtraError(package, backend.extra or "", f"Verifying in the {kind} {name}")
        chosen.append(backend)
    return chosen
