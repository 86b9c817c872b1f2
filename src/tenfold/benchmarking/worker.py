"""The process in which one configuration is measured: ``python -m tenfold.benchmarking.worker JOB``; with ``--devices
RUNTIME FILE`` it only writes what devices a runtime has.

JOB is a JSON file (:class:`Job`). Pictures lie beside it as .npy files. What was measured is written whole as one JSON
file, because frameworks print what they like on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold import hardware, paths
from tenfold.errors import MissingExtraError, TenfoldError, UnknownNameError, UnsupportedError

if TYPE_CHECKING:
    from tenfold.benchmarking.opening import Opened
    from tenfold.export.gate import Tolerance

IMAGES, LABELS, PICTURES = "images.npy", "labels.npy", "pictures.npz"
LEAST = 5  # calls of a batch size, unless they take TIMES as long as they should
MOST = 20_000
TIMES = 10
PER_CALL = 256


@dataclass(frozen=True)
class Job:
    """What to measure.

    path, kind, runtime, device, precision, threads   see ``opening.open``
    golden        the bundle whose golden images it must answer rightly; None where there is none
    folder        holds the pictures: test images uint8 N×H×W×3 and labels int64 N, where there are any, and JPEG files
    batch_sizes   from the smallest on
    seconds       of measuring for each batch size and way
    first         whether this is the configuration's first process: then accuracy, golden images and devices too
    started       ``time.time()`` when the process was begun
    """

    path: str
    kind: str
    runtime: str
    device: str
    precision: str
    threads: int | None
    golden: str | None
    folder: str
    outcome: str
    batch_sizes: list[int]
    seconds: float
    first: bool
    started: float


@dataclass
class Outcome:
    """What came of a job. ``state``: done, refused (it can't be had here), absent (its device could not be started) or
    failed; the rest as in ``records.Trial``. ``devices``: what the runtime has here."""

    state: str = "failed"
    why: str | None = None
    ran_on: str | None = None
    device_label: str | None = None
    provider: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    by_batch: dict[str, dict[str, float]] = field(default_factory=dict)
    devices: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def main() -> None:
    if sys.argv[1] == "--devices":
        from tenfold.benchmarking import opening

        paths.write_whole(Path(sys.argv[3]), json.dumps(opening.devices(sys.argv[2])))
        return
    job = Job(**json.loads(Path(sys.argv[1]).read_bytes()))
    outcome = Outcome()
    try:
        _work(job, outcome)
        outcome.state = "done"
    except (UnsupportedError, MissingExtraError, UnknownNameError) as error:
        outcome.state, outcome.why = "refused", str(error)
    except TenfoldError as error:
        # a card whose libraries are missing, or that has no kernel, shows when the model is opened
        outcome.state = "absent" if outcome.ran_on is None and job.device != "cpu" else "failed"
        outcome.why = str(error)
    except Exception as error:  # whatever a framework throws becomes a line of the table
        from tenfold.runtimes.batches import first_line

        outcome.why = f"{type(error).__name__}: {first_line(error)}"
    paths.write_whole(Path(job.outcome), json.dumps(asdict(outcome)))
    sys.stderr.flush()
    os._exit(0)  # the figures stand; a framework that stumbles while it is taken apart changes nothing


def _work(job: Job, outcome: Outcome) -> None:
    _limit(job.threads)
    begun = time.perf_counter()
    from tenfold.benchmarking import cards, opening

    if job.first:  # told first: a device that fails has others beside it
        outcome.versions = _versions(job)
    opened = opening.open(
        Path(job.path), job.kind, job.runtime, device=job.device, precision=job.precision, threads=job.threads
    )
    outcome.figures["open_seconds"] = time.perf_counter() - begun
    outcome.ran_on, outcome.device_label = opened.runtime.device, opened.label
    pictures = _pictures(job)
    _answer(opened, pictures[:1])
    outcome.figures["first_prediction_seconds"] = time.time() - job.started
    if job.first:
        outcome.devices = opening.devices(job.runtime)
        _check_golden(job, opened, outcome)
    images = _images(job)
    for size in job.batch_sizes:
        outcome.by_batch[str(size)] = _measure(opened, images, pictures, size, job.seconds)
        if job.device.startswith("cuda") and (taken := cards.memory_bytes()):
            outcome.by_batch[str(size)]["device_memory_bytes"] = taken
    if job.first:
        _check_accuracy(job, opened, outcome)
    if opened.graph is not None and job.first and job.device != "cpu":
        outcome.provider = opening.provider(opened, images[:1], job.device)
    else:
        outcome.provider = getattr(opened.runtime, "provider", None)


def _limit(threads: int | None) -> None:
    """Lets this process have so many cores, whatever the runtime: all of them ask how many there are."""
    if threads is None:
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "savedmodel": ("tensorflow",),
    "litert": ("ai-edge-litert",),
    "torchexport": ("torch",),
    "tensorrt": ("onnxruntime-gpu", "tensorrt"),
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "keras"),
    "jax": ("jax", "keras"),
    "opencl": ("tinygrad",),
}


def _versions(job: Job) -> dict[str, str]:
    found = hardware.versions("numpy", *_PACKAGES.get(job.runtime, ()))
    return {name: version for name, version in found.items() if name != "python"}


# ---- pictures --------------------------------------------------------------------------------------------------------


def _pictures(job: Job) -> list[bytes]:
    """JPEG files' bytes."""
    with np.load(Path(job.folder) / PICTURES, allow_pickle=False) as stored:
        return [stored[name].tobytes() for name in stored.files]


def _images(job: Job) -> np.ndarray:
    """uint8 N×H×W×3 in memory, at least as many as the largest batch has."""
    stored = np.load(Path(job.folder) / IMAGES, allow_pickle=False)
    return stored[np.arange(max(len(stored), max(job.batch_sizes))) % len(stored)]


def _answer(opened: Opened, pictures: list[bytes], each: Callable[..., Any] = map) -> np.ndarray:
    """From files' bytes to probabilities, as ``tenfold predict`` does."""
    from tenfold.data import decode

    pixels = list(each(lambda data: decode.decode(data, opened.geometry), pictures))
    return opened.runtime.probabilities(np.stack(pixels))


# ---- measuring -------------------------------------------------------------------------------------------------------


def _measure(opened: Opened, images: np.ndarray, pictures: list[bytes], size: int, seconds: float) -> dict[str, float]:
    """The figures of a batch size: of pixels, and of files' bytes that all cores decode, batch by batch."""
    from concurrent.futures import ThreadPoolExecutor

    times = timed(lambda i: opened.runtime.probabilities(_window(images, i, size)), seconds)
    milliseconds = 1000 * np.percentile(times, [50, 90, 99])
    found = {f"latency_p{p}_ms": float(v) for p, v in zip((50, 90, 99), milliseconds, strict=True)}
    files = (pictures * (-(-size // len(pictures))))[:size]
    with ThreadPoolExecutor(hardware.cores()) as pool:
        each = map if size == 1 else pool.map
        decoded = timed(lambda i: _answer(opened, files, each), seconds / 2)
    return {
        **found,
        "images_per_second": size * len(times) / sum(times),
        "decoded_images_per_second": size * len(decoded) / sum(decoded),
        "memory_bytes": float(hardware.peak_memory_bytes()),
        "calls": float(len(times)),
    }


def _window(images: np.ndarray, i: int, size: int) -> np.ndarray:
    """The ``i``-th batch, as a caller has it: a view."""
    start = (i * size) % max(1, len(images) - size + 1)
    return images[start : start + size]


def timed(call: Callable[[int], object], seconds: float) -> list[float]:
    """Seconds of each of the calls made during ``seconds``, after what compiles and warms up; at least LEAST of them
    where they are not very slow. An answer is on the host when a call ends, so nothing of the device's is left out."""
    begun = time.perf_counter()
    call(0)
    if time.perf_counter() - begun < seconds:
        call(1)
    times: list[float] = []
    begun = time.perf_counter()
    while True:
        before = time.perf_counter()
        call(len(times))
        now = time.perf_counter()
        times.append(now - before)
        spent = now - begun
        if (spent >= seconds and len(times) >= LEAST) or spent >= TIMES * seconds or len(times) >= MOST:
            return times


# ---- whether the answers are right -----------------------------------------------------------------------------------


def _check_golden(job: Job, opened: Opened, outcome: Outcome) -> None:
    """BundleError where the golden images get other answers than this precision may give."""
    from tenfold.bundle import store
    from tenfold.errors import BundleError
    from tenfold.export import gate

    if job.golden is None:
        outcome.notes.append("There are no golden images beside it: that its answers are right was not checked.")
        return
    images, expected = store.open(job.golden).golden()
    replay = gate.replay("golden", expected, opened.runtime.probabilities(images))
    if reasons := replay.reasons(tolerance(job.kind, job.precision)):
        raise BundleError(f"Its answers are wrong: {'; '.join(reasons)}.")
    outcome.figures["golden_difference"] = replay.max_difference


def tolerance(kind: str, precision: str) -> Tolerance:
    """How far answers may be off: an artifact's as when it was exported, a bundle's by its precision. bf16 has 8 bits
    where fp16 has 11."""
    from tenfold.export import formats, gate

    if kind in formats.FORMATS:
        return formats.FORMATS[kind].tolerance
    by: Mapping[str, Tolerance] = {"fp16": gate.FP16, "bf16": gate.Tolerance(0.1, 0.02, 0.005), "int8": gate.INT8}
    return by.get(precision, gate.EXACT)


def _check_accuracy(job: Job, opened: Opened, outcome: Outcome) -> None:
    labels = Path(job.folder) / LABELS
    if not labels.exists():
        return
    truth = np.load(labels, allow_pickle=False)
    images = np.load(Path(job.folder) / IMAGES, mmap_mode="r", allow_pickle=False)
    right = 0
    for start in range(0, len(truth), PER_CALL):
        part = np.ascontiguousarray(images[start : start + PER_CALL])
        right += int((opened.runtime.probabilities(part).argmax(1) == truth[start : start + PER_CALL]).sum())
    outcome.figures["accuracy"] = right / len(truth)


if __name__ == "__main__":
    main()
