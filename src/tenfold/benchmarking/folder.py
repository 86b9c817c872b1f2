"""A benchmark's folder: bench.json, kept whole after every measurement, and what of it is not measured again."""

from __future__ import annotations

import datetime
import importlib.util
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tenfold import hardware, paths
from tenfold.benchmarking import records
from tenfold.benchmarking.records import Benchmark, Configuration, Subject, Trial
from tenfold.errors import CallError, RunError, RunExistsError, StoppedError

FILE = "bench.json"


class Home(ABC):
    """What bench.json holds: ``subjects``, ``trials`` and ``notes``.

    ``settings`` are those of the call; figures of the same ``measured`` in them, on the same processor, are alike.
    """

    kind: Literal["inference", "training"]

    def __init__(self, path: Path, command: str, settings: Mapping[str, Any], subjects: Sequence[Subject]) -> None:
        self.path, self.command, self.settings = path, command, dict(settings)
        self.subjects = list(subjects)
        self.notes: list[str] = []
        self.trials: list[Trial] = []
        self.created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    @abstractmethod
    def alike(self, stored: Benchmark) -> dict[str, bool]:
        """What the figures of ``stored`` depend on besides settings and machine, and whether it is the same here."""

    @abstractmethod
    def told(self, done: Sequence[Trial]) -> list[str]:
        """What must be said of the trials that are done."""

    def taken(self, stored: Benchmark) -> None:  # noqa: B027 (there may be nothing more)
        """Takes over more than trials from an earlier call."""

    def load(self) -> None:
        """Takes over what an earlier call measured here; what was refused or failed is tried again.

        Raises RunError for a file that is no benchmark, RunExistsError for one whose figures would not be alike.
        """
        file = self.path / FILE
        if not file.exists():
            return
        try:
            stored = records.read(file)
        except CallError as error:
            raise RunError(str(error), "Name another folder with --out.") from None
        here = hardware.describe()
        alike = {
            "kind of benchmark": stored.kind == self.kind,
            **self.alike(stored),
            "settings": stored.settings.get("measured") == self.settings["measured"],
            "machine": [stored.hardware.get(k) for k in ("cpu", "cores")] == [here[k] for k in ("cpu", "cores")],
        }
        if other := next((what for what, same in alike.items() if not same), None):
            raise RunExistsError(
                f"{self.path} holds a benchmark with another {other}; its figures and these would not be alike.",
                "Name another folder with --out.",
            )
        self.trials = [t for t in stored.trials if t.status == "done"]
        self.created = stored.created
        self.taken(stored)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """The block adds to what an earlier call measured. Ctrl-C in it keeps all that is done, and is a StoppedError
        with the command that goes on."""
        self.load()
        try:
            yield
        except KeyboardInterrupt:
            self.write("interrupted")
            raise StoppedError(
                f"Stopped; {self._measured()} kept.",
                f"Go on with: {self.command} --out {shlex.quote(str(self.path))}",
            ) from None

    def finished(self) -> Benchmark:
        """The result, kept and drawn."""
        result = self.write("finished")
        _draw(result)
        return result

    def find(self, configuration: Configuration, number: int) -> Trial | None:
        """What an earlier call measured in round ``number``."""
        return next((t for t in self.trials if t.configuration == configuration and t.round == number), None)

    def _measured(self) -> str:
        done = sum(t.status == "done" for t in self.trials)
        return f"{done} measurement{'' if done == 1 else 's'}"

    def write(self, status: Literal["finished", "interrupted", "running"]) -> Benchmark:
        result = Benchmark.of(
            self.kind,
            self.subjects,
            self.trials,
            command=self.command,
            settings=self.settings,
            notes=list(dict.fromkeys(self.told([t for t in self.trials if t.status == "done"]))),
            created=self.created,
            status=status,
            path=self.path,
        )
        try:
            paths.write_whole(self.path / FILE, result.to_json())
        except OSError as error:
            raise RunError(f"{self.path / FILE} can't be written: {error.strerror}.") from None
        return result


def _draw(result: Benchmark) -> None:
    """bench.svg and bench.png, where there is something to draw and matplotlib to draw it."""
    if not any(row.n for row in result.rows) or importlib.util.find_spec("matplotlib") is None:
        return
    from tenfold.benchmarking import plot

    assert result.path is not None
    for kind, content in plot.draw(result).items():
        paths.write_whole(result.path / f"bench.{kind}", content)
