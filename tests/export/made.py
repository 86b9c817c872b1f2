"""Exports a bundle to some formats and opens each again: what came of it, as one line of JSON. A process of its own for
the frameworks that don't get on in one, each of which is imported once that way.

python made.py BUNDLE PICTURES.npz OUT FORMAT,FORMAT…
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tenfold
from tenfold import children
from tenfold.bundle import store
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.errors import CallError
from tenfold.export import artifact, job, worker

COUNTS = (0, 1, 700)  # any number of images, whatever it was asked for before


def main(bundle: str, pictures: str, out: str, names: str) -> None:
    found = np.load(pictures)
    splits = {
        s: Split(found[s], found[f"{s}_labels"], [f"{s}/{i}" for i in range(len(found[s]))]) for s in ("train", "val")
    }
    data = Dataset("squares", "squares", tuple(f"class {i}" for i in range(4)), splits, Geometry(16, 16))
    children.outcome = lambda module, line, log, result: worker.done(worker.Job(**json.loads(line)))
    made = job.export_model(bundle, names.split(","), out=out, data=data).to_dict()
    for result in made["results"]:
        result["opened"] = opened(Path(out) / result["format"], bundle, data) if result["path"] else None
    print("\n" + json.dumps(made["results"]))


def opened(folder: Path, bundle: str, data: Dataset) -> dict[str, Any]:
    """What the artifact says and answers, and how it refuses images of another size."""
    model, images = tenfold.load(folder), store.open(bundle).golden()[0]
    one = model.probabilities(images[:1])
    shapes, off = [], []
    for count in COUNTS:
        answer = model.probabilities(np.repeat(images[:1], count, 0))
        shapes.append([str(answer.dtype), *answer.shape])
        off.append(float(np.abs(answer - np.repeat(one, count, 0)).max(initial=0)))
    try:
        model.probabilities(np.zeros((2, 8, 8, 3), np.uint8))
        refused = ""
    except CallError as error:
        refused = str(error)
    measured = tenfold.evaluate(folder, data=data, split="val")
    return {
        "name": model.name,
        "classes": list(model.classes),
        "geometry": [model.geometry.height, model.geometry.width, model.geometry.resize],
        "threshold": model.threshold,
        "temperature": artifact.open(folder).said.temperature,
        "manifest": model.manifest == store.open(bundle).manifest,
        "notes": list(model.notes),
        "golden": model.probabilities(images).tolist(),
        "shapes": shapes,
        "off": off,
        "refused": refused,
        "evaluated": [measured.n, measured.accuracy],
        "label": tenfold.load(folder, quick=True).predict(data["val"].images[0]).label,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
