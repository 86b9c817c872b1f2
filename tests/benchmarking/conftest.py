from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tenfold.benchmarking.records import Benchmark, Configuration, Subject, Trial

FIGURES = {"first_prediction_seconds": 0.5, "open_seconds": 0.2, "size_bytes": 815_472.0, "accuracy": 0.84}


@pytest.fixture(scope="session")
def measured() -> Callable[..., Trial]:
    """(runtime, round, images/s at a batch of 1, **changed) → a process that measured batches of 1 and 64."""

    def make(
        runtime: str = "onnxruntime", number: int = 0, speed: float = 1000.0, device: str = "cpu", **changes: Any
    ) -> Trial:
        by_batch = {
            str(size): {
                "images_per_second": speed * factor,
                "decoded_images_per_second": speed * factor / 2,
                "latency_p50_ms": 1000 * size / speed / factor,
                "latency_p90_ms": 1100 * size / speed / factor,
                "latency_p99_ms": 1500 * size / speed / factor,
                "memory_bytes": 1e8,
                "calls": 100.0,
            }
            for size, factor in ((1, 1), (64, 3))
        }
        fields: dict[str, Any] = {
            "status": "done",
            "ran_on": "cuda:0" if device == "cuda" else device,
            "device_label": "A card" if device == "cuda" else "A processor",
            "figures": FIGURES if number == 0 else {"first_prediction_seconds": 0.7, "open_seconds": 0.3},
            "by_batch": by_batch,
            "versions": {runtime: "1.0"},
            "others_cores": 0.0,
            "steal_share": 0.0,
        }
        configuration = Configuration("a-run", runtime, device, "fp32", "bundle")
        return Trial(configuration, number, **{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def benchmark_of() -> Callable[..., Benchmark]:
    """(trials, **changed fields) → a benchmark of one model."""

    def make(*trials: Trial, digest: str = "0" * 64, **changes: Any) -> Benchmark:
        subject = Subject("a-run", "sprint", digest, "digits", "8×8", 1234, "runs/a-run")
        settings: Mapping[str, Any] = {"rounds": 2}
        fields = {"command": "tenfold bench a-run", "settings": settings, **changes}
        return Benchmark.of("inference", [subject], trials, **fields)

    return make
