"""Why an engine is slower than another on a CPU: each convolution of a network by itself, forward and both gradients.

    python benchmarks/engine_convolutions.py [--recipe quick] [--engines torch,tensorflow,jax]

A process an engine; the median of the repeats, as each engine's own layers compute them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tenfold import hardware
from tenfold import recipe as recipes
from tenfold.architecture import zoo
from tenfold.architecture.layers import Conv
from tenfold.architecture.weights import walk

REPEATS = 5


def convolutions(name: str) -> list[tuple[str, Conv, tuple[int, ...]]]:
    """(weights' name, layer, shape in) of a recipe's network at 32 pixels."""
    architecture = zoo.build(recipes.load(name).model, 32, 32, 10)
    return [(at, layer, before) for at, layer, before, _ in walk(architecture) if isinstance(layer, Conv)]


def seconds(work: Callable[[], Any]) -> float:
    taken = []
    for number in range(REPEATS + 2):
        start = time.perf_counter()
        work()
        if number >= 2:  # the first two compile and warm up
            taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


def on_torch(layer: Conv, x: np.ndarray, precision: str) -> float:
    import torch

    from tenfold.engines.torch import devices
    from tenfold.engines.torch.conv import Conv as Layer

    conv = Layer(x.shape[3], layer.filters, layer.kernel, layer.stride, layer.padding, bias=False)
    conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_(not layer.frozen)

    def work() -> None:
        with devices.autocast(torch.device("cpu"), precision):
            out = conv(images)
        out.sum().backward()

    if layer.frozen:  # a whitening layer's kernel and the pixels need no gradient
        conv.requires_grad_(False)
        return seconds(lambda: conv(images))
    return seconds(work)


def on_keras(layer: Conv, x: np.ndarray, precision: str) -> float:
    from tenfold.engines import base
    from tenfold.engines.keras.framework import chosen

    framework, device = chosen(), base.Device("cpu", "cpu")
    framework.prepare(device, precision)
    kernel = np.random.default_rng(0).normal(size=(layer.kernel, layer.kernel, x.shape[3], layer.filters))
    padding = "same" if layer.padding else "valid"

    def forward(at: dict[str, Any]) -> tuple[Any, Any]:
        from keras import ops

        dtype = "bfloat16" if precision == "bf16" else "float32"
        out = framework.conv(ops.cast(at["x"], dtype), ops.cast(at["kernel"], dtype), layer.stride, padding)
        return ops.sum(ops.cast(out, "float32")), out

    def step(at: dict[str, Any]) -> Any:
        return forward(at)[1] if layer.frozen else framework.value_and_gradients(forward, at)[2]

    sent = framework.send({"x": x, "kernel": kernel.astype(np.float32)}, device)
    compiled = framework.compiled(step, device)
    return seconds(lambda: framework.fetch(compiled(sent)))


def measure(engine: str, name: str, precision: str, batch: int) -> dict[str, float]:
    from tenfold.engines import base

    base.load(engine)
    found = {}
    for at, layer, (channels, height, width) in convolutions(name):
        x = np.random.default_rng(0).normal(size=(batch, height, width, channels)).astype(np.float32)
        found[at] = (on_torch if engine == "torch" else on_keras)(layer, x, precision)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--engines", default="torch:bf16,torch:fp32,tensorflow:bf16,jax:fp32")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        engine, precision = given.child.split(":")
        print("\n" + json.dumps(measure(engine, given.recipe, precision, given.batch)))
        return
    columns = {}
    for who in given.engines.split(","):
        command = [sys.executable, __file__, "--recipe", given.recipe, "--batch", str(given.batch), "--child", who]
        columns[who] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])
    print(f"{hardware.cpu_name()}, {hardware.cores()} cores; {given.batch} pictures, median of {REPEATS}\n")
    print(f"| convolution | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for at, layer, before in convolutions(given.recipe):
        what = f"{layer.kernel}×{layer.kernel}, {before[0]} → {layer.filters}, {before[1]}×{before[2]}"
        cells = [f"{1000 * column[at]:.0f} ms" for column in columns.values()]
        print(f"| {what} | {' | '.join(cells)} |")
    print(f"| all | {' | '.join(f'{1000 * sum(column.values()):.0f} ms' for column in columns.values())} |")


if __name__ == "__main__":
    main()
