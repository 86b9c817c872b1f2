"""How fast pictures are read: 5,000 JPEGs into tenfold's cache and out of it, beside the usual ways.

    TENFOLD_DATA=… python benchmarks/data_speed.py [FOLDER] [-n 5] [--lock FILE] [--out JSON] [--docs]

Every way runs in a process of its own, the ways in turn, n times. A time is that of the work, from the listing of
the folder to the last picture, with the workers that it starts and ends, without the parent's imports; the seconds
of the processor are those of all its processes. Files are in the system's memory: reading them from a disk is not
what is compared. A round in which others used the processor is thrown away and said.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pages
import photos

from tenfold import hardware
from tenfold.data import cache, load_dataset
from tenfold.recipe import Data

SIZE, BATCH, WORKERS = 64, 64, 2
EPOCHS = 20  # of reading from the cache, which for one would be too short a time
MOST_FOREIGN = 0.03  # share of the processor's time that others may take during a measurement
LONGEST_HOLD = 70  # seconds after which the lock is given to others between two rounds
PAGE = pages.ROOT / "docs" / "benchmarks.md"

Timed = tuple[int, float, float]  # pictures, seconds, seconds of the processor


# ---- the ways, each run in a process of its own ----------------------------------------------------------------


def _timed(work: Callable[[], int]) -> Timed:
    def used() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in both)

    before, began = used(), time.perf_counter()
    count = work()
    return count, time.perf_counter() - began, used() - before


def _epoch(dataset: Any) -> int:
    """One epoch of a PyTorch DataLoader, shuffled; its workers are ended and so counted."""
    from torch.utils.data import DataLoader

    batches = iter(DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS))
    return sum(len(images) for images, _ in batches)


def pillow(folder: Path) -> Timed:
    """Pillow, whole decode and its default (bicubic) resize, float tensors: what most scripts do."""
    return _pillow(folder, "BICUBIC")


def pillow_bilinear(folder: Path) -> Timed:
    """The same with tenfold's bilinear resize, which is cheaper."""
    return _pillow(folder, "BILINEAR")


def _pillow(folder: Path, filter: str) -> Timed:
    import numpy as np
    import torch
    from PIL import Image

    resample = Image.Resampling[filter]

    class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self) -> None:
            classes = sorted(p.name for p in folder.iterdir())
            self.files = [(str(p), i) for i, name in enumerate(classes) for p in sorted((folder / name).iterdir())]

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            path, label = self.files[i]
            image = np.array(Image.open(path).convert("RGB").resize((SIZE, SIZE), resample))
            return torch.from_numpy(image).permute(2, 0, 1).contiguous().float().div(255), label

    return _timed(lambda: _epoch(Files()))


def torchvision_folder(folder: Path) -> Timed:
    """torchvision's ImageFolder with Resize and ToTensor (bilinear, antialiased)."""
    from torchvision import datasets, transforms

    steps = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor()])
    return _timed(lambda: _epoch(datasets.ImageFolder(str(folder), steps)))


def torchvision_decode(folder: Path) -> Timed:
    """torchvision.io.decode_jpeg and Resize on tensors."""
    from torchvision import datasets, io, transforms

    resize = transforms.Resize((SIZE, SIZE), antialias=True)

    def load(path: str) -> Any:
        return resize(io.decode_jpeg(io.read_file(path), io.ImageReadMode.RGB)).float().div(255)

    return _timed(lambda: _epoch(datasets.ImageFolder(str(folder), loader=load)))


def _load(folder: Path) -> Any:
    return load_dataset(folder, Data(size=SIZE))


def into_cache(folder: Path) -> Timed:
    """tenfold: the folder into an empty cache, as training does before its first step."""
    return _timed(lambda: sum(map(len, _load(folder).splits.values())))


def reopen(folder: Path) -> Timed:
    """tenfold: the same folder the second time: list the files, see that none has changed, open the cache."""
    _load(folder)
    return _timed(lambda: sum(map(len, _load(folder).splits.values())))


def _mapped(folder: Path) -> Any:
    cache.IN_MEMORY = 0  # as for a folder too large for memory
    _load(folder)
    return _load(folder)["train"]


def plain_batches(folder: Path) -> Timed:
    """tenfold: shuffled batches from the memory map as the float tensors that Pillow's loader gives."""
    import numpy as np
    import torch

    split = _mapped(folder)

    def batch(index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(split.images[index]).permute(0, 3, 1, 2).contiguous().float().div(255)

    def epoch(number: int) -> int:
        order = np.random.default_rng(number).permutation(len(split))
        return sum(len(batch(order[i : i + BATCH])) for i in range(0, len(order), BATCH))

    epoch(0)
    return _timed(lambda: sum(epoch(i) for i in range(1, EPOCHS + 1)))


def feed_mapped(folder: Path) -> Timed:
    """tenfold: the batches of training on the CPU from the memory map, mirrored and shifted."""
    return _feed(_mapped(folder))


def feed_memory(folder: Path) -> Timed:
    """tenfold: the same from memory, where the pixels of up to 256 MiB are kept."""
    _load(folder)
    return _feed(_load(folder)["train"])


def _feed(split: Any) -> Timed:
    import torch

    from tenfold.engines.schedule import Plan
    from tenfold.engines.torch.feed import Feed
    from tenfold.recipe import load as load_recipe

    per_epoch = len(split) // BATCH
    feed = Feed(
        split, Plan(per_epoch * (EPOCHS + 1), per_epoch, BATCH), load_recipe("quick").augment, 0, torch.device("cpu")
    )

    def epochs(first: int, last: int) -> int:
        return sum(len(feed.take(step)[0]) for step in range(first * per_epoch, last * per_epoch))

    epochs(0, 1)
    return _timed(lambda: epochs(1, EPOCHS + 1))


WAYS: dict[str, tuple[str, Callable[[Path], Timed]]] = {
    "pillow": (f"Pillow, whole decode, PyTorch `DataLoader`, {WORKERS} workers", pillow),
    "pillow-bilinear": ("the same with a bilinear resize, which is tenfold's", pillow_bilinear),
    "torchvision": ("torchvision `ImageFolder`, `Resize`, `ToTensor`, the same loader", torchvision_folder),
    "torchvision-decode": ("torchvision `decode_jpeg`, `Resize`, the same loader", torchvision_decode),
    "tenfold": ("tenfold, the folder into the cache", into_cache),
    "reopen": ("tenfold, the folder again: files checked, cache opened", reopen),
    "feed-mapped": (
        "tenfold, later epochs, batches of training (uint8, shifted) from the map",
        feed_mapped,
    ),
    "feed-memory": ("tenfold, later epochs, the same from memory, where up to 256 MiB are kept", feed_memory),
    "plain": ("tenfold, later epochs, float batches like Pillow's from the map", plain_batches),
}


# ---- measuring -------------------------------------------------------------------------------------------------


def _busy() -> float | None:
    """Seconds that all cores together have computed since the start; None where the system doesn't tell."""
    try:
        user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def measure(way: str, folder: Path) -> dict[str, Any]:
    """One run of a way in a process and a cache of its own."""
    with tempfile.TemporaryDirectory() as empty:
        busy, began = _busy(), time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, __file__, str(folder), "--way", way],
            env=os.environ | {"TENFOLD_CACHE": empty},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        after, seconds, busy_after = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began, _busy()
    count, work_seconds, work_cpu = json.loads(done.stdout.splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    foreign = None if busy is None or busy_after is None else (busy_after - busy - cpu) / (seconds * hardware.cores())
    return {
        "images": count,
        "seconds": work_seconds,
        "cpu_seconds": work_cpu,
        "whole_process_seconds": seconds,
        "whole_process_cpu_seconds": cpu,
        "images_per_second": count / work_seconds,
        "images_per_cpu_second": count / work_cpu,
        "foreign_share": foreign,
    }


@contextlib.contextmanager
def _held(lock: Path | None) -> Iterator[None]:
    """The exclusive lock of a file, for machines where other measurements go on."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(folder: Path, n: int, lock: Path | None) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str], int]:
    """The runs of each way, why some ways were left out, and how many rounds were thrown away."""
    left_out = {way: reason for way in WAYS if (reason := _missing(way))}
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS if way not in left_out}
    for path in folder.rglob("*.jpg"):
        path.read_bytes()  # into the system's memory
    thrown = 0
    while len(runs["pillow"]) < n:
        with _held(lock):
            began = time.monotonic()
            while len(runs["pillow"]) < n and time.monotonic() - began < LONGEST_HOLD:
                thrown += not _round(runs, folder)
                if thrown > 3 * n:
                    raise SystemExit("The machine is not idle; nothing was written.")
    return runs, left_out, thrown


def _round(runs: dict[str, list[dict[str, Any]]], folder: Path) -> bool:
    """Add a run of each way; False, and none added, where others were computing."""
    found = {way: measure(way, folder) for way in runs}
    worst = max((one["foreign_share"] or 0) for one in found.values())
    if worst > MOST_FOREIGN:
        print(f"others used {worst:.1%} of the processor during a run; the round is made again", file=sys.stderr)
        return False
    for way, one in found.items():
        runs[way].append(one)
    print(f"round {len(runs['pillow'])}", file=sys.stderr)
    return True


def _missing(way: str) -> str | None:
    """Why a way can't run here."""
    if not way.startswith("torchvision"):
        return None
    done = subprocess.run(
        [sys.executable, "-c", "from torchvision import io, datasets; io.decode_jpeg"], capture_output=True, text=True
    )
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


# ---- saying ----------------------------------------------------------------------------------------------------


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    keys = ("images_per_second", "images_per_cpu_second", "whole_process_seconds", "foreign_share")
    found: dict[str, dict[str, Any]] = {}
    for way, many in runs.items():
        found[way] = {k: spread([one[k] for one in many]) for k in keys if many[0][k] is not None}
        for key, name in (("images_per_cpu_second", "beside_pillow"), ("images_per_second", "beside_pillow_wall")):
            ratios = [one[key] / other[key] for one, other in zip(many, runs["pillow"], strict=True)]
            found[way][name] = statistics.median(ratios)
        found[way]["n"] = len(many)
    return found


def table(result: dict[str, Any]) -> str:
    """The Markdown between the markers in docs/benchmarks.md."""
    about, data = result["machine"], result["pictures"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    size = {key: f"{value / 1e3:.0f} kB" for key, value in data["bytes"].items()}
    lines = [
        f"{data['count']:,} JPEGs of {data['width']}×{data['height']} ({size['min']} to {size['max']}, mean "
        f"{size['mean']}, made from {data['tiles']}) to {SIZE}×{SIZE}. {about['cpu']}, "
        f"{about['cores']} cores, {about['memory_bytes'] / 2**30:.0f} GiB, {about['system']}; {versions}. "
        f"n = {result['n']} each, in turn; median (lowest to highest). {result['date']}.",
        "",
        "| way | images/s | images/s a core | of Pillow's, a core | of Pillow's, wall clock |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way, row in result["summary"].items():
        wall, core = (
            f"{r['median']:,.0f} ({r['min']:,.0f} to {r['max']:,.0f})"
            for r in (row["images_per_second"], row["images_per_cpu_second"])
        )
        both = f"{row['beside_pillow']:.2f} | {row['beside_pillow_wall']:.2f}"
        lines.append(f"| {WAYS[way][0]} | {wall} | {core} | {both} |")
    for way, reason in result["left_out"].items():
        lines.append(f"\nLeft out: {WAYS[way][0]} ({reason})")
    return "\n".join(lines) + "\n"


def _versions() -> dict[str, str]:
    from PIL import features

    found = hardware.versions("tenfold", "pillow", "numpy", "torch", "torchvision")
    found["libjpeg-turbo"] = str(features.version("libjpeg_turbo"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir()) / "tenfold-photos")
    parser.add_argument("-n", type=int, default=5, help="runs of each way")
    parser.add_argument("--count", type=int, default=5000, help="pictures, if they are still to be made")
    parser.add_argument("--lock", type=Path, help="hold this file's lock while measuring")
    parser.add_argument("--out", type=Path, help="where the figures go as JSON")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(WAYS[given.way][1](given.folder)))
        return
    with _held(None if given.folder.exists() else given.lock):
        pictures = photos.make(given.folder, given.count)
    runs, left_out, thrown = run(given.folder, given.n, given.lock)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": hardware.describe(),
        "versions": _versions(),
        "pictures": pictures,
        "n": given.n,
        "rounds_thrown_away": thrown,
        "summary": summary(runs),
        "left_out": left_out,
        "runs": runs,
    }
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    if given.docs:
        pages.put(PAGE, "data-speed", table(result).rstrip())


if __name__ == "__main__":
    main()
