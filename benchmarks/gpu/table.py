"""The table of ``check.sh``: what the runs' JSON objects say, as JSON and as text.

python benchmarks/gpu/table.py FOLDER OUT
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import torch

from tenfold import hardware


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main(folder: Path, out: Path) -> None:
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    figures = {
        "test accuracy": spread([run["test"]["accuracy"] for run in runs]),
        "whole seconds": spread([run["seconds"]["total"] for run in runs]),
        **{
            f"  {part} seconds": spread([r["seconds"][part] for r in runs])
            for part in runs[0]["seconds"]
            if part != "total"
        },
        "images/s": spread([run["images_per_second"] for run in runs]),
        "peak memory, MB": spread([run["peak_memory_bytes"] / 1e6 for run in runs]),
    }
    card = torch.cuda.get_device_properties(0)
    about = {
        "command": "bash benchmarks/gpu/check.sh",
        "card": card.name,
        "card_memory_bytes": card.total_memory,
        **hardware.describe(),
        "versions": {**hardware.versions("numpy"), "torch": str(torch.__version__), "cuda": torch.version.cuda},
        "n": len(runs),
    }
    (out / "gpu.json").write_text(json.dumps({**about, "figures": figures, "runs": runs}, indent=2) + "\n")
    lines = [
        f"sprint on CIFAR-10, {card.name}, {about['cpu']} ({about['cores']} cores), "
        f"PyTorch {torch.__version__}, n = {len(runs)}",
        f"{'':24}{'median':>12}{'min':>12}{'max':>12}",
        *(f"{name:24}" + "".join(f"{row[k]:12.4g}" for k in ("median", "min", "max")) for name, row in figures.items()),
    ]
    (out / "gpu.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
