"""Write CIFAR-10 as four .npy files, which every program here reads: ``python cifar_arrays.py FOLDER``.

tenfold finds or downloads the data; what this takes is not counted for anybody.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tenfold import recipe
from tenfold.data.sources import load_dataset
from tenfold.errors import DataError


def main(folder: Path) -> None:
    try:
        dataset = load_dataset("cifar10", recipe.Data(val_fraction=0.0))
    except DataError as error:
        raise SystemExit(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 50_000), ("test", 10_000)):
        part = dataset[split]
        if part.images.shape != (count, 32, 32, 3):
            raise SystemExit(f"CIFAR-10's {split} images are {part.images.shape}, not {count} of 32×32×3.")
        for name, array in (("labels", part.labels), ("images", part.images)):
            # the images last and by a rename: where they are, all is there
            partial = folder / f"{split}_{name}.part.npy"
            np.save(partial, array)
            partial.replace(folder / f"{split}_{name}.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
