"""One result of airbench94_muon.py, unmodified: the script is ended when its first counted run has printed it.

python benchmarks/gpu/airbench.py SCRIPT FOLDER

The script trains two hundred times and takes no options. FOLDER is where it runs and keeps its data. Prints a JSON
object: its accuracy, with its test-time augmentation; ``train``, the seconds that it names itself; and ``total``, those
from its start to that result, in which its import, its data, its compilation and its warm-up run lie.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path


def first_result(lines: Iterable[str]) -> dict[str, float] | None:
    """Accuracy and seconds of the first counted run in the script's table, None where it ends without one.

    A run's number (or ``warmup``) stands in its first row only; its result is the row whose epoch is ``eval``.
    """
    columns: list[str] | None = None
    run = ""
    for line in lines:
        if not line.strip().startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if columns is None:
            columns = cells
        elif len(cells) == len(columns):
            row = dict(zip(columns, cells, strict=True))
            run = row["run"] or run
            if row["epoch"] == "eval" and run != "warmup":
                return {"accuracy": float(row["tta_val_acc"]), "train": float(row["time_seconds"])}
    return None


def main(script: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(script.resolve())],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = first_result(process.stdout)
        total = time.perf_counter() - start
    finally:
        process.kill()
        process.wait()
    if found is None:
        sys.exit(f"{script.name} ended without a result.")
    seconds = {"train": found["train"], "total": total}
    print(json.dumps({"test": {"accuracy": found["accuracy"]}, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
