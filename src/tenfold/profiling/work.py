"""A profile from the call to its folder: profile.json, profile.html, trace.json.gz."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold import children, hardware, paths, processes, words
from tenfold import run as runs
from tenfold.data.dataset import Dataset
from tenfold.engines.recording import Recording, chrome
from tenfold.errors import CallError, RunError, RunExistsError
from tenfold.profiling import page
from tenfold.profiling.records import Profile
from tenfold.recipe import Recipe

JSON, TRACE = "profile.json", "trace.json.gz"


def profile(
    subject: str | Path | Dataset = "digits",
    *,
    recipe: str | Path | Recipe = "auto",
    engine: str = "torch",
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    steps: int | None = None,
    at: float = 0.0,
    runtime: str = "onnxruntime",
    threads: int | None = None,
    batch_size: int = 64,
    pictures: Sequence[str] = (),
    out: str | Path | None = None,
    command: str = "",
    report: Callable[[Any], None] | None = None,
) -> Profile:
    """Where the time goes: of training steps where ``subject`` is data, of prediction where it is a model.

    subject     a dataset's name, a folder of pictures, a CSV or a Dataset; or a run's folder, a bundle's, an exported
                artifact's, a model.onnx
    recipe, engine, device, overrides   as for :func:`tenfold.train`; ``device`` is also an engine's in ``runtime``
    steps       to be profiled (batches of a model); as many as take about two seconds where None
    at          the share of the run that counts as behind: pictures may be smaller at first (``low_res``)
    runtime, threads, batch_size, pictures   of a model: what computes, on how many threads, how many pictures at once,
                and files to predict in place of the bundle's golden images
    out         the folder; ``runs/profile-<subject>-<n>`` where None

    Leaves profile.json, profile.html and trace.json.gz in the folder, all of them or none. Raises CallError for what
    can't be asked, and as :func:`tenfold.train` and :func:`tenfold.load` do.
    """
    from tenfold.profiling import prediction, training

    report = report or (lambda event: None)
    folder = None if out is None else _free(Path(out))
    recording: Recording | None = None
    others = _Others()
    with children.interrupted_by_signals():
        if not isinstance(subject, Dataset) and prediction.is_model(subject):
            found = prediction.profile(
                subject, runtime=runtime, device=device, threads=threads, batch_size=batch_size, batches=steps,
                pictures=pictures, command=command, report=report,
            )  # fmt: skip
            name = Path(subject).resolve().name
        else:
            found, recording = training.profile(
                subject, recipe=recipe, engine=engine, device=device, overrides=overrides, steps=steps, at=at,
                command=command, report=report,
            )  # fmt: skip
            name = f"{_stem(found.subject)}-{found.recipe['name'] if found.recipe else ''}"
        found = dataclasses.replace(found, notes=[*found.notes, *others.notes()])
        return _written(found, recording, folder, name)


class _Others:
    """What other programs take of the machine from now on, where the system tells."""

    def __init__(self) -> None:
        self._ticks, self._own, self._clock = processes.ticks(), os.times(), time.perf_counter()

    def notes(self) -> list[str]:
        """A sentence, where they took half a core or more, or the machine's host a twentieth of it."""
        now, own, seconds = processes.ticks(), os.times(), max(time.perf_counter() - self._clock, 1e-9)
        if now is None or self._ticks is None:
            return []
        spent = now - self._ticks
        mine = own.user + own.system - self._own.user - self._own.system
        others = (spent.busy / os.sysconf("SC_CLK_TCK") - mine) / seconds
        stolen = spent.steal / max(spent.total, 1)
        said = []
        if others >= 0.5:
            cores = words.count(hardware.cores(), "core")
            said.append(f"Other programs computed meanwhile, on {others:.1f} of {cores}: times are longer for it.")
        if stolen >= 0.05:
            said.append(f"The machine's host gave {words.percent(stolen, 0)} of its time to others meanwhile.")
        return said


def _free(folder: Path) -> Path:
    """The folder, where a profile may be put. RunExistsError where it holds anything."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise CallError(f"{folder} can't be opened: {error.strerror}.") from None
    if taken:
        raise RunExistsError(f"{folder} exists and is not empty.", "Name another folder with --out.")
    return folder


def _stem(source: str) -> str:
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return re.sub(r"\.csv$", "", name) or "data"


def _written(found: Profile, recording: Recording | None, folder: Path | None, name: str) -> Profile:
    folder = folder or runs.next_folder(f"profile-{name}")
    found = dataclasses.replace(found, path=folder)
    try:
        with paths.folder_whole(folder) as place:
            (place / JSON).write_text(_json(found), encoding="utf-8")
            (place / page.PAGE).write_text(page.html(found), encoding="utf-8")
            if recording is not None and recording.export is not None:
                recording.export(place / TRACE)
            else:
                spans = recording.spans if recording is not None else found.timeline
                (place / TRACE).write_bytes(gzip.compress(chrome(spans, f"tenfold {found.kind}").encode()))
    except OSError as error:
        raise RunError(f"{folder} can't be written: {error.strerror}.", "Name another folder with --out.") from None
    return found


def _json(found: Profile) -> str:
    return json.dumps(found.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
