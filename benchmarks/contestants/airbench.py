"""Run a record's script (airbench94_muon.py, airbench96_faster.py, cifar10_speedrun.py) unmodified and read its table.

The scripts train 200 times and take no options, so the script is ended as soon as its first counted run has printed
its result: what is timed is its start, the compilation, a warm-up run where it has one, and that run. It finds the
data where it looks for it, made ready by --prepare before the race. Prints one JSON line at the end.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path


def read_rows(lines):
    """The results of a script's table as they come: ``{"run", "val_acc", "tta_val_acc", "seconds"}``.

    The table's head names its columns. A run's number stands in its first row only; its result is the row whose
    epoch is ``eval``. Other lines (rules, numbers of parameters) are passed over.
    """
    columns = run = None
    for line in lines:
        # cifar10_speedrun.py ends a line of means with a carriage return, and the next row follows on it
        line = line.rsplit("\r", 1)[-1].strip()
        if not (line.startswith("|") and line.endswith("|")):
            continue
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if columns is None or cells[: len(columns)] == columns:
            columns = cells
            continue
        if len(cells) != len(columns):
            continue
        row = dict(zip(columns, cells, strict=True))
        run = row["run"] or run
        if row["epoch"] == "eval":
            taken = row.get("time_seconds") or row["total_time_seconds"]
            yield {
                "run": run,
                "val_acc": float(row["val_acc"]),
                "tta_val_acc": float(row["tta_val_acc"]),
                "seconds": float(taken),
            }


def prepare(data: Path, work: Path) -> None:
    """cifar10/train.pt and test.pt as the scripts themselves cache them on their first run."""
    import numpy as np
    import torch

    folder = work / "cifar10"
    folder.mkdir(parents=True, exist_ok=True)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for split in ("train", "test"):
        if not (folder / f"{split}.pt").exists():
            images = torch.tensor(np.load(data / f"{split}_images.npy"))
            labels = torch.tensor(np.load(data / f"{split}_labels.npy"))
            torch.save({"images": images, "labels": labels, "classes": classes}, folder / f"{split}.partial")
            (folder / f"{split}.partial").replace(folder / f"{split}.pt")


def first_result(script: Path, work: Path):
    """The result of the first counted run, and that of the warm-up where there is one."""
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=work,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=False,
    )

    def shown():
        for line in process.stdout:
            print(line, end="", flush=True)
            yield line

    warmup = None
    try:
        for result in read_rows(shown()):
            if result["run"] == "warmup":
                warmup = result
            else:
                return result, warmup
    finally:
        process.send_signal(signal.SIGKILL)  # it has no end of its own for hours, and saves nothing before
        process.wait()
    raise SystemExit(f"{script.name} ended without a result (exit code {process.returncode})")


def versions():
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with train_images.npy …")
    parser.add_argument("--work", type=Path, required=True, help="the script's working folder")
    parser.add_argument("--prepare", action="store_true", help="make the data ready and do no more")
    args = parser.parse_args()
    if args.prepare:
        prepare(args.data, args.work)
        return
    result, warmup = first_result(args.script.resolve(), args.work)
    parts = {"train": result["seconds"]} | ({"warmup": warmup["seconds"]} if warmup else {})
    print(
        json.dumps(
            {
                "accuracy": result["tta_val_acc"],
                "accuracy_without_tta": result["val_acc"],
                "accuracy_with_tta": result["tta_val_acc"],
                "seconds": parts,
                "versions": versions(),
            }
        )
    )


if __name__ == "__main__":
    main()
