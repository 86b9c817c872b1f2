from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tenfold.comparison.records import Trial


@pytest.fixture(scope="session")
def trial() -> Callable[..., Trial]:
    """(engine, device, seed, seconds, **changed fields) → a training that went well."""

    def make(engine: str = "torch", device: str = "cpu", seed: int = 0, seconds: float = 10.0, **changes: Any) -> Trial:
        fields: dict[str, Any] = {
            "status": "done",
            "why": None,
            "exit_code": 0,
            "started": "2026-01-01T00:00:00+00:00",
            "folder": f"{engine}-{device}-{seed}",
            "command": "tenfold train",
            "ran_on": "cuda:0" if device == "cuda" else "cpu",
            "precision": "fp32",
            "accuracy": 0.9,
            "test_images": 100,
            "parts": {"import": 1.0, "train": seconds - 2, "total": seconds - 0.5},
            "images_per_second": 1000.0,
            "memory_bytes": 10**9,
        }
        return Trial(engine, device, seed, seconds=seconds, **{**fields, **changes})

    return make
