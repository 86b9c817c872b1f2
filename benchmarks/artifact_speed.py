"""How fast exported artifacts answer, beside each other: python benchmarks/artifact_speed.py A B … [--runs 9].

Each is loaded by ``tenfold.load``, and then all of them answer the same 1,000 random images in turn, run by run, so
that whatever else the machine does meets each alike. Told is the median of a run's microseconds an image, with the
smallest and the largest, and how many times as fast as the first the median is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import tenfold
from tenfold import hardware

IMAGES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, hardware.cores()])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64])
    given = parser.parse_args()
    print(hardware.describe())
    for threads in given.threads:
        models = {path.name: tenfold.load(path, threads=threads) for path in given.artifacts}
        for batch in given.batch:
            times = measure(models, batch, given.runs)
            first = statistics.median(next(iter(times.values())))
            for name, found in times.items():
                middle = statistics.median(found)
                spread = f"{min(found):.0f} to {max(found):.0f}, n = {len(found)}"
                print(
                    f"{threads} threads, batches of {batch}: {name} {middle:.0f} µs ({spread}) × {first / middle:.2f}"
                )


def measure(models: dict[str, tenfold.Model], batch: int, runs: int) -> dict[str, list[float]]:
    """Microseconds an image of each model, run by run."""
    size = next(iter(models.values())).geometry
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, size.height, size.width, 3), np.uint8)
    times: dict[str, list[float]] = {name: [] for name in models}
    for run in range(runs + 1):
        for name, model in models.items():
            begun = time.perf_counter()
            for start in range(0, IMAGES, batch):
                model.probabilities(images[start : start + batch])
            if run:  # the first warms up
                times[name].append(1e6 * (time.perf_counter() - begun) / IMAGES)
    return times


if __name__ == "__main__":
    main()
