"""Where the time of a training step goes: a Chrome trace, and a table of the share of each kind of operation.

    python benchmarks/profile_step.py [RECIPE] [--data cifar10] [--device auto] [--steps 5] [--out FOLDER]
                                      [--set KEY=VALUE …] [--write]

The trace (FOLDER/RECIPE-DEVICE.json.gz) opens in https://ui.perfetto.dev or chrome://tracing. On the CPU an operation's
time is that in its own code, not in those it calls, added up over the threads that compute; on CUDA it is that of its
kernels, and steps are launched kernel by kernel, as those of a graph are known by no operation's name. What is left of
the steps' time is the host's: Python, and waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pages
import steps
import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, record_function

from tenfold import recipe as recipes
from tenfold.engines.torch import devices, feed, loop, stepper

# The first that matches an operation, or else one that it was called by, names its kind.
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("augmentation", ("tenfold: augmentation",)),
    ("optimizer", ("tenfold: optimizer", "Optimizer.step")),
    ("moving average", ("tenfold: average",)),
    ("convolution backward", ("_ByProductBackward",)),
    ("convolution backward", ("convolution_backward", "ConvolutionBackward")),
    ("convolution forward", ("aten::conv2d", "aten::convolution", "_ByProduct")),
    ("batch norm", ("batch_norm", "BatchNorm")),
    ("activation", ("gelu", "Gelu", "relu", "Relu", "threshold", "silu", "Silu")),
    ("pooling", ("max_pool2d", "MaxPool2D", "avg_pool2d", "AvgPool2D", "aten::amax", "Amax", "MeanBackward")),
    ("dense layers", ("aten::linear", "AddmmBackward", "MmBackward", "aten::addmm", "aten::matmul")),
    ("loss", ("cross_entropy", "nll_loss", "NllLoss", "log_softmax", "LogSoftmax")),
    ("casts and copies", ("aten::_to_copy", "aten::to", "ToCopyBackward", "aten::copy_", "aten::clone")),
)
LABELS = 4  # so many of them are asked first
PAGE = pages.ROOT / "docs" / "speed.md"
OTHER, GAPS = "other operations", "host: Python, launches, waits"


def kind(event: Any) -> str:
    """The kind of an event of the profiler, by its own name and then by its callers', from the outermost label in."""
    names = []
    at = event
    while at is not None:
        names.append(at.name)
        at = at.cpu_parent
    for found, patterns in KINDS[:LABELS]:  # whatever runs inside belongs to them
        if any(pattern in name for name in names for pattern in patterns):
            return found
    for name in names:
        for found, patterns in KINDS[LABELS:]:
            if any(pattern in name for pattern in patterns):
                return found
    return OTHER


def table(events: list[Any], seconds: float, cuda: bool) -> Counter[str]:
    """Seconds by kind; GAPS is what the computing threads' time (the device's on CUDA) leaves."""
    spent: Counter[str] = Counter()
    threads = set()
    for event in events:
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        if own <= 0 or event.name.startswith("ProfilerStep"):
            continue
        label = kind(event)
        if not cuda and event.name.startswith("tenfold: "):
            continue  # Python between the operations under a label is the host's
        spent[label] += own / 1e6
        if label.startswith("convolution"):
            threads.add(event.thread)
    whole = seconds * (1 if cuda else max(1, len(threads)))
    spent[GAPS] = max(0.0, whole - sum(spent.values()))
    return spent


@contextlib.contextmanager
def labelled() -> Iterator[None]:
    """The loop's own parts, under names that the profiler keeps, while the block runs."""
    places: tuple[tuple[Any, str, str], ...] = (
        (feed, "gather", "augmentation"),
        (stepper, "augment", "augmentation"),
        (stepper.Optimizers, "update", "optimizer"),
        (stepper.Optimizers, "set_rate", "optimizer"),
        (stepper.Stepper, "_average", "average"),
    )
    before = [(place, name, getattr(place, name)) for place, name, _ in places]

    def under(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            with record_function(f"tenfold: {label}"):
                return function(*args, **more)

        return call

    for (place, name, label), (_, _, function) in zip(places, before, strict=True):
        setattr(place, name, under(function, label))
    try:
        yield
    finally:
        for place, name, function in before:
            setattr(place, name, function)


def profiled(training: loop.Training, count: int) -> tuple[Any, float]:
    """The profile of ``count`` steps after two that do not count, and the seconds they took."""
    for _ in range(2):
        training.take_step()
    steps.wait(training)
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if steps.device(training).type == "cuda" else [])
    everywhere = _ExperimentalConfig(profile_all_threads=True)  # the parts of a batch have threads of their own
    with profile(activities=kinds, experimental_config=everywhere) as found:
        start = time.perf_counter()
        for _ in range(count):
            training.take_step()
        steps.wait(training)
        seconds = time.perf_counter() - start
    return found, seconds


def lines(spent: Counter[str], seconds: float, training: loop.Training, count: int) -> list[str]:
    whole = sum(spent.values())
    plan, size = training.plan, training.stepper.size or training.job.architecture.height
    where = f"{training.job.device.label}, {training.precision}, PyTorch {torch.__version__}"
    ran = f"{count} steps of {plan.batch_size} images of {size} pixels"
    head = f"{training.recipe.name}, {where}: {ran}, {1000 * seconds / count:.1f} ms a step with the profiler on"
    rows = [
        f"{name:32}{1000 * value / count:10.2f} ms{100 * value / whole:8.1f} %" for name, value in spent.most_common()
    ]
    return [head, f"{'':32}{'a step':>13}{'share':>10}", *rows]


def markdown(spent: Counter[str], head: str) -> str:
    whole = sum(spent.values())
    rows = [f"| {name} | {100 * value / whole:.1f} % |" for name, value in spent.most_common()]
    return "\n".join([head + ".", "", "| kind of operation | share |", "| --- | --- |", *rows]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quick", help="a shipped recipe (default: quick)")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("profile"), help="folder of the trace (default: profile)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a field of the recipe")
    parser.add_argument("--write", action="store_true", help="put the shares into docs/speed.md")
    given = parser.parse_args()
    overrides = {"cuda_graphs": False, **dict(map(recipes.parse_set, given.set))}
    job, precision = steps.prepared(given.recipe, given.data, given.device, overrides)
    with devices.own_stream(torch.device(job.device.name)), labelled():
        training = steps.started(job, precision)
        found, seconds = profiled(training, given.steps)
    given.out.mkdir(parents=True, exist_ok=True)
    trace = given.out / f"{given.recipe}-{steps.device(training).type}.json.gz"
    found.export_chrome_trace(str(trace))
    spent = table(list(found.events()), seconds, steps.device(training).type == "cuda")
    told = lines(spent, seconds, training, given.steps)
    print("\n".join([*told, f"trace: {trace}"]))
    if given.write:
        pages.put(PAGE, f"profile-{given.recipe}", f"\n{markdown(spent, told[0])}")


if __name__ == "__main__":
    main()
