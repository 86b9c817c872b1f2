"""Started twice by torchrun (test_distributed.py): single steps of two processes beside those of one; prints JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from conftest import blobs

from tenfold import distributed, networks
from tenfold import recipe as recipes
from tenfold.architecture import weights
from tenfold.data.dataset import Dataset, Geometry
from tenfold.distributed import Peers
from tenfold.engines import base
from tenfold.engines.base import Job
from tenfold.engines.schedule import plan
from tenfold.engines.torch.stepper import Stepper
from tenfold.recipe import Recipe

ALL: dict[str, Any] = {
    "augment": {"flip": "random", "translate": 2, "rotate": 10.0, "cutout": 3, "color_jitter": 0.2},
    "label_smoothing": 0.1,
    "class_weights": "balanced",
}
CASES: dict[str, dict[str, Any]] = {
    "dropout, mixup, class weights": {
        "model": {"name": "cnn", "widths": (4, 8), "dropout": 0.3},
        **ALL,
        "augment.mixup": 1.0,
    },
    "cutmix": {"augment.cutmix": 1.0},
    "a batch that is not even": {"batch_size": 61},
    "whole parts": {"virtual_batch_size": 16, "augment": ALL["augment"], "augment.mixup": 1.0},
    "a shared part": {"virtual_batch_size": 64, "batch_size": 64, "augment": ALL["augment"]},
    "pieces": {"batch_size": 64, "pieces": 2, "model": {"name": "cnn", "widths": (4,), "dropout": 0.0}},
    "a resting body": {"finetune": {"frozen_epochs": 1.0}},
}


def dataset(streamed: bool = False) -> Dataset:
    train = blobs(250)
    return Dataset("squares", "squares", ("a", "b", "c", "d"), {"train": train, "val": blobs(7, seed=1), "test": blobs(4)},
                   Geometry(16, 16), False, "0" * 64)  # fmt: skip


def step(changes: dict[str, Any], peers: Peers) -> dict[str, Any]:
    changes = dict(changes)
    pieces = changes.pop("pieces", 1)
    recipe = recipes.override(
        Recipe(model={"name": "sprint", "widths": (4, 8)}, batch_size=64, precision="fp32"), changes
    )
    data, engine = dataset(), base.load("torch")
    architecture = networks.build(engine, recipe.model, 16, 16, 4)
    first = weights.initial(architecture, 0, data["train"].images)
    job = Job(architecture, recipe, first, data, engine.device("cpu"), peers=peers)
    one = Stepper(job, "fp32", plan(recipe, len(data["train"])))
    one.pieces = pieces
    gradients: dict[str, np.ndarray] = {}

    def update() -> None:
        gradients.update({n: t.grad.numpy().copy() for n, t in one.tensors.items() if t.grad is not None})

    one.optimizers.update = update  # type: ignore[method-assign]
    one.take(0, 0.0)
    loss, right = one.sums()
    statistics = {n: t.numpy().copy() for n, t in one.tensors.items() if n.endswith(("mean", "variance"))}
    found = {"loss": loss, "right": right, "gradients": gradients, "statistics": statistics}
    found["logits"] = one.logits(data["val"].images)
    one.close()
    return found


def differences(changes: dict[str, Any], peers: Peers) -> dict[str, float]:
    one, two = step(changes, Peers()), step(changes, peers)
    scale = max(float(np.abs(g).max()) for g in one["gradients"].values())

    def apart(name: str) -> float:
        assert one[name].keys() == two[name].keys()
        return max(float(np.abs(a - two[name][n]).max()) for n, a in one[name].items())

    return {
        "loss": abs(one["loss"] - two["loss"]) / abs(one["loss"]),
        "right": abs(one["right"] - two["right"]),
        "gradients": apart("gradients") / scale,
        "statistics": apart("statistics"),
        "logits": float(np.abs(one["logits"] - two["logits"]).max()),
    }


def main() -> None:
    with distributed.joined("torch") as peers:
        found = {name: differences(changes, peers) for name, changes in CASES.items()}
        if peers.first:
            Path(os.environ["FOUND"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
