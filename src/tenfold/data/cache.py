"""Pictures decoded once, kept as plain pixels, and read back in no time.

A cache is a folder ``pixels/<key>`` in tenfold's cache folder: ``pixels.u8`` (N×H×W×3 bytes: train, then val,
then test) and ``meta.json``. The key is the SHA-256 of everything that decides the pixels: every file's name,
size, modification time, label and split, the geometry, and the decoder's version. Size and time rather than
the bytes, because reading all bytes takes about half as long as decoding them, on every run, while asking for
size and time takes microseconds a file. What that can miss (a file rewritten with the same length and its old
time) is what make, rsync and git live with too. The Dataset's fingerprint is of the pixels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold import paths
from tenfold.data import crew, decode, split
from tenfold.data.dataset import SPLITS, Dataset, Geometry, Skipped, Split, square
from tenfold.data.fingerprint import DIGEST, fingerprint
from tenfold.data.listing import Item, Listing, letters_or_digits, printable, several
from tenfold.data.lock import locked
from tenfold.data.progress import Progress, Report
from tenfold.data.worker import Job
from tenfold.errors import DataError, ImageError

if TYPE_CHECKING:
    from tenfold import recipe

FORMAT = 1

# Larger ones are mapped; these are read into memory, which training walks through faster.
IN_MEMORY = 256 * 2**20

SAMPLE = 200
LEAST_AUTO, MOST_OWN = 16, 64

_PIXELS, _DIGESTS, _META = "pixels.u8", "digests.u8", "meta.json"


def load(listing: Listing, settings: recipe.Data, report: Report) -> Dataset:
    """The listed pictures as a Dataset, from the cache where they are, else decoded into it. Raises
    DataError."""
    size, said = _size(listing.items, settings)
    geometry = square(size, settings)
    codes, rule = _splits(listing, settings)
    order = sorted(range(len(codes)), key=lambda i: (codes[i], i))  # listings are sorted by origin
    plan = _Plan(listing, geometry, [listing.items[i] for i in order], codes[order], rule)
    folder = paths.cache_folder() / "pixels" / plan.key()
    meta = _read(folder)
    if meta is None:
        meta = _build(folder, plan, report)
    return _dataset(plan, folder, meta, said)


@dataclass(frozen=True)
class _Plan:
    """What the cache is to hold: items by split and origin, and of each its split's code."""

    listing: Listing
    geometry: Geometry
    items: Sequence[Item]
    codes: np.ndarray
    rule: dict[str, Any] | None

    def key(self) -> str:
        whole = hashlib.sha256()
        about = [FORMAT, decode.VERSION, self.geometry.to_dict(), self.listing.classes]
        whole.update(json.dumps(about).encode())
        lines = [
            f"{code}\0{i.label}\0{i.size}\0{i.mtime}\0{i.origin}\n"
            for i, code in zip(self.items, self.codes.tolist(), strict=True)
        ]
        whole.update("".join(lines).encode("utf-8", "surrogateescape"))
        return whole.hexdigest()

    def family(self) -> str:
        """Same source, geometry and rule: of these, a newer cache replaces the older ones."""
        about = [self.listing.source, self.geometry.to_dict(), self.rule]
        return hashlib.sha256(json.dumps(about).encode("utf-8", "surrogateescape")).hexdigest()


# The size of the pictures.


def _size(items: Sequence[Item], settings: recipe.Data) -> tuple[int, list[str]]:
    """Height and width, and what to say where they were chosen here."""
    if settings.size != "auto":
        return settings.size, []
    step = max(1, len(items) // SAMPLE)
    sizes = []
    for item in items[::step][:SAMPLE]:
        try:
            found = decode.probe(Path(item.path))
        except ImageError:
            continue  # counted and listed when it is decoded
        sizes.append((found.width, found.height))
    if not sizes:
        return MOST_OWN, []
    if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1] <= MOST_OWN:
        own = max(sizes[0][0], LEAST_AUTO)
        return own, [f"Size {own}×{own}: " + ("the pictures' own." if own == sizes[0][0] else "the least.")]
    median = float(np.median([min(s) for s in sizes]))
    chosen = 32 if median < 48 else 64
    return chosen, [
        f"Size {chosen}×{chosen}, chosen by the pictures' median shorter side of {median:.0f} pixels; "
        "data.size sets another."
    ]


# The splits.


def _splits(listing: Listing, settings: recipe.Data) -> tuple[np.ndarray, dict[str, Any] | None]:
    """The code of each item's split, and the rule by which missing splits were made, or None."""
    items = listing.items
    has = {item.split for item in items} - {None}
    codes = np.array([SPLITS.index(item.split) if item.split else 0 for item in items], np.uint8)
    pool = np.flatnonzero(codes == 0)
    val = 0.0 if "val" in has else split.val_share(settings.val_fraction, len(pool))
    test = 0.0 if "test" in has else settings.test_fraction
    if not len(pool) or not (val or test):
        return codes, None
    codes[pool] = split.assign(
        np.array([items[i].label for i in pool], np.int64),
        [items[i].origin for i in pool],
        seed=settings.seed,
        val_fraction=val,
        test_fraction=test,
    )
    return codes, split.rule(settings.seed, val, test)


# Building.


def _build(folder: Path, plan: _Plan, report: Report) -> dict[str, Any]:
    """Decode into ``folder``, whole or not at all. Where another process builds the same, wait and take
    its."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock"), lambda: report(Progress("wait", 0, 0, "images"))):
            if (meta := _read(folder)) is not None:
                return meta
            _remove_leftovers(folder)
            _require_space(folder.parent, plan)
            with paths.folder_whole(folder) as new:
                meta = _decode_into(new, plan, report)
            _remove_older(folder, meta["family"])
            return meta
    except OSError as error:
        raise DataError(
            f"The decoded pictures can't be kept in {folder.parent}: {error.strerror or error}.",
            "Make room there, or set TENFOLD_CACHE to a folder on another disk.",
        ) from None


def _decode_into(new: Path, plan: _Plan, report: Report) -> dict[str, Any]:
    items, geometry = plan.items, plan.geometry
    n, stride = len(items), geometry.height * geometry.width * 3
    pixels, digests = new / _PIXELS, new / _DIGESTS
    for path, size in ((pixels, n * stride), (digests, n * DIGEST)):
        with path.open("wb") as file:
            file.truncate(size)
    report(Progress("decode", 0, n, "images"))
    reply = crew.decode_all(
        Job(str(pixels), str(digests), geometry),
        [item.path for item in items],
        sum(item.size for item in items),
        lambda done: report(Progress("decode", done, n, "images")),
    )
    skipped = dict(reply.skipped)
    _require_readable(plan, skipped)
    kept = np.array([i for i in range(n) if i not in skipped], np.int64)
    if skipped:
        _close_gaps(pixels, kept, stride)
        _close_gaps(digests, kept, DIGEST)
    labels = np.array([items[i].label for i in kept], np.int64)
    meta = {
        "format": FORMAT,
        "count": len(kept),
        "height": geometry.height,
        "width": geometry.width,
        "fingerprint": fingerprint(
            np.fromfile(digests, np.uint8).reshape(-1, DIGEST),
            labels,
            plan.listing.classes,
            geometry.height,
            geometry.width,
        ),
        "skipped": reply.skipped,
        "reshaped": reply.reshaped,
        "source": printable(plan.listing.source),
        "family": plan.family(),
    }
    digests.unlink()
    (new / _META).write_text(json.dumps(meta), encoding="utf-8")
    return meta


def _require_readable(plan: _Plan, skipped: dict[int, str]) -> None:
    listed = [f"{plan.items[i].origin}: {reason}" for i, reason in skipped.items()]
    n = len(plan.items)
    if len(skipped) * 2 > n:
        raise DataError(
            f"{plan.listing.source}: {len(skipped):,} of {n:,} pictures can't be read, more than half. {listed[0]}",
            "tenfold check lists them all.",
        )
    labels = np.array([item.label for item in plan.items])
    train = (plan.codes == 0) & ~np.isin(np.arange(n), list(skipped))
    if train.any() and (lost := set(range(len(plan.listing.classes))) - set(labels[train].tolist())):
        names = several(plan.listing.classes[label] for label in sorted(lost))
        raise DataError(f"{plan.listing.source}: no readable picture is left to train on of {names}.")


def _close_gaps(path: Path, kept: np.ndarray, stride: int) -> None:
    """Move the rows that are kept to the front, in order, and cut the file after them."""
    with path.open("r+b") as file:
        for start, i in enumerate(kept.tolist()):
            if i != start:
                file.seek(i * stride)
                row = file.read(stride)
                file.seek(start * stride)
                file.write(row)
        file.truncate(len(kept) * stride)


def _require_space(folder: Path, plan: _Plan) -> None:
    needed = len(plan.items) * (plan.geometry.height * plan.geometry.width * 3 + DIGEST)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"The decoded pictures take {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB left.",
            "Make room there, set TENFOLD_CACHE to a folder on another disk, or choose a smaller data.size.",
        )


def _remove_leftovers(folder: Path) -> None:
    """What killed builds of this very cache left behind; we hold its lock, so none is alive."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _remove_older(folder: Path, family: str) -> None:
    """Caches of an earlier state of the same source. A process that still maps one keeps its pages."""
    for other in folder.parent.iterdir():
        if other != folder and not other.name.startswith(".") and other.is_dir():
            meta = _read(other)
            if meta is not None and meta["family"] == family:
                shutil.rmtree(other, ignore_errors=True)
                other.with_name(f"{other.name}.lock").unlink(missing_ok=True)


# Reading.


def _read(folder: Path) -> dict[str, Any] | None:
    """The cache's meta.json; None where there is no cache, or not a whole one, which is then built anew."""
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        size = (folder / _PIXELS).stat().st_size
        whole = meta["format"] == FORMAT and size == meta["count"] * meta["height"] * meta["width"] * 3
        known = {"skipped", "reshaped", "fingerprint", "source", "family"} <= meta.keys()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return meta if whole and known else None


def _pixels(folder: Path, meta: dict[str, Any]) -> np.ndarray:
    shape = (meta["count"], meta["height"], meta["width"], 3)
    size = int(np.prod(shape))
    if size >= IN_MEMORY:
        return np.memmap(folder / _PIXELS, np.uint8, "r", shape=shape)
    images = np.fromfile(folder / _PIXELS, np.uint8).reshape(shape)
    images.flags.writeable = False
    return images


def _dataset(plan: _Plan, folder: Path, meta: dict[str, Any], said: list[str]) -> Dataset:
    listing = plan.listing
    left_out = {int(i): str(reason) for i, reason in meta["skipped"]}
    kept = [i for i in range(len(plan.items)) if i not in left_out]
    images = _pixels(folder, meta)
    labels = np.array([plan.items[i].label for i in kept], np.int64)
    borders = np.searchsorted(plan.codes[kept], [0, 1, 2, 3])
    splits = {}
    for code, name in enumerate(SPLITS):
        rows = slice(int(borders[code]), int(borders[code + 1]))
        splits[name] = Split(images[rows], labels[rows], [plan.items[i].origin for i in kept[rows]])
    decoded = tuple(Skipped(plan.items[i].origin, reason) for i, reason in left_out.items())
    mirror = not letters_or_digits(listing.classes)
    return Dataset(
        name=listing.name,
        source=listing.source,
        classes=listing.classes,
        splits=splits,
        geometry=plan.geometry,
        mirror=mirror,
        fingerprint=meta["fingerprint"],
        split_rule=plan.rule,
        skipped=(*listing.skipped, *decoded),
        notes=(*listing.notes, *said, *_notes(plan, meta, mirror, len(listing.skipped) + len(decoded))),
    )


def _notes(plan: _Plan, meta: dict[str, Any], mirror: bool, skipped: int) -> Iterator[str]:
    height, width, n = meta["height"], meta["width"], meta["count"]
    if skipped:
        yield f"{skipped:,} files could not be used and were left out; the dataset lists each with its reason."
    if meta["reshaped"]:
        how = {
            "squash": "squashed; data.resize=crop or pad keeps their shape",
            "crop": "cut to it about the centre",
            "pad": "padded to it with the background",
        }[plan.geometry.resize]
        yield f"{meta['reshaped']:,} of {n:,} pictures are not of the shape {height}×{width} and were {how}."
    if not mirror:
        yield "The classes are single letters or digits, so pictures are not mirrored in training."
