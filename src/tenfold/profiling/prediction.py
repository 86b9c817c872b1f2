"""Profiles prediction: pictures through a trained model as ``predict`` takes them, and then each part alone."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tenfold
from tenfold import hardware, png
from tenfold import run as runs
from tenfold.bundle import store
from tenfold.bundle.manifest import ARTIFACT, MANIFEST
from tenfold.data import decode
from tenfold.data.dataset import Skipped
from tenfold.data.progress import Progress
from tenfold.engines.recording import Span
from tenfold.errors import CallError
from tenfold.predict import Model, load
from tenfold.profiling.advice import of_prediction
from tenfold.profiling.records import Cost, Operation, Part, Profile
from tenfold.runtimes import graph, onnxruntime
from tenfold.runtimes.base import Node
from tenfold.runtimes.base import load as runtime_module

BATCH = 64
SECONDS = 2.0  # of batches, where their number is not given
FEWEST, MOST = 5, 100
SHOWN_UNITS = 2  # in the timeline
AROUND, LEAST = "around the nodes", 0.005  # of the model's time: calling it, waking its threads, colder caches


def is_model(path: str | Path) -> bool:
    """Whether ``path`` is a run, a bundle, an exported artifact or a model.onnx, and so no data."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".onnx" and path.is_file():
            return True
        return any((path / name).is_file() for name in (runs.RUN, MANIFEST, ARTIFACT)) or path.name == ARTIFACT
    except OSError:  # a name that is too long
        return False


@dataclass(frozen=True)
class _Taken:
    """Seconds of one batch, each part after the one before."""

    decode: float
    copy: float
    model: float
    answers: float


def profile(
    path: str | Path,
    *,
    runtime: str = "onnxruntime",
    device: str = "auto",
    threads: int | None = None,
    batch_size: int = BATCH,
    batches: int | None = None,
    pictures: Sequence[str] = (),
    command: str = "",
    report: Callable[[Any], None] = lambda event: None,
) -> Profile:
    """Where the time of predicting a batch of pictures goes, and in whole runs that of their training.

    batches   to be timed; as many as take about two seconds where None
    pictures  files to predict, taken again and again; the bundle's golden images where there are none

    Raises CallError for what can't be asked, ImageError for a picture that can't be read, and as
    :func:`tenfold.load` does.
    """
    for name, value in (("batch_size", batch_size), ("batches", batches)):
        if value is not None and value < 1:
            raise CallError(f"{name} must be 1 or more, not {value}.")
    path = Path(path)
    model = load(path, runtime=runtime, device=device, threads=threads)
    notes = list(model.notes)
    encoded = _pictures(path, model, pictures, notes)
    batch = [encoded[i % len(encoded)] for i in range(batch_size)]
    report(Progress("profile", 0, 3, "parts"))
    with ThreadPoolExecutor(hardware.cores()) as pool:
        once = min(sum(vars(_timed(model, batch, pool)).values()) for _ in range(2))
        count = batches or max(FEWEST, min(MOST, round(SECONDS / max(once, 1e-6))))
        taken = [_timed(model, batch, pool) for _ in range(count)]
    report(Progress("profile", 1, 3, "parts"))
    streamed = _streamed(model, batch, count)
    report(Progress("profile", 2, 3, "parts"))
    pixels = np.stack([decode.decode(data, model.geometry) for data in batch])
    inside = _nodes(path, model, runtime, pixels, min(count, 20), threads, notes)
    report(Progress("profile", 3, 3, "parts"))
    found = _profile(path, model, batch_size, taken, streamed, inside, notes, command)
    return dataclasses.replace(found, advice=of_prediction(found))


def _pictures(path: Path, model: Model, given: Sequence[str], notes: list[str]) -> list[bytes]:
    """Encoded pictures: those given, else the golden images as PNG, else generated ones."""
    if given:
        return [Path(name).read_bytes() for name in given]
    size = f"{model.geometry.width}×{model.geometry.height} pixels"
    if path.suffix.lower() != ".onnx" and not (path / ARTIFACT).exists() and path.name != ARTIFACT:
        images, _ = store.open(path).golden()
        what = f"the bundle's {len(images)} golden images"
    else:
        rng = np.random.default_rng(0)
        rough = rng.integers(0, 256, (16, -(-model.geometry.height // 8), -(-model.geometry.width // 8), 3), np.uint8)
        images = rough.repeat(8, 1).repeat(8, 2)[:, : model.geometry.height, : model.geometry.width]
        what = "generated pictures"
    notes.append(f"Pictures: {what} as PNG of {size}. Photos are larger and take longer to decode: --pictures PATH.")
    return [png.encode(image) for image in images]


def _timed(model: Model, batch: Sequence[bytes], pool: ThreadPoolExecutor) -> _Taken:
    clock = [time.perf_counter()]

    def lap() -> None:
        clock.append(time.perf_counter())

    decoded = list(pool.map(lambda data: decode.decode(data, model.geometry), batch))
    lap()
    pixels = np.stack(decoded)
    lap()
    probabilities = model.probabilities(pixels)
    lap()
    for row in probabilities:
        model.best("", row, 3)
    lap()
    return _Taken(*(b - a for a, b in itertools.pairwise(clock)))


def _streamed(model: Model, batch: Sequence[bytes], count: int) -> list[float]:
    """Seconds a batch of pictures through ``Model.stream``, as predict does it, three times."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        for answer in model.stream(data for _ in range(count) for data in batch):
            assert not isinstance(answer, Skipped)
        found.append((time.perf_counter() - start) / count)
    return found


# ---- inside the model ------------------------------------------------------------------------------------------------


def _nodes(
    path: Path,
    model: Model,
    runtime: str,
    pixels: np.ndarray,
    count: int,
    threads: int | None,
    notes: list[str],
) -> list[list[Node]]:
    """Each node in each run, by the runtime's own profiler; nothing where there is none, which a note says."""
    size = min(len(pixels), batch_bound(model))
    pixels = pixels[:size]
    source, name = _graph(path, runtime) if model.runtime.device.startswith("cpu") else (None, runtime)
    where = str(path)
    if source is not None and name == "onnxruntime":
        return onnxruntime.nodes(source, pixels, count, threads=threads, where=where)  # type: ignore[arg-type]
    if source is not None and name == "openvino":
        found: list[list[Node]] = runtime_module("openvino").nodes(source, pixels, count, threads=threads, where=where)
        return found
    notes.append(
        f"{model.runtime.name} on {model.runtime.device} tells nothing of the model's operations; onnxruntime and "
        "openvino on the CPU do."
    )
    return []


def batch_bound(model: Model) -> int:
    """Images that a runtime takes at once at most."""
    from tenfold.runtimes.batches import BATCH_IMAGES, BATCH_PIXELS

    return max(1, min(BATCH_IMAGES, BATCH_PIXELS // (model.geometry.height * model.geometry.width)))


def _graph(path: Path, runtime: str) -> tuple[bytes | Path | None, str]:
    """What the profiler of a runtime loads, and that runtime's name; None where it has no profiler."""
    if path.suffix.lower() == ".onnx":
        data = onnxruntime.read(path)
        graph.inspect(data, str(path))
        return data, runtime
    if (path / ARTIFACT).exists() or path.name == ARTIFACT:
        from tenfold.export import artifact

        folder = path.parent if path.name == ARTIFACT else path
        said = artifact.read(folder)
        if said.runtime == "onnxruntime":
            return onnxruntime.read(folder / said.model), said.runtime
        return (folder / said.model if said.runtime == "openvino" else None), said.runtime
    return (store.open(path).model() if runtime in ("onnxruntime", "openvino") else None), runtime


# ---- the record ------------------------------------------------------------------------------------------------------


def _profile(
    path: Path,
    model: Model,
    size: int,
    taken: Sequence[_Taken],
    streamed: Sequence[float],
    inside: Sequence[Sequence[Node]],
    notes: list[str],
    command: str,
) -> Profile:
    parts = [
        Part("decode", f"decode: pictures to pixels, {hardware.cores()} threads", _median(taken, "decode")),
        Part("copy", "copy: pixels into a batch", _median(taken, "copy")),
        Part("model", "model: pixels to probabilities", _median(taken, "model")),
        Part("answers", "answers: the best classes", _median(taken, "answers")),
    ]
    whole = sum(part.seconds for part in parts)
    kinds, nodes = _inside(inside, parts[2].seconds, whole)
    label = hardware.cpu_name() if model.runtime.device.startswith("cpu") else model.runtime.device
    return Profile(
        kind="prediction",
        subject=str(path),
        computed_by=model.runtime.name,
        device=model.runtime.device,
        device_label=label,
        precision=_precision(path),
        images=size,
        pixels=max(model.geometry.height, model.geometry.width),
        units=len(taken),
        seconds=statistics.median(streamed),
        seconds_lowest=min(streamed),
        seconds_highest=max(streamed),
        profiled=whole,
        memory_bytes=hardware.peak_memory_bytes() or None,
        parts=parts,
        kinds=kinds,
        operations=nodes,
        profiler=f"the profiler of {model.runtime.name}" if inside else "the host's clock",
        hardware=hardware.describe(),
        versions={"tenfold": tenfold.__version__, **hardware.versions("numpy", "pillow", model.runtime.name)},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        phases=_phases(path),
        notes=notes,
        timeline=_timeline(taken, inside),
    )


def _median(taken: Sequence[_Taken], name: str) -> float:
    return statistics.median(getattr(one, name) for one in taken)


def _precision(path: Path) -> str:
    """An artifact's kind says it (``onnx-int8``); a bundle's graph is in float32."""
    if (path / ARTIFACT).exists():
        from tenfold.export import artifact

        return artifact.read(path).kind
    return "fp32"


def _inside(inside: Sequence[Sequence[Node]], model: float, whole: float) -> tuple[list[Cost], list[Operation]]:
    """By operator and by node, the largest first. The profiler's own cost is taken out: the nodes share the time that
    the model takes without it."""
    if not inside:
        return [], []
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in inside:
        for node in run:
            seconds[node.name, node.operator].append(node.seconds)
    middle = {key: statistics.median(values) for key, values in seconds.items()}
    scale = min(1.0, model / max(sum(middle.values()), 1e-12))
    by_operator: dict[str, float] = defaultdict(float)
    for (_, operator), value in middle.items():
        by_operator[operator] += value * scale
    rest = model - sum(by_operator.values())
    if rest > LEAST * model:
        by_operator[AROUND] = rest
    kinds = [Cost(n, s, s / whole) for n, s in sorted(by_operator.items(), key=lambda pair: -pair[1])]
    nodes = [
        Operation(name, operator, value * scale, value * scale / whole, len(seconds[name, operator]) / len(inside))
        for (name, operator), value in sorted(middle.items(), key=lambda pair: -pair[1])
    ]
    return kinds, nodes


def _phases(path: Path) -> Mapping[str, float] | None:
    """Seconds of the training's phases, from the run's record."""
    try:
        record = json.loads((path / runs.RUN).read_text(encoding="utf-8"))
        found = record["result"]["seconds"]
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _timeline(taken: Sequence[_Taken], inside: Sequence[Sequence[Node]]) -> list[Span]:
    """The first batches' parts one after another, the model's nodes in a lane of their own."""
    found: list[Span] = []
    at = 0.0
    for number, one in enumerate(taken[:SHOWN_UNITS]):
        start = at
        for name, seconds in vars(one).items():
            if name == "model" and number < len(inside) and inside[number]:
                run = inside[number]
                zero, last = run[0].start, run[-1].start + run[-1].seconds
                scale = min(1.0, seconds / max(last - zero, 1e-12))
                for node in run:
                    begin = at + (node.start - zero) * scale
                    end = begin + node.seconds * scale
                    found.append(Span("operation", node.name, "model", begin, end, end - begin, 0.0, (node.operator,)))
            found.append(Span("part", name, "batch", at, at + seconds, seconds, 0.0, ("batch",)))
            at += seconds
        found.append(Span("part", "batch", "batch", start, at, 0.0))
    return found
