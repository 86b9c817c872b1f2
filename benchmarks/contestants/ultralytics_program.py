"""CIFAR-10 by ultralytics' own classification trainer: YOLO11n-cls from its first weights, its own defaults, pictures
of 32×32. ultralytics is AGPL-3.0: tenfold neither ships nor imports it; this program stands alone, and whoever races it
installs it himself. Prints one JSON line at the end.
"""

import argparse
import csv
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def prepare(data: Path, pictures: Path, train_images: int) -> None:
    """PNG files in train/CLASS and test/CLASS, the form ultralytics reads."""
    import numpy as np
    from PIL import Image

    for split, count in (("train", train_images), ("test", 10_000)):
        done = pictures / f"{split}.{count}"
        if done.exists():
            continue
        images = np.load(data / f"{split}_images.npy")[:count]
        labels = np.load(data / f"{split}_labels.npy")[:count]
        for name in CLASSES:
            (pictures / split / name).mkdir(parents=True, exist_ok=True)
        for at, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(pictures / split / CLASSES[label] / f"{at:05d}.png")
        done.touch()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder with train/CLASS and test/CLASS")
    parser.add_argument("--data", type=Path, help="folder with train_images.npy …, for --prepare")
    parser.add_argument("--prepare", action="store_true", help="write the pictures and do no more")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--train-images", type=int, default=50_000, help="the first so many; fewer for a short look")
    parser.add_argument("--out", type=Path, default=Path())
    args = parser.parse_args()
    # a set of its own for a short look: one with fewer images must not be taken for the whole
    pictures = args.pictures.resolve() / str(args.train_images)
    if args.prepare:
        prepare(args.data, pictures, args.train_images)
        return

    import torch
    from ultralytics import YOLO

    started = time.perf_counter()
    model = YOLO("yolo11n-cls.yaml")
    model.train(
        data=str(pictures),
        epochs=args.epochs,
        imgsz=32,
        seed=args.seed,
        device=0 if args.device == "cuda" else "cpu",
        project=str(args.out.resolve()),
        name="ultralytics",
        exist_ok=True,
    )
    seconds = time.perf_counter() - started
    with (Path(model.trainer.save_dir) / "results.csv").open() as file:
        epochs = [{name.strip(): value for name, value in row.items()} for row in csv.DictReader(file)]
    accuracies = [float(row["metrics/accuracy_top1"]) for row in epochs]
    print(
        json.dumps(
            {
                "accuracy": accuracies[-1],
                "best_accuracy": max(accuracies),
                "seconds": {"train": round(seconds, 3)},
                "epochs": args.epochs,
                "device_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else None,
                "versions": {
                    "python": platform.python_version(),
                    "ultralytics": version("ultralytics"),
                    "torch": torch.__version__,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
