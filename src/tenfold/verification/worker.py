"""The process in which one engine or runtime answers: ``python -m tenfold.verification.worker``.

It reads a job from standard input, a line of JSON; images are .npy files, taken as memory maps, and answers are
written as .npy files beside them. What it came to is written whole as one JSON file, because frameworks print what
they like on standard output. It ends with the process that started it, however that one ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tenfold import children, paths
from tenfold.bundle import store
from tenfold.errors import BundleError, MissingExtraError, TenfoldError, UnsupportedError
from tenfold.runtimes.batches import first_line


@dataclass(frozen=True)
class Job:
    """``kind`` (``engine`` or ``runtime``) and ``name`` of who answers for the ``bundle``'s model.

    folder   holds ``<set>.npy``, uint8 N×H×W×3, for each of ``sets``; answers and the outcome are written there
    device   asked of an engine; ``auto`` is its fastest
    """

    kind: str
    name: str
    bundle: str
    folder: str
    sets: list[str]
    device: str

    def images(self, part: str) -> Path:
        return Path(self.folder) / f"{part}.npy"

    def answers(self, part: str) -> Path:
        return Path(self.folder) / f"{part}.{self.kind}.{self.name}.npy"

    @property
    def outcome(self) -> Path:
        return Path(self.folder) / f"{self.kind}.{self.name}.json"

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    state     ``answered``, ``unavailable`` (this engine can't do it), ``not installed`` (``message`` is the command)
              or ``failed``
    seconds   for each set: loading the model and answering
    """

    state: str
    message: str | None = None
    device: str | None = None
    version: str | None = None
    seconds: dict[str, float] | None = None


Ask = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    job = Job(**json.loads(sys.stdin.buffer.readline()))
    children.end_with_parent()
    try:
        outcome = _answer(job)
    except MissingExtraError as error:  # a second package that it needs
        outcome = Outcome("not installed", f"pip install 'tenfold[{error.extra}]'")
    except UnsupportedError as error:  # what an engine can't do at all is no failure of the model's
        outcome = Outcome("unavailable", error.message)
    except TenfoldError as error:
        outcome = Outcome("failed", error.message)
    except Exception as error:  # whatever a framework throws becomes a line of the report
        outcome = Outcome("failed", f"{type(error).__name__}: {first_line(error)}")
    paths.write_whole(job.outcome, json.dumps(asdict(outcome)))
    sys.stderr.flush()
    os._exit(0)  # the answer stands; a framework that stumbles while it is taken apart changes nothing


def _answer(job: Job) -> Outcome:
    bundle = store.open(job.bundle, verify=False)  # the readers check the bytes that are used
    prepared = _engine(job, bundle) if job.kind == "engine" else _runtime(job, bundle)
    device, version, ask = prepared
    seconds = {}
    for part in job.sets:
        images = np.load(job.images(part), mmap_mode="r", allow_pickle=False)
        begun = time.perf_counter()
        found = ask(images)
        seconds[part] = time.perf_counter() - begun
        _check(found, (len(images), len(bundle.manifest.classes)))
        np.save(job.answers(part), found, allow_pickle=False)
    return Outcome("answered", None, device, version, seconds)


def _engine(job: Job, bundle: store.Bundle) -> tuple[str, str, Ask]:
    """Device, versions, and what gives logits."""
    from tenfold.engines import base
    from tenfold.recipe import Recipe

    engine = base.load(job.name)
    device = engine.device(job.device)
    architecture = bundle.manifest.architecture
    base.check(engine, architecture, Recipe(precision="fp32"), device)
    weights = bundle.weights()
    version = ", ".join(f"{name} {v}" for name, v in engine.versions().items())
    return device.name, version, lambda images: engine.logits(architecture, weights, images, device, precision="fp32")


def _runtime(job: Job, bundle: store.Bundle) -> tuple[str, str, Ask]:
    """Device, version, and what gives probabilities; the model is opened for each set, as engines build theirs."""
    from tenfold.runtimes import base

    module = base.load(job.name)
    data, where = bundle.model(), f"{bundle.path}: model.onnx"
    device: str = module.open(data, where=where).device
    return device, module.version(), lambda images: module.open(data, where=where).probabilities(images)


def _check(found: np.ndarray, shape: tuple[int, int]) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != shape:
        got = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise BundleError(f"It gave {got}, not float32 {shape}.")


if __name__ == "__main__":
    main()
