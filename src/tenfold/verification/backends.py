"""Which engines and runtimes there are, and which of them are asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tenfold.engines.base import ENGINES
from tenfold.errors import MissingExtraError, UnknownNameError
from tenfold.runtimes.base import RUNTIMES

Kind = Literal["engine", "runtime"]
REFERENCE = "onnxruntime"  # the runtime whose answers to a split are the reference


@dataclass(frozen=True)
class Backend:
    """An engine or a runtime. ``extra`` brings its ``package``; None where tenfold itself does."""

    kind: Kind
    name: str
    package: str
    extra: str | None

    @property
    def installed(self) -> bool:
        try:
            return importlib.util.find_spec(self.package) is not None
        except (ImportError, ValueError):  # the parent of a dotted name is missing
            return False

    @property
    def command(self) -> str:
        return f"pip install 'tenfold[{self.extra}]'" if self.extra else "pip install --upgrade tenfold"


def choose(engines: Iterable[str] | None, runtimes: Iterable[str] | None) -> list[Backend]:
    """The engines and runtimes of these names, or with None all of that kind, installed or not.

    Raises UnknownNameError for a name that isn't known, MissingExtraError for a named one that isn't installed.
    """
    return [*_of_kind("engine", ENGINES, engines), *_of_kind("runtime", RUNTIMES, runtimes)]


def _of_kind(kind: Kind, known: Mapping[str, tuple[str, str | None]], names: Iterable[str] | None) -> list[Backend]:
    found = {name: Backend(kind, name, *known[name]) for name in known}
    if names is None:
        return list(found.values())
    chosen = []
    for name in dict.fromkeys(names):
        if name not in found:
            raise UnknownNameError(kind, name, found)
        backend = found[name]
        if not backend.installed:
            raise MissingExtraError(backend.package, backend.extra or "", f"Verifying in the {kind} {name}")
        chosen.append(backend)
    return chosen


def reference() -> Backend:
    return Backend("runtime", REFERENCE, *RUNTIMES[REFERENCE])
