"""The process in which an artifact is written, or reopened and asked: ``python -m tenfold.export.worker``.

A process of its own for each, because frameworks don't always get on in one, and because what is reopened must not
lean on anything that writing it left in memory. It reads a job from standard input, a line of JSON; pictures are .npy
files, taken as memory maps. What it came to is written whole as one JSON file, because frameworks print what they like.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tenfold import children, paths
from tenfold.bundle import store
from tenfold.errors import MissingExtraError, TenfoldError, UnsupportedError
from tenfold.export import artifact
from tenfold.export.formats import FORMATS
from tenfold.export.source import Source
from tenfold.runtimes import base as runtimes
from tenfold.runtimes.batches import first_line

CALIBRATION = "calibration"
FAILED, UNAVAILABLE, NOT_INSTALLED, DONE = "failed", "unavailable", "not installed", "done"


@dataclass(frozen=True)
class Job:
    """What a worker does.

    task     ``write`` the format ``kind`` from ``bundle`` into ``folder``, or ``open`` what is there and ask it
    work     holds ``<set>.npy``, uint8 N×H×W×3, and ``<set>.expected.npy``, float32 N×classes, for each of ``sets``,
             and for formats that are calibrated ``calibration.npy``; answers and the outcome are written there
    """

    task: Literal["write", "open"]
    kind: str
    bundle: str
    folder: str
    work: str
    sets: list[str]

    def file(self, name: str) -> Path:
        return Path(self.work) / name

    @property
    def outcome(self) -> Path:
        return self.file(f"{self.kind}.{self.task}.json")

    @property
    def log(self) -> Path:
        return self.file(f"{self.kind}.{self.task}.log")

    def answers(self, part: str) -> Path:
        return self.file(f"{part}.{self.kind}.npy")

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    job = Job(**json.loads(sys.stdin.buffer.readline()))
    children.end_with_parent()
    paths.write_whole(job.outcome, json.dumps(done(job)))
    sys.stderr.flush()
    os._exit(0)  # the answer stands; a framework that stumbles while it is taken apart changes nothing


def done(job: Job) -> dict[str, Any]:
    """What the job came to: ``state``, and ``message`` or what the task found."""
    try:
        return {"state": DONE, **(_write(job) if job.task == "write" else _open(job))}
    except MissingExtraError as error:
        return {"state": NOT_INSTALLED, "message": error.message, "extra": error.extra}
    except UnsupportedError as error:  # what a format can't hold is no failure of the model's
        return {"state": UNAVAILABLE, "message": str(error)}
    except TenfoldError as error:
        return {"state": FAILED, "message": error.message}
    except Exception as error:  # whatever a framework throws becomes a line of the report
        return {"state": FAILED, "message": f"{type(error).__name__}: {first_line(error)}"}


def _write(job: Job) -> dict[str, Any]:
    def load(name: str) -> np.ndarray | None:
        path = job.file(name)
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

    judged = next((name for name in job.sets if name != "golden"), "none")
    source = Source(
        store.open(job.bundle, verify=False),  # the readers check the bytes that are used
        load(f"{CALIBRATION}.npy"),
        load(f"{judged}.npy"),
        load(f"{judged}.expected.npy"),
    )
    module = importlib.import_module(f"tenfold.export.{FORMATS[job.kind].writer}")
    model, details = module.write(source, Path(job.folder))
    return {"model": model, "details": details}


def _open(job: Job) -> dict[str, Any]:
    folder = Path(job.folder)
    artifact.open(folder).start()  # imports what the runtime needs
    begun = time.perf_counter()
    opened = artifact.open(folder)
    runtime = opened.start()
    first = np.load(job.file(f"{job.sets[0]}.npy"), mmap_mode="r", allow_pickle=False)[:1]
    runtime.probabilities(first)
    loaded = time.perf_counter() - begun
    seconds = {}
    for part in job.sets:
        images = np.load(job.file(f"{part}.npy"), mmap_mode="r", allow_pickle=False)
        begun = time.perf_counter()
        found = runtime.probabilities(images)
        seconds[part] = round(time.perf_counter() - begun, 4)
        np.save(job.answers(part), found, allow_pickle=False)
    version = runtimes.load(opened.artifact.runtime).version()
    return {"device": runtime.device, "version": version, "load_seconds": round(loaded, 4), "seconds": seconds}


if __name__ == "__main__":
    main()
