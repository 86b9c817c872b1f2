"""Another library's network is refused by name, before a framework or any data is read."""

from __future__ import annotations

import importlib.util
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from tenfold import recipe as recipes
from tenfold.architecture import zoo
from tenfold.architecture.layers import Architecture, External, Normalize
from tenfold.engines import base, external
from tenfold.errors import CallError, MissingExtraError, RecipeError, UnknownNameError, UnsupportedError
from tenfold.recipe import Recipe

LIBRARIES = {"torch": ("timm",), "tensorflow": ("keras",), "opencl": ()}


def asked(**changes: Any) -> Recipe:
    return recipes.override(recipes.load("finetune"), {k.replace("__", "."): v for k, v in changes.items()})


def test_what_fits_is_let_through() -> None:
    external.check(asked(model__name="timm:resnet18"), "torch", LIBRARIES)
    external.check(asked(model__name="keras:ResNet50"), "tensorflow", LIBRARIES)
    external.check(recipes.load("quick"), "opencl", LIBRARIES)


@pytest.mark.parametrize(
    ("engine", "changes", "error", "says"),
    [
        ("opencl", {}, UnsupportedError, "model.name=timm:resnet18 needs the torch engine, not opencl.*--engine torch"),
        ("torch", {"model__name": "keras:ResNet50"}, UnsupportedError, "keras:ResNet50 needs the tensorflow engine"),
        ("torch", {"model__name": "tim:resnet18"}, UnknownNameError, "Did you mean timm"),
        ("torch", {"model__name": ":resnet18"}, UnknownNameError, "No library"),
        ("torch", {"model__widths": [8]}, RecipeError, "model.widths is not a setting.*--recipe finetune"),
        ("torch", {"model__batchnorm_momentum": 0.6}, RecipeError, "model.batchnorm_momentum"),
        ("torch", {"optimizer__name": "muon"}, UnsupportedError, "optimizer.name=muon is for tenfold's own"),
        ("torch", {"virtual_batch_size": 8}, UnsupportedError, "virtual_batch_size=null"),
    ],
)
def test_what_does_not_is_refused_by_name(
    engine: str, changes: dict[str, Any], error: type[CallError], says: str
) -> None:
    with pytest.raises(error) as caught:
        external.check(asked(**changes), engine, LIBRARIES)
    import re

    assert re.search(says, str(caught.value)), str(caught.value)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[timm\]'"):
        base.check_network(asked(), "torch")


def test_only_safetensors_are_taken_for_weights(tmp_path: Path) -> None:
    import numpy as np

    pickled, archive, sound = tmp_path / "a.bin", tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    pickled.write_bytes(pickle.dumps({"fc.weight": [1.0]}))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", b"")
    save_file({"fc.weight": np.ones(3, np.float32)}, sound)
    for path, says in ((pickled, "a pickle"), (archive, "a zip archive"), (tmp_path / "none", "No such file")):
        with pytest.raises(CallError, match=says):
            external.check(asked(model__pretrained_file=str(path)), "torch", LIBRARIES)
    external.check(asked(model__pretrained_file=str(sound)), "torch", LIBRARIES)


def test_pretrained_weights_are_not_of_tenfold_s_own_networks() -> None:
    with pytest.raises(RecipeError, match="no pretrained weights for the network resnet18"):
        zoo.build(recipes.Model(name="resnet18", pretrained=True), 32, 32, 10)


def test_what_differs_from_tenfold_s_pixels_is_said() -> None:
    assert external.Pixels(224).differs() is None
    assert external.Pixels(224, "bicubic").differs() is None  # the geometry has it
    assert external.Pixels(224, "lanczos", 0.875).differs() == (
        "resized by lanczos interpolation (here: bilinear) and cut to the middle 87.5 % (here: whole)"
    )


class Bare(base.Engine):
    """An engine that has nothing beyond the contract."""

    name = "bare"

    def versions(self) -> dict[str, str]:
        return {}

    def devices(self) -> list[base.Device]:
        return [base.Device("cpu", "a processor")]

    def check(self, architecture: Architecture, recipe: Recipe, device: base.Device) -> None:
        pass

    def fit(self, job: base.Job) -> base.FitResult:
        raise NotImplementedError

    def logits(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError


def test_an_engine_refuses_what_it_does_not_say_it_has() -> None:
    engine = Bare()
    with pytest.raises(UnsupportedError, match="The bare engine has no networks of timm"):
        engine.library("timm")
    network = Architecture("x", 8, 8, 3, (Normalize(), External("timm", "x", 3, weights=(("w", (1,), "trained"),))))
    with pytest.raises(UnsupportedError, match="The network x needs an engine that has the networks of timm"):
        base.check(engine, network, asked(finetune=None), engine.device("cpu"))
    with pytest.raises(UnsupportedError, match="finetune is not available with the bare engine"):
        base.check(engine, network, asked(), engine.device("cpu"))
    own = zoo.build(recipes.Model(name="resnet18"), 32, 32, 3)
    base.check(engine, own, asked(finetune=None), engine.device("cpu"))
