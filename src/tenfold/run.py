"""The run folder: what a training leaves while it works, and how it is taken up again.

    runs/cifar10-quick-1/
      run.json          what was asked, on what; its status and, at the end, its result
      recipe.yaml       the resolved recipe
      metrics.jsonl     a line an epoch (and a few in between)
      checkpoint/       the last state: last.safetensors
      model/            the bundle
      evaluation.json  report.html  plots/

One process at a time: ``.lock`` is held by an operating-system lock that goes with the process, however it ends.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tenfold import paths
from tenfold.engines.base import State
from tenfold.errors import RunError, RunExistsError, UnknownNameError
from tenfold.recipe import Recipe, read

RUN = "run.json"
RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint/last.safetensors"
BUNDLE = "model"


class Run:
    """An open, locked run folder. Use :func:`create` or :func:`reopen`, and :meth:`close` it."""

    def __init__(self, path: Path, record: dict[str, Any], recipe: Recipe, lock: IO[str]) -> None:
        self.path, self.record, self.recipe = path, record, recipe
        self._lock = lock

    @property
    def bundle(self) -> Path:
        return self.path / BUNDLE

    def update(self, **values: Any) -> None:
        """Changes fields of run.json, whole."""
        self.record.update(values)
        paths.write_whole(self.path / RUN, json.dumps(self.record, indent=2, ensure_ascii=False) + "\n")

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, in order; a line cut by a kill is left out."""
        path = self.path / METRICS
        rows = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
        return rows

    def trim_metrics(self, step: int) -> None:
        """Drops metrics' lines past ``step``: what a resumed run will write again. A line cut by a kill goes too."""
        path = self.path / METRICS
        if path.exists():
            kept = [row for row in self.metrics() if row["step"] <= step]
            paths.write_whole(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept))

    def save(self, state: State) -> None:
        """Writes a checkpoint whole; the one before is kept until the new one stands."""
        from safetensors.numpy import save

        target = self.path / CHECKPOINT
        # asarray, for ascontiguousarray would make an array of one number of Adam's step count
        arrays = {name: np.asarray(array, order="C") for name, array in state.arrays.items()}
        try:
            target.parent.mkdir(exist_ok=True)
            paths.write_whole(target, save(arrays, {"tenfold": json.dumps(state.meta)}))
        except OSError as error:
            raise RunError(
                f"The checkpoint {target} can't be written: {error.strerror}.",
                f"The one before it is kept. Make room, then: tenfold train --resume {self.path}",
            ) from None

    def last(self) -> State | None:
        """The last checkpoint, None where there is none yet. RunError where it is damaged."""
        from safetensors import SafetensorError, safe_open

        target = self.path / CHECKPOINT
        if not target.exists():
            return None
        try:
            with safe_open(target, framework="np") as file:
                meta = json.loads((file.metadata() or {})["tenfold"])
                return State({name: file.get_tensor(name) for name in file.keys()}, meta)  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise RunError(
                f"The checkpoint {target} is damaged ({error}).",
                "Start the run anew; delete the file to resume from the beginning.",
            ) from None

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def create(out: Path | None, dataset_name: str, recipe: Recipe, record: dict[str, Any]) -> Run:
    """A new run folder: ``out``, or the next free ``<runs>/<data>-<recipe>-<n>``.

    Raises RunExistsError where ``out`` holds a run or any other files, RunError where it can't be made.
    """
    if out is not None:
        if (out / RUN).exists():
            raise RunExistsError(
                f"{out} already holds a run.",
                f"Resume it with --resume {out}, or name another folder with --out.",
            )
        if out.exists() and (not out.is_dir() or any(f.name != ".lock" for f in out.iterdir())):
            raise RunExistsError(f"{out} exists and is not empty.", "Name another folder with --out.")
        return _make(out, recipe, record)
    return _make(next_folder(f"{dataset_name}-{recipe.name}"), recipe, record)


def next_folder(name: str) -> Path:
    """Makes the next free ``<runs>/<name>-<n>``. RunError where it can't be made."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
    folder = paths.runs_folder()
    number = 1 + max((_number(p.name, stem) for p in _entries(folder)), default=0)
    while True:
        path = folder / f"{stem}-{number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:  # another process took it in this moment
            number += 1
            continue
        except OSError as error:
            raise RunError(
                f"The run folder {path} can't be made: {error.strerror}.", "Name another with --out."
            ) from None
        return path


def reopen(path: Path) -> Run:
    """An existing, unfinished run, locked. RunError where it is in use, finished, or no run."""
    if not path.is_dir():
        raise UnknownNameError("run", str(path), [str(p) for p in _entries(path.parent) if (p / RUN).exists()])
    if not (path / RUN).exists():
        raise RunError(f"{path} holds no run: it has no {RUN}.", "A run folder is made by tenfold train.")
    held = lock(path)
    try:
        record = json.loads((path / RUN).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        held.close()
        raise RunError(f"{path / RUN} can't be read: {error}.") from None
    if record.get("status") == "finished":
        held.close()
        raise RunError(f"{path} is finished; there is nothing to resume.", f"See it with: tenfold evaluate {path}")
    return Run(path, record, read(path / RECIPE), held)


def _make(path: Path, recipe: Recipe, record: dict[str, Any]) -> Run:
    try:
        path.mkdir(parents=True, exist_ok=True)
        held = lock(path)
        paths.write_whole(path / RECIPE, recipe.to_yaml())
    except OSError as error:
        raise RunError(f"The run folder {path} can't be written: {error.strerror}.") from None
    run = Run(path, dict(record), recipe, held)
    run.update(status="running")
    return run


@contextmanager
def results_folder(folder: Path, file: str, what: str) -> Iterator[None]:
    """The folder of a comparison or a benchmark (``what``), made, and held by this process alone while the block runs.
    RunExistsError where it holds other things, and no ``file`` of such a one."""
    if folder.exists() and not folder.is_dir():
        raise RunExistsError(f"{folder} is a file.", "Name a folder with --out.")
    if folder.is_dir() and not (folder / file).exists() and any(f.name != ".lock" for f in folder.iterdir()):
        raise RunExistsError(f"{folder} is not empty and holds no {what}.", "Name another folder with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock(folder)
    except OSError as error:
        raise RunError(f"The folder {folder} can't be made: {error.strerror}.", "Name another with --out.") from None
    with held:
        yield


def lock(path: Path) -> IO[str]:
    """Takes the folder for this process until the file given back is closed. RunError where another has it."""
    file = (path / ".lock").open("a+")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise RunError(
            f"{path} is in use by another tenfold process.",
            "Wait for it to end, or name another folder with --out.",
        ) from None
    return file


def _entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _number(name: str, stem: str) -> int:
    match = re.fullmatch(re.escape(stem) + r"-(\d{1,9})", name)
    return int(match.group(1)) if match else 0
