"""Started twice by torchrun (see test_distributed.py): two processes beside one, as JSON in $FOUND."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from conftest import blobs

from tenfold import distributed, networks
from tenfold import recipe as recipes
from tenfold.architecture import weights
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.distributed import Peers
from tenfold.engines import base
from tenfold.engines.base import Job, Notice
from tenfold.engines.schedule import plan
from tenfold.engines.torch import build, sync_norm
from tenfold.engines.torch.distributed import Group
from tenfold.engines.torch.stepper import Stepper
from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe

CLASSES = ("a", "b", "c", "d")
SPRINT = {"name": "sprint", "widths": (4, 8)}
CNN = {"name": "cnn", "widths": (4, 8), "dropout": 0.3, "activation": "silu"}
ALL = {"flip": "random", "translate": 2, "rotate": 10.0, "color_jitter": 0.2, "cutout": 3}
CASES: dict[str, dict[str, Any]] = {
    "dropout, mixup, class weights": {
        "model": CNN, "augment": ALL, "augment.mixup": 1.0, "label_smoothing": 0.1, "class_weights": "balanced",
    },
    "cutmix": {"augment.cutmix": 1.0},
    "streamed": {"augment.flip": "alternating"},
    "streamed, mixup": {"augment.mixup": 1.0},
    "a batch that is not even": {"batch_size": 61},
    "whole parts": {"virtual_batch_size": 16, "augment": ALL, "augment.mixup": 1.0},
    "two parts": {"virtual_batch_size": 32, "augment": ALL, "model": CNN},  # each shared where there are four processes
    "a resting body": {"finetune": {"frozen_epochs": 1.0}},
    "statistics of its own": {"sync_batch_norm": False},
}  # fmt: skip


def stepper(changes: dict[str, Any], peers: Peers, folder: Path, streamed: bool = False, **more: Any) -> Stepper:
    recipe = recipes.override(Recipe(model=SPRINT, batch_size=64, precision="fp32"), changes)
    train = blobs(250)
    if streamed:
        path = folder / f"pixels{peers.rank}"
        train.images.tofile(path)
        train = Split(np.memmap(path, np.uint8, "r", shape=train.images.shape), train.labels, train.origins)
    splits = {"train": train, "val": blobs(7, seed=1), "test": blobs(4, seed=2)}
    data = Dataset("squares", "squares", CLASSES, splits, Geometry(16, 16), False, "0" * 64)
    engine = base.load("torch")
    architecture = networks.build(engine, recipe.model, 16, 16, 4)
    first = weights.initial(architecture, 0, blobs(250).images)
    job = Job(architecture, recipe, first, data, engine.device("cpu"), peers=peers, **more)
    return Stepper(job, "fp32", plan(recipe, len(train)))


def step(one: Stepper) -> dict[str, Any]:
    gradients: dict[str, np.ndarray] = {}

    def update() -> None:
        gradients.update({n: t.grad.numpy().copy() for n, t in one.tensors.items() if t.grad is not None})

    one.optimizers.update = update  # type: ignore[method-assign]
    one.take(0, 0.0)
    loss, right = one.sums()
    statistics = {n: t.numpy().copy() for n, t in one.tensors.items() if n.endswith(("mean", "variance"))}
    logits = one.logits(one.job.dataset["val"].images)
    one.close()
    return {"loss": loss, "right": right, "gradients": gradients, "statistics": statistics, "logits": logits}


def differences(name: str, peers: Peers, folder: Path) -> dict[str, float]:
    streamed = name.startswith("streamed")
    one, two = (step(stepper(CASES[name], p, folder, streamed)) for p in (Peers(), peers))
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


def torch_norms(group: Group) -> float:
    """PyTorch's own batch norm over both processes beside one over all images, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(6, 5, 4, 4, generator=generator)
    back = torch.randn(6, 5, 4, 4, generator=generator)
    whole, mine = nn.BatchNorm2d(5, momentum=0.3), nn.BatchNorm2d(5, momentum=0.3)
    sync_norm.attach(mine, sync_norm.Sync(group.rows, range(group.size)))
    rows = slice(0, 2) if group.first else slice(group.rank + 1, group.rank + 2)  # not as many images in each
    if group.rank == group.size - 1:
        rows = slice(group.size, 6)
    all_x, own_x = x.clone().requires_grad_(), x[rows].clone().requires_grad_()
    expected, found = whole(all_x), mine(own_x)
    (expected * back).sum().backward()
    (found * back[rows]).sum().backward()
    assert own_x.grad is not None and all_x.grad is not None and mine.weight.grad is not None
    group.add_up(mine.weight.grad)
    pairs = [
        (found, expected[rows]),
        (own_x.grad, all_x.grad[rows]),
        (mine.weight.grad, whole.weight.grad),
        (mine.running_mean, whole.running_mean),
        (mine.running_var, whole.running_var),
    ]
    return max(float((a - b).detach().abs().max()) for a, b in pairs if a is not None and b is not None)


def short_of_memory(group: Group, folder: Path) -> dict[str, Any]:
    """The second process has room for 8 images at once; both must take the step in as many pieces."""
    notices: list[str] = []

    def report(event: Any) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    one = stepper({}, group, folder, report=report)
    one.limited = True
    before = build._Normalize.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if group.rank == 1 and self.training and len(x) > 16 / group.size:
            raise torch.OutOfMemoryError("no room")
        return before(self, x)

    build._Normalize.forward = forward  # type: ignore[method-assign]
    try:
        step(one)
    finally:
        build._Normalize.forward = before  # type: ignore[method-assign]
    return {"pieces": group._gathered(one.pieces), "notices": group._gathered(notices)}


def errors(group: Group) -> list[list[str]]:
    """What each process is told where the second alone fails, and where facts differ."""

    def fail() -> None:
        if group.rank == 1:
            raise TenfoldError("no disk.", "Buy one.")

    said = []
    for work in (lambda: group.together(fail), lambda: group.alike({"The speed": str(group.rank)})):
        try:
            work()
        except TenfoldError as error:
            said.append(str(error))
    other = stepper({}, Peers(), Path())
    with torch.no_grad():
        next(iter(other.tensors.values())).add_(group.rank)
    watch = stepper({}, group, Path()).parallel
    assert watch is not None
    watch.tensors = other.tensors
    try:
        watch.agree(0, 0.0, False)
    except TenfoldError as error:
        said.append(str(error))
    found: list[list[str]] = group._gathered(said)
    return found


def main() -> None:
    with distributed.joined("torch") as peers, tempfile.TemporaryDirectory() as folder:
        assert isinstance(peers, Group)
        found: dict[str, Any] = {"steps": {name: differences(name, peers, Path(folder)) for name in CASES}}
        found["norms"] = torch_norms(peers)
        found["memory"] = short_of_memory(peers, Path(folder))
        found["errors"] = errors(peers)
        found["most"] = [peers.most([0.25 * peers.rank, -1.0 * peers.rank]), peers.shared(peers.rank)]
        if peers.first:
            Path(os.environ["FOUND"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
