"""Several machines' benchmarks side by side: read, found to be of the same work, and lined up."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.benchmarking import records
from tenfold.benchmarking.records import FIRST, LATENCY, Benchmark, Row
from tenfold.errors import CallError

MOST = 26


@dataclass(frozen=True)
class Line:
    """A configuration and batch size with its row on each machine, None where that has not measured it."""

    subject: str
    configuration: str
    batch_size: int
    rows: tuple[Row | None, ...]


@dataclass(frozen=True)
class Sides:
    """What ``tenfold bench compare`` has read. ``names``: what each machine is called, A, B, C; ``files``: what it was
    read from; ``notes``: what makes the figures less alike than they look."""

    names: tuple[str, ...]
    files: tuple[str, ...]
    benchmarks: tuple[Benchmark, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def kind(self) -> records.Kind:
        return self.benchmarks[0].kind

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the machines, and for each configuration and batch size the figures by machine."""
        first = FIRST[self.kind]
        shown = ("images_per_second", "decoded_images_per_second", *LATENCY[self.kind], first, "memory_bytes")
        return {
            "kind": self.kind,
            "machines": {
                name: {
                    "file": file,
                    "machine": made.machine,
                    "hardware": dict(made.hardware),
                    "versions": dict(made.versions),
                    "created": made.created,
                    "command": made.command,
                    "subjects": [s.name for s in made.subjects],
                    "notes": list(made.notes),
                }
                for name, file, made in zip(self.names, self.files, self.benchmarks, strict=True)
            },
            "lines": [
                {
                    "subject": line.subject,
                    "configuration": line.configuration,
                    "batch_size": line.batch_size,
                    "medians": {
                        name: {figure: row.median(figure) for figure in shown if figure in row.figures}
                        for name, row in zip(self.names, line.rows, strict=True)
                        if row is not None
                    },
                }
                for line in self.lines
            ],
            "notes": list(self.notes),
        }


def compare(files: Sequence[Path | str], *, any_model: bool = False) -> Sides:
    """The benchmarks in ``files``: a bench.json each, or the folder that holds one.

    ``any_model``: take benchmarks of different models too. Raises CallError for fewer than two files, for what is no
    benchmark, for inference beside training, and for different models where they are not taken.
    """
    if len(files) < 2:
        raise CallError("One benchmark has nothing beside it.", "Name two or more: tenfold bench compare A B.")
    if len(files) > MOST:
        raise CallError(f"{len(files)} benchmarks are more than {MOST}.")
    made = [records.read(file) for file in files]
    names = string.ascii_uppercase[: len(made)]
    kinds = {one.kind for one in made}
    if len(kinds) > 1:
        who = "; ".join(f"{file} is of {one.kind}" for file, one in zip(files, made, strict=True))
        raise CallError(f"Inference and training have no figure in common: {who}.")
    for file, one in zip(files, made, strict=True):
        if not any(row.n for row in one.rows):
            raise CallError(f"{file} has no figures: nothing could be measured there.")
    notes = _subjects(files, made, any_model)
    notes += [f"{name}: {note}" for name, one in zip(names, made, strict=True) for note in one.notes]
    notes += _settings(names, made)
    return Sides(tuple(names), tuple(map(str, files)), tuple(made), _lines(made), tuple(dict.fromkeys(notes)))


def _subjects(files: Sequence[Path | str], made: Sequence[Benchmark], any_model: bool) -> list[str]:
    """Refuses, or notes, what was not measured on all machines alike."""
    first = made[0]
    for file, one in zip(files[1:], made[1:], strict=True):
        other = [s for s in one.subjects if not any(s.same_as(known) for known in first.subjects)]
        lacking = [s for s in first.subjects if not any(s.same_as(known) for known in one.subjects)]
        if not other and not lacking:
            continue
        told = f"{files[0]} is of {_names(first)}, {file} of {_names(one)}"
        if not any_model:
            raise CallError(f"They are of different models: {told}.", "To compare them all the same: --any-model.")
        return [f"They are of different models: {told}."]
    return []


def _names(made: Benchmark) -> str:
    shown = []
    for s in made.subjects:
        what = [s.architecture, f"{s.parameters:,} parameters" if s.parameters else "", (s.digest or "")[:8]]
        shown.append(f"{s.name} ({', '.join(filter(None, what))})")
    return " and ".join(shown)


def _settings(names: Sequence[str], made: Sequence[Benchmark]) -> list[str]:
    found = []
    versions = {one.versions.get("tenfold") for one in made}
    if len(versions) > 1:
        found.append(
            "tenfold differs: "
            + ", ".join(f"{n} {o.versions.get('tenfold')}" for n, o in zip(names, made, strict=True))
            + "."
        )
    rounds = {n: max((r.n for r in o.rows), default=0) for n, o in zip(names, made, strict=True)}
    if len(set(rounds.values())) > 1:
        found.append("Processes of each configuration: " + ", ".join(f"{k} {v}" for k, v in rounds.items()) + ".")
    return found


def _lines(made: Sequence[Benchmark]) -> tuple[Line, ...]:
    """The configurations in the order of the first machine, then what only others have; of subjects by their place in
    the first, because a run may have another name elsewhere."""
    first = made[0].subjects
    found: dict[tuple[str, str, int], list[Row | None]] = {}
    for at, one in enumerate(made):
        called = {s.name: next((f.name for f in first if f.same_as(s)), s.name) for s in one.subjects}
        for row in one.rows:
            if row.n and row.batch_size:
                subject = called.get(row.configuration.subject, row.configuration.subject)
                key = (subject, str(row.configuration), row.batch_size)
                found.setdefault(key, [None] * len(made))[at] = row
    order = {configuration: i for i, configuration in enumerate(dict.fromkeys((s, c) for s, c, _ in found))}
    keys = sorted(found, key=lambda key: (order[key[0], key[1]], key[2]))
    return tuple(Line(*key, tuple(found[key])) for key in keys)
