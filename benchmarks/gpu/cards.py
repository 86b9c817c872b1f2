"""Two runs of the same recipe beside each other: ``python benchmarks/gpu/cards.py ONE SEVERAL``.

Prints the largest difference of their curves and both test accuracies; fails where the first epoch's loss differs by
more than 0.01.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def epochs(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["event"] == "epoch"]


def main() -> None:
    one, several = (Path(argument) for argument in sys.argv[1:])
    apart = [abs(a["loss"] - b["loss"]) for a, b in zip(epochs(one), epochs(several), strict=True)]
    print(f"loss: {apart[0]:.2g} apart after the first epoch, {max(apart):.2g} at most")
    for run in (one, several):
        result = json.loads((run / "run.json").read_text(encoding="utf-8"))["result"]
        processes = result["processes"]["number"]
        seconds, accuracy = result["seconds"]["train"], result["test"]["accuracy"]
        print(f"processes: {processes}, {100 * accuracy:.2f} % in {seconds:.1f} s of training")
    if apart[0] > 0.01:
        sys.exit("The runs are not the same.")


if __name__ == "__main__":
    main()
