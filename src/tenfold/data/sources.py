"""From what the user names to a Dataset: a dataset's name, a folder, a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tenfold import paths
from tenfold.data import split
from tenfold.data.dataset import SPLITS, Dataset, Geometry, Split, square
from tenfold.data.fingerprint import fingerprint, image_digests
from tenfold.data.progress import Progress, Report, silent
from tenfold.errors import CallError, UnknownNameError

if TYPE_CHECKING:
    from tenfold import recipe
    from tenfold.data import cifar

NAMES = ("digits", "cifar10", "cifar100")

TABLES = (".csv", ".tsv")


def load_dataset(
    data: str | Path | Dataset = "digits",
    settings: recipe.Data | None = None,
    *,
    report: Callable[[Progress], None] | None = None,
) -> Dataset:
    """The dataset that ``data`` names, with the splits train, val and test (each possibly empty).

    data      ``digits``, ``cifar10``, ``cifar100``; a folder with train/ val/ test/ or with class folders; a
              CSV with the columns path, label and perhaps split; the folder or file of a CIFAR archive; or a
              Dataset, given back as it is
    settings  the recipe's ``data`` part: size, resize policy, background, and how missing splits are made
    report    told of the progress of downloads, reading and decoding

    Raises UnknownNameError for a name that isn't known, CallError for a path that doesn't exist, DataError
    for data that can't be used, DownloadError where an archive can't be had.
    """
    if isinstance(data, Dataset):
        return data
    if settings is None:
        from tenfold.recipe import Data

        settings = Data()
    report = report or silent
    name = str(data)
    if name == "digits":
        return _digits(settings)
    if name in NAMES:
        return _cifar_by_name(name, settings, report)
    return _from_path(name, settings, report)


def at_hand(data: str) -> bool:
    """False where ``data`` names a dataset that loading it would have to download first."""
    if data not in NAMES or data == "digits":
        return True
    from tenfold.data import cifar

    return cifar.find(cifar.VARIANTS[data], paths.data_folders()) is not None


def _from_path(name: str, settings: recipe.Data, report: Report) -> Dataset:
    path = Path(name).expanduser()
    if not path.exists():
        if _is_name(name):
            raise UnknownNameError("dataset", name, NAMES, where=", and no folder or file here is")
        raise CallError(f"{path} does not exist.", f"Give a folder, a CSV file or one of: {', '.join(NAMES)}.")
    from tenfold.data import cifar

    path = path.resolve()
    if known := cifar.recognize(path):
        return _cifar(*known, settings, report, source=str(path))
    if path.is_dir():
        from tenfold.data import folder

        return folder.load(path, settings, report)
    if path.suffix.lower() in TABLES:
        from tenfold.data import table

        return table.load(path, settings, report)
    raise CallError(
        f"{path} is not a dataset.",
        "A dataset is a folder of pictures or a CSV file with the columns path and label; "
        "to classify one picture use tenfold predict.",
    )


def _is_name(text: str) -> bool:
    """Whether what doesn't exist was meant as a name rather than as a path."""
    separators = {os.sep, os.altsep, "/"} - {None}
    return not any(s in text for s in separators if s) and not text.startswith(("~", ".")) and not Path(text).suffix


def _digits(settings: recipe.Data) -> Dataset:
    from tenfold.data import builtin

    pixels, labels = builtin.digits()
    size = builtin.AUTO_SIZE if settings.size == "auto" else settings.size
    geometry = square(size, settings)
    images = _resized(pixels, geometry)
    origins = [f"digits/{i}" for i in range(len(labels))]
    val = split.val_share(settings.val_fraction, len(labels))
    codes = split.assign(
        labels,
        origins,
        seed=settings.seed,
        val_fraction=val,
        test_fraction=settings.test_fraction,
    )
    classes = tuple(str(digit) for digit in range(10))
    return Dataset(
        name="digits",
        source="digits",
        classes=classes,
        splits={
            name: _part(images, labels, origins, np.flatnonzero(codes == code)) for code, name in enumerate(SPLITS)
        },
        geometry=geometry,
        mirror=False,
        fingerprint=fingerprint(image_digests(images), labels, classes, size, size),
        split_rule=split.rule(settings.seed, val, settings.test_fraction),
    )


def _part(images: np.ndarray, labels: np.ndarray, origins: list[str], rows: np.ndarray) -> Split:
    part = images[rows]
    part.flags.writeable = False
    return Split(part, labels[rows], [origins[i] for i in rows])


def _resized(images: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Archive pictures at another size than their own; over the threads, since Pillow lets the others run."""
    if images.shape[1:3] == (geometry.height, geometry.width):
        return images
    from concurrent.futures import ThreadPoolExecutor

    from tenfold.data.decode import resize

    out = np.empty((len(images), geometry.height, geometry.width, 3), np.uint8)

    def work(start: int) -> None:
        for i in range(start, min(start + 256, len(images))):
            out[i] = resize(images[i], geometry)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(work, range(0, len(images), 256)))
    return out


def _cifar_by_name(name: str, settings: recipe.Data, report: Report) -> Dataset:
    from tenfold.data import cifar

    variant = cifar.VARIANTS[name]
    found = cifar.find(variant, paths.data_folders())
    if found is None:
        from tenfold.data import download

        found = download.archive(variant, paths.cache_folder() / "data", report)
    return _cifar(variant, found, settings, report, source=name)


def _cifar(
    variant: cifar.Variant, found: cifar.Found, settings: recipe.Data, report: Report, *, source: str
) -> Dataset:
    from tenfold.data import cifar

    def val_of(labels: np.ndarray) -> np.ndarray:
        origins = [f"train/{i}" for i in range(len(labels))]
        share = split.val_share(settings.val_fraction, len(labels))
        codes = split.assign(labels, origins, seed=settings.seed, val_fraction=share, test_fraction=0)
        return np.asarray(codes == SPLITS.index("val"))

    pictures = cifar.load(variant, found, val_of, report)
    val = split.val_share(settings.val_fraction, pictures.sizes[0] + pictures.sizes[1])
    size = cifar.SIDE if settings.size == "auto" else settings.size
    geometry = square(size, settings)
    images, digests = _resized(pictures.images, geometry), pictures.digests
    if images is not pictures.images:
        digests = image_digests(images)
    images.flags.writeable = False
    splits = {}
    start = 0
    for split_name, n in zip(SPLITS, pictures.sizes, strict=True):
        rows = slice(start, start + n)
        part = "test" if split_name == "test" else "train"
        origins = [f"{part}/{i}" for i in pictures.indices[rows].tolist()]
        splits[split_name] = Split(images[rows], pictures.labels[rows], origins)
        start += n
    return Dataset(
        name=variant.name,
        source=source,
        classes=pictures.classes,
        splits=splits,
        geometry=geometry,
        fingerprint=fingerprint(digests, pictures.labels, pictures.classes, size, size),
        split_rule=split.rule(settings.seed, val, 0) if val else None,
    )
