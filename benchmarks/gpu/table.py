"""The table of ``check.sh``: what the runs' JSON objects say, as JSON and as text.

python benchmarks/gpu/table.py FOLDER OUT

A folder in FOLDER is a contestant, a file in it a run.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from tenfold import hardware


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def figures(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median, least and most of what every run tells; a peer tells less than tenfold does."""
    found = {
        "test accuracy": [run["test"]["accuracy"] for run in runs],
        "whole seconds": [run["seconds"]["total"] for run in runs],
        **{f"  {p} seconds": [r["seconds"][p] for r in runs] for p in runs[0]["seconds"] if p != "total"},
    }
    if "images_per_second" in runs[0]:
        found["images/s"] = [run["images_per_second"] for run in runs]
        found["peak memory, MB"] = [run["peak_memory_bytes"] / 1e6 for run in runs]
    return {name: spread(values) for name, values in found.items()}


def lines(name: str, runs: list[dict[str, Any]]) -> list[str]:
    return [
        f"{name}, n = {len(runs)}",
        f"{'':24}{'median':>12}{'min':>12}{'max':>12}",
        *(
            f"{row:24}" + "".join(f"{values[k]:12.4g}" for k in ("median", "min", "max"))
            for row, values in figures(runs).items()
        ),
        "",
    ]


def main(folder: Path, out: Path) -> None:
    contestants = {
        path.name: [json.loads(run.read_text()) for run in sorted(path.glob("*.json"))]
        for path in sorted(folder.iterdir())
        if any(path.glob("*.json"))
    }
    card = torch.cuda.get_device_properties(0)
    about = {
        "command": "bash benchmarks/gpu/check.sh",
        "card": card.name,
        "card_memory_bytes": card.total_memory,
        **hardware.describe(),
        "versions": {**hardware.versions("numpy"), "torch": str(torch.__version__), "cuda": torch.version.cuda},
    }
    found = {name: {"n": len(runs), "figures": figures(runs), "runs": runs} for name, runs in contestants.items()}
    (out / "gpu.json").write_text(json.dumps({**about, "contestants": found}, indent=2) + "\n")
    head = f"CIFAR-10, {card.name}, {about['cpu']} ({about['cores']} cores), PyTorch {torch.__version__}"
    text = [head, "", *(line for name, runs in contestants.items() for line in lines(name, runs))]
    (out / "gpu.txt").write_text("\n".join(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
