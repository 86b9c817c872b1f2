"""JPEGs to measure reading with: 500×375, quality 85 to 90, with the detail of photos; the same pixels every time.

A picture is a blend of mosaics of CIFAR-10 photos (1, 12 and 192 of them, each mosaic scaled to the whole picture)
and a little noise, as a camera's: large forms, edges and texture. Files have about 30 to 70 kB. Flat colour or pure
noise would not do: their files are much smaller or larger than a camera's, and decoding takes time by the byte.
Where CIFAR-10 is not found, tiles of random colour gradients stand for its photos.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

VERSION = 1
WIDTH, HEIGHT = 500, 375
CLASSES = 10
_ABOUT = "about.json"
_MOSAICS = ((1, 1), (3, 4), (12, 16))  # rows and columns of photos


def make(folder: Path, count: int) -> dict[str, object]:
    """``count`` JPEGs in class folders below ``folder``, made unless they are there. Gives what they are."""
    about_path = folder.with_name(f"{folder.name}-{_ABOUT}")
    tiles, source = _tiles()
    wanted = {"version": VERSION, "count": count, "width": WIDTH, "height": HEIGHT, "tiles": source}
    if about_path.exists():
        about: dict[str, object] = json.loads(about_path.read_text())
        if {key: about.get(key) for key in wanted} == wanted:
            return about
    if folder.exists():
        if not about_path.exists() and any(folder.iterdir()):
            raise SystemExit(f"{folder} holds other files; name a folder that is empty or does not exist.")
        shutil.rmtree(folder)
    sizes = []
    for i in range(count):
        data = photo(tiles, i)
        path = folder / f"class-{i % CLASSES}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sizes.append(len(data))
    about = {**wanted, "bytes": {"mean": round(float(np.mean(sizes))), "min": min(sizes), "max": max(sizes)}}
    about_path.write_text(json.dumps(about))
    return about


def photo(tiles: np.ndarray, number: int) -> bytes:
    """Picture ``number`` as JPEG, from uint8 N×32×32×3 ``tiles``."""
    rng = np.random.default_rng([VERSION, number])
    weights = np.array([rng.uniform(0.5, 0.65), rng.uniform(0.25, 0.4), rng.uniform(0.1, 0.25)], np.float32)
    blend = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for weight, (rows, columns) in zip(weights / weights.sum(), _MOSAICS, strict=True):
        blend += weight * _mosaic(tiles[rng.integers(0, len(tiles), rows * columns)], rows, columns)
    blend = (blend - 128) * 1.4 + 128  # blending has taken contrast away
    blend += rng.normal(0, rng.uniform(0, 5), (HEIGHT, WIDTH, 1)).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(blend.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(85, 91)))
    return file.getvalue()


def _mosaic(tiles: np.ndarray, rows: int, columns: int) -> np.ndarray:
    whole = tiles.reshape(rows, columns, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(rows * 32, columns * 32, 3)
    return np.asarray(Image.fromarray(whole).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)


def _tiles() -> tuple[np.ndarray, str]:
    """Small photos, uint8 N×32×32×3, and where they are from."""
    for folder in os.environ.get("TENFOLD_DATA", "").split(os.pathsep):
        path = Path(folder or ".") / "cifar-10-batches-bin" / "data_batch_1.bin"
        if path.is_file():
            rows = np.fromfile(path, np.uint8).reshape(-1, 3073)
            return np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), "CIFAR-10"
    return _gradients(), "gradients"


def _gradients() -> np.ndarray:
    rng = np.random.default_rng(VERSION)
    coarse = rng.integers(0, 256, (2000, 5, 5, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse])
