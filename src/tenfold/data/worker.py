"""Decoding many files into one file of pixels: the work itself, and the process that does it beside others.

Processes rather than threads: most of the time for a small picture is Python's own, where threads wait for
each other, and a picture that brings down a C library takes a worker with it, not the training. Measured on two
idle cores, medians of five, one process, two workers, two threads: 10,000 PNGs of 32×32 take 0.98, 0.67 and 1.24 s;
5,000 JPEGs of 500×375, where Pillow computes without Python's lock, 3.95, 2.13 and 2.10 s. So threads gain nothing
that would make up for what they lose.
The workers are plain children of ``python -m tenfold.data.worker`` that talk in lines of JSON, because
``multiprocessing`` would import the user's own script again; one is up in 0.1 s.

Pixels are written with write(), not through a memory map: on a full disk that is an error rather than a
SIGBUS.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.data.dataset import Geometry
from tenfold.data.decode import decode_sized
from tenfold.data.fingerprint import DIGEST, fill_digests
from tenfold.errors import ImageError

# A picture whose aspect differs by less is not worth a word.
ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Job:
    """What all workers share: where pixels (N×H×W×3 bytes) and digests (N×32 bytes) go, and at what
    geometry."""

    pixels: str
    digests: str
    geometry: Geometry

    @property
    def stride(self) -> int:
        return self.geometry.height * self.geometry.width * 3


@dataclass(frozen=True)
class Reply:
    """Of one run of files: those that could not be read, as (index, reason), and how many changed their
    aspect."""

    skipped: list[tuple[int, str]]
    reshaped: int


def decode_run(job: Job, start: int, paths: Sequence[str]) -> Reply:
    """Decode ``paths`` into rows ``start``, ``start + 1``, … of the job's files. OSError where they can't be
    written."""
    geometry = job.geometry
    images = np.zeros((len(paths), geometry.height, geometry.width, 3), np.uint8)
    skipped = []
    reshaped = 0
    for i, path in enumerate(paths):
        try:
            images[i], (width, height) = decode_sized(Path(path), geometry)
        except ImageError as error:
            skipped.append((start + i, error.reason))
            continue
        aspect = width * geometry.height / (height * geometry.width)
        reshaped += abs(aspect - 1) > ASPECT_TOLERANCE
    digests = np.empty((len(paths), DIGEST), np.uint8)
    fill_digests(images, digests)
    _write_at(job.pixels, start * job.stride, images)
    _write_at(job.digests, start * DIGEST, digests)
    return Reply(skipped, reshaped)


def _write_at(path: str, offset: int, array: np.ndarray) -> None:
    with Path(path).open("r+b", buffering=0) as file:
        file.seek(offset)
        left = array.reshape(-1).data
        while left:
            left = left[file.write(left) :]


def job_line(job: Job) -> str:
    return json.dumps(asdict(job))


def run_line(start: int, paths: Sequence[str]) -> str:
    return json.dumps([start, list(paths)])


def parse_reply(line: str) -> Reply:
    """The worker's answer; OSError where it could not write."""
    said: dict[str, Any] = json.loads(line)
    if "error" in said:
        raise OSError(said["errno"], said["error"])
    return Reply([(int(i), str(reason)) for i, reason in said["skipped"]], int(said["reshaped"]))


def main() -> None:
    """Answer runs from standard input until it ends, which it also does when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    described = json.loads(sys.stdin.readline())
    geometry = described["geometry"]
    geometry["background"] = tuple(geometry["background"])
    job = Job(described["pixels"], described["digests"], Geometry(**geometry))
    for line in sys.stdin:
        start, paths = json.loads(line)
        try:
            answer = asdict(decode_run(job, start, paths))
        except OSError as error:
            answer = {"error": error.strerror, "errno": error.errno}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
