"""``compile: true``: what is refused, where its cache lies, and a tiny network compiled on the CPU."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold import recipe as recipes  # noqa: E402
from tenfold.architecture import weights, zoo  # noqa: E402
from tenfold.data.dataset import Dataset  # noqa: E402
from tenfold.engines import base  # noqa: E402
from tenfold.engines.base import Device, Job  # noqa: E402
from tenfold.engines.torch import compiled  # noqa: E402
from tenfold.errors import TrainingError, UnsupportedError  # noqa: E402
from tenfold.recipe import Model, Recipe  # noqa: E402

TINY = Recipe(
    model=Model(name="cnn", widths=(4,), dropout=0.0), batch_size=64, epochs=0.5, precision="fp32", compile=True
)


def job(recipe: Recipe, dataset: Dataset) -> Job:
    architecture = zoo.build(recipe.model, 16, 16, len(dataset.classes))
    first = weights.initial(architecture, 0, dataset["train"].images)
    return Job(architecture, recipe, first, dataset, base.load("torch").device("cpu"))


def test_without_a_compiler_it_is_refused_with_a_way_out(squares: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    task = job(TINY, squares)
    with pytest.raises(UnsupportedError, match=r"C\+\+ compiler") as caught:
        base.load("torch").check(task.architecture, task.recipe, task.device)
    assert "--set compile=false" in str(caught.value.hint)


def test_without_triton_it_is_refused_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else find(name))
    with pytest.raises(UnsupportedError, match="triton"):
        compiled.check(Device("cuda:0", "a card"))
    with pytest.raises(UnsupportedError, match="mps"):
        compiled.check(Device("mps", "Apple GPU"))


def test_what_the_compiler_cannot_do_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def broken(net: object, **more: object) -> object:
        def call(x: object) -> None:
            raise TorchDynamoException("\nno kernel for this\nand two hundred lines more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(TrainingError, match="could not compile the network: no kernel for this"):
        compiled.Compiled(torch.nn.Linear(2, 2))(torch.zeros(1, 2))


def test_the_cache_is_kept_in_tenfold_s_folder_unless_the_user_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compiled.Compiled(torch.nn.Linear(2, 2))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(Path(os.environ["TENFOLD_CACHE"]) / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/of/the/user")
    compiled.Compiled(torch.nn.Linear(2, 2))
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/of/the/user"


@pytest.mark.slow
@pytest.mark.skipif(compiled._compiler() is None, reason="no C++ compiler here")
def test_a_compiled_network_trains_to_the_same_weights(
    squares: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    task = job(TINY, squares)
    engine = base.load("torch")
    made = engine.fit(task)
    plain = engine.fit(job(recipes.override(TINY, {"compile": False}), squares))
    assert any((tmp_path / "inductor").rglob("*.so"))
    for name, value in plain.weights.items():
        assert np.abs(made.weights[name] - value).max() < 1e-3, name
