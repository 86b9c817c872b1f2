"""How fast a training step could be on this machine, and how fast it is.

    python benchmarks/floor.py                      # the table on the terminal
    python benchmarks/floor.py --write              # and into docs/speed.md, between its markers

A layer takes at least the time of its arithmetic at the fastest rate that this machine showed for a large matrix
product, and at least the time of its reading and writing at the fastest that it showed for copying; the larger of the
two, added up over the layers, forward and backward, is the floor of a step in which each layer is computed by itself.
For an H100 the data sheet's figures stand in place of measured ones, and nothing is measured on it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pages
import steps
import torch

from tenfold import hardware
from tenfold.architecture.layers import (
    Activation,
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    GlobalPool,
    Layer,
    Normalize,
    Pool,
)
from tenfold.architecture.weights import Shape, specs, walk
from tenfold.engines.torch import devices
from tenfold.recipe import Recipe

PAGE = pages.ROOT / "docs" / "speed.md"
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Cost:
    """Of one image, forward and backward: floating-point operations (a multiplication and an addition are two) and
    bytes read and written."""

    name: str
    flops: float
    bytes: float


@dataclass(frozen=True)
class Machine:
    """Operations and bytes a second at most."""

    name: str
    flops: float
    bandwidth: float


# NVIDIA H100 SXM data sheet: dense bf16 on tensor cores, HBM3
H100 = Machine("H100 SXM, data sheet", 989.4e12, 3.35e12)


def costs(architecture: Architecture, precision: str) -> Iterator[Cost]:
    """What each layer costs an image, reading its inputs and writing its outputs once an operation.

    Gradients of the pixels are no one's need: they are counted from the first layer that has trained weights on. Batch
    norm reads its input twice forward, and its input and the gradient twice backward. Additions of residuals, biases
    and the loss are left out.
    """
    trained = {name.rpartition(".")[0] for name, spec in specs(architecture).items() if spec.role == "trained"}
    kernels = {name.rpartition(".")[0] for name in specs(architecture) if name.endswith(".kernel")}
    behind = False  # whether a layer before has trained weights, so that this one's input has a gradient
    for name, layer, before, after in walk(architecture):
        learns = name in trained and not (isinstance(layer, Conv) and layer.frozen)
        assert not isinstance(layer, Conv | Dense) or name in kernels
        yield _cost(name, layer, before, after, behind, learns, WIDTH[precision])
        behind = behind or name in trained


def _cost(name: str, layer: Layer, before: Shape, after: Shape, behind: bool, learns: bool, width: int) -> Cost:
    read, written = math.prod(before), math.prod(after)
    if isinstance(layer, Normalize):
        return Cost(name, 0, (read + written) * 4)
    if isinstance(layer, Conv | Dense):
        each = before[0] * (layer.kernel**2 if isinstance(layer, Conv) else 1)
        once = 2.0 * each * written
        passes = 1 + behind + learns
        return Cost(name, once * passes, (read + written) * passes * width)
    if isinstance(layer, BatchNorm):
        return Cost(name, 0, (3 + (5 if behind else 0)) * read * width)
    if isinstance(layer, Activation):
        return Cost(name, 0, (2 + (3 if behind else 0)) * read * width)
    if isinstance(layer, Pool | GlobalPool):
        return Cost(name, 0, (read + written) * (2 if behind else 1) * width)
    return Cost(name, 0, 0)


def update(architecture: Architecture, recipe: Recipe) -> Cost:
    """What the optimizer costs a step: the weight, its gradient and one buffer read, weight and buffer written; and for
    Muon the products of its iterations."""
    flops = 0.0
    shapes = {n: s.shape for n, s in specs(architecture).items() if s.role == "trained"}
    for name, shape in shapes.items():
        if recipe.optimizer.name == "muon" and len(shape) == 4 and name.endswith(".kernel"):
            short, long = sorted((shape[0], math.prod(shape[1:])))
            flops += recipe.optimizer.muon_steps * (4.0 * short * short * long + 2.0 * short**3)
    return Cost("optimizer", flops, 5 * 4.0 * sum(math.prod(shape) for shape in shapes.values()))


def floor(architecture: Architecture, recipe: Recipe, precision: str, batch: int, machine: Machine) -> float:
    """Seconds that a step takes at least."""
    rows = [Cost(c.name, c.flops * batch, c.bytes * batch) for c in costs(architecture, precision)]
    rows.append(update(architecture, recipe))
    return sum(max(c.flops / machine.flops, c.bytes / machine.bandwidth) for c in rows)


# ---- what this machine can do ----------------------------------------------------------------------------------------


def fastest_product(dtype: torch.dtype, size: int = 2048, seconds: float = 3.0) -> float:
    """FLOP/s of a product of two square matrices, the best within ``seconds``."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    return 2.0 * size**3 / _shortest(lambda: a @ b, seconds)


def fastest_copy(megabytes: int = 256, seconds: float = 3.0) -> float:
    """Bytes a second read and written, copying one large array to another, the best within ``seconds``."""
    a = torch.ones(megabytes * 2**20 // 4)
    b = torch.empty_like(a)
    return 2.0 * a.nbytes / _shortest(lambda: b.copy_(a), seconds)


def _shortest(work: Callable[[], object], seconds: float) -> float:
    work()
    best, until = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


# ---- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A recipe's steps at one size of the pictures. ``measured`` is seconds a step."""

    recipe: str
    size: int
    precision: str
    batch: int
    flops: float
    bytes: float
    products: float
    floor: float
    card: float
    measured: float


def rows(name: str, data: str, here: dict[str, Machine], count: int) -> Iterator[Row]:
    job, precision = steps.prepared(name, data, "cpu", {})
    sizes = [job.recipe.low_res.size] if job.recipe.low_res else []
    for size in [*sizes, job.architecture.height]:
        recipe = job.recipe if size in sizes else steps.at_full_size(job.recipe)
        training = steps.started(steps.Job(job.architecture, recipe, job.weights, job.dataset, job.device), precision)
        measured = steps.seconds_a_step(training, count)
        seen = Architecture(job.architecture.name, size, size, job.architecture.classes, job.architecture.layers)
        parts = list(costs(seen, precision))
        batch, machine = training.plan.batch_size, here[precision]
        flops = sum(c.flops for c in parts)
        yield Row(
            name, size, precision, batch, flops, sum(c.bytes for c in parts), batch * flops / machine.flops,
            floor(seen, recipe, precision, batch, machine), floor(seen, recipe, "bf16", batch, H100), measured,
        )  # fmt: skip


def text(found: list[Row], here: dict[str, Machine], count: int) -> str:
    about = hardware.describe()
    limits = "; ".join(f"{name} {m.flops / 1e12:.2f} TFLOP/s" for name, m in here.items())
    bandwidth = next(iter(here.values())).bandwidth
    columns = (
        *("recipe, pixels", "precision", "images a step", "an image: arithmetic", "moved", "arithmetic alone", "floor"),
        *("measured", "of the floor", "images/s", "floor, H100"),
    )
    lines = [
        f"{about['cpu']}, {about['cores']} cores, PyTorch {torch.__version__}. Largest rate of a product of two "
        f"matrices of 2,048 × 2,048: {limits}; of copying 256 MB: {bandwidth / 1e9:.1f} GB/s, reading and writing "
        f"counted. A step's time is the median of {count}. The last column is the same floor with the data sheet's 989 "
        "TFLOP/s (bf16) and 3.35 TB/s of an H100 SXM, where nothing has been measured yet.",
        "",
        _row(columns),
        _row(["---"] * len(columns)),
    ]
    return "\n".join([*lines, *(_row(_cells(r)) for r in found)]) + "\n"


def _cells(r: Row) -> list[str]:
    return [
        f"`{r.recipe}`, {r.size}",
        r.precision,
        f"{r.batch:,}",
        f"{r.flops / 1e6:,.0f} MFLOP",
        f"{r.bytes / 1e6:.1f} MB",
        f"{1000 * r.products:,.0f} ms",
        f"{1000 * r.floor:,.0f} ms",
        f"{1000 * r.measured:,.0f} ms",
        f"{r.measured / r.floor:.1f} ×",
        f"{r.batch / r.measured:,.0f}",
        f"{1000 * r.card:.2f} ms",
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["quick", "sprint"])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed at each size (default 5)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/speed.md")
    given = parser.parse_args()
    devices.prepare(torch.device("cpu"))
    bandwidth = fastest_copy()
    here = {
        name: Machine(hardware.cpu_name(), fastest_product(dtype), bandwidth)
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
    }
    found = [row for name in given.recipes for row in rows(name, given.data, here, given.steps)]
    table = text(found, here, given.steps)
    print(table)
    if given.write:
        pages.put(PAGE, "floor", f"\n{table}")


if __name__ == "__main__":
    main()
