"""The CUDA path against the CPU one. Run by ``benchmarks/gpu/check.sh`` first of all."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold import recipe as recipes  # noqa: E402
from tenfold.architecture import weights, zoo  # noqa: E402
from tenfold.data.dataset import Dataset  # noqa: E402
from tenfold.engines import base  # noqa: E402
from tenfold.engines.base import FitResult, Job, Notice, State  # noqa: E402
from tenfold.recipe import Model, Recipe  # noqa: E402

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

PLAIN = Recipe(
    model=Model(name="sprint", widths=(16, 32)),
    batch_size=32,
    epochs=3,
    precision="fp32",
    checkpoint=recipes.Checkpoint(seconds=0),
)


class Memory:
    def __init__(self) -> None:
        self.states: list[State] = []

    def save(self, state: State) -> None:
        self.states.append(state)


def fit(recipe: Recipe, dataset: Dataset, device: str, **more: Any) -> FitResult:
    engine = base.load("torch")
    architecture = zoo.build(recipe.model, 16, 16, len(dataset.classes))
    first = weights.initial(architecture, recipe.seed, dataset["train"].images)
    return engine.fit(Job(architecture, recipe, first, dataset, engine.device(device), **more))


@pytest.mark.parametrize("network", ["cnn", "sprint", "resnet18"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 6e-2), ("fp16", 1e-2)])
def test_same_logits_as_on_the_cpu(squares: Dataset, network: str, precision: str, tolerance: float) -> None:
    engine = base.load("torch")
    architecture = zoo.build(Model(name=network, widths=(8, 16)), 16, 16, 4)
    first = weights.initial(architecture, 0, squares["train"].images)
    images = squares["test"].images
    cpu = engine.logits(architecture, first, images, engine.device("cpu"))
    card = engine.logits(architecture, first, images, engine.device("cuda"), precision=precision)
    assert np.abs(card - cpu).max() <= tolerance * max(1.0, np.abs(cpu).max())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2)])
def test_same_first_step_as_on_the_cpu(squares: Dataset, optimizer: str, precision: str, tolerance: float) -> None:
    changes = {"optimizer": {"name": optimizer, "lr": 0.01}, "batch_size": 256, "epochs": 1}
    recipe = recipes.override(PLAIN, changes)
    cpu = fit(recipe, squares, "cpu")
    card = fit(recipes.override(recipe, {"precision": precision}), squares, "cuda")
    assert card.steps == cpu.steps == 1
    assert card.history[0].loss == pytest.approx(cpu.history[0].loss, rel=tolerance)
    if optimizer == "sgd":  # Adam's first step is the sign of a gradient, which rounding can turn
        for name, value in cpu.weights.items():
            assert np.abs(card.weights[name] - value).max() <= tolerance * max(1.0, np.abs(value).max()), name


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_resumed_equals_unbroken_bit_for_bit(squares: Dataset, optimizer: str, precision: str) -> None:
    recipe = recipes.override(
        PLAIN,
        {
            "precision": precision,
            "optimizer": {"name": optimizer, "lr": 0.01},
            "augment": {"flip": "random", "translate": 2},
            "low_res": {"size": 12, "until": 0.5},
        },
    )
    memory = Memory()
    whole = fit(recipe, squares, "cuda", checkpoints=memory)
    for state in memory.states[:: max(1, len(memory.states) // 4)]:
        resumed = fit(recipe, squares, "cuda", resume=state)
        assert all(np.array_equal(resumed.weights[n], whole.weights[n]) for n in whole.weights)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mixed_precision_learns_without_nan(squares: Dataset, precision: str) -> None:
    recipe = recipes.override(recipes.load("sprint"), {"precision": precision, "batch_size": 32, "epochs": 10})
    recipe = recipes.override(recipe, {"model.widths": [16, 32], "augment.flip": "none", "min_steps": 0})
    result = fit(recipe, squares, "cuda")
    assert all(np.isfinite(w).all() for w in result.weights.values())
    assert (result.history[-1].val_accuracy or 0) > 0.9


def test_out_of_memory_halves_the_batch_and_goes_on(squares: Dataset) -> None:
    recipe = recipes.override(PLAIN, {"model": {"name": "resnet18"}, "batch_size": 256, "epochs": 2})
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    notices: list[str] = []
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 480 * 2**20) / total)
    try:
        result = fit(
            recipe,
            squares,
            "cuda",
            report=lambda e: notices.append(e.message) if isinstance(e, Notice) else None,
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert result.steps == 2
    assert any("Out of memory" in n for n in notices)


# ---- steps captured as CUDA graphs ---------------------------------------------------------------------------------

CAPTURED: dict[str, dict[str, Any]] = {
    "muon, smaller pictures first": {
        "optimizer": {"name": "muon", "lr": 1.0, "weight_decay": 0.01, "whiten_bias_epochs": 1},
        "augment": {"flip": "alternating", "translate": 2, "cutout": 4},
        "low_res": {"size": 12, "until": 0.5},
        "schedule.name": "linear",
    },
    "adamw, average, dropout": {
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
        "augment": {"flip": "random", "translate": 1},
        "model.dropout": 0.2,
        "ema": 0.9,
    },
    "sgd, mixup": {
        "optimizer": {"name": "sgd", "lr": 0.05},
        "augment": {"mixup": 0.3, "rotate": 10.0, "color_jitter": 0.2},
    },
    "sgd, statistics by parts": {"optimizer": {"name": "sgd", "lr": 0.05}, "virtual_batch_size": 8},
    "adam, cutmix": {"optimizer": {"name": "adam", "lr": 0.01}, "augment": {"cutmix": 1.0}},
}


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts captures."""
    from tenfold.engines.torch import graphs

    made: list[int] = []
    capture = graphs.Cuda.capture

    def counted(self: Any, work: Any) -> Any:
        launch = capture(self, work)
        made.append(1)
        return launch

    monkeypatch.setattr(graphs.Cuda, "capture", counted)
    return made


def same(a: FitResult, b: FitResult) -> bool:
    return all(np.array_equal(a.weights[n], b.weights[n]) for n in a.weights)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", CAPTURED.values(), ids=CAPTURED.keys())
def test_captured_steps_equal_uncaptured_ones_bit_for_bit(
    squares: Dataset, changes: dict[str, Any], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = spied(monkeypatch)
    notices: list[str] = []
    recipe = recipes.override(PLAIN, {**changes, "precision": precision})
    plain = fit(recipes.override(recipe, {"cuda_graphs": False}), squares, "cuda")
    assert not captures
    captured = fit(
        recipe, squares, "cuda", report=lambda e: notices.append(e.message) if isinstance(e, Notice) else None
    )
    assert notices == []
    assert len(captures) == (2 if recipe.low_res else 1)
    assert same(captured, plain)
    assert [e.loss for e in captured.history] == [e.loss for e in plain.history]


@pytest.mark.parametrize("name", [name for name in recipes.presets() if name != "finetune"])
def test_every_preset_is_captured(squares: Dataset, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    captures = spied(monkeypatch)
    recipe = recipes.override(recipes.load(name), {"batch_size": 32, "epochs": 2, "min_steps": 0, "precision": "bf16"})
    recipe = recipes.override(recipe, {"low_res": None})
    captured = fit(recipe, squares, "cuda")
    assert captures
    assert same(captured, fit(recipes.override(recipe, {"cuda_graphs": False}), squares, "cuda"))


def test_streamed_pictures_are_captured(squares: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold.engines.torch import feed

    recipe = recipes.override(PLAIN, CAPTURED["muon, smaller pictures first"])
    whole = fit(recipe, squares, "cuda")
    monkeypatch.setattr(feed, "_fits", lambda size, device: False)
    captures = spied(monkeypatch)
    assert same(fit(recipe, squares, "cuda"), whole)
    assert len(captures) == 2


def test_fp16_says_that_it_is_not_captured(squares: Dataset) -> None:
    notices: list[str] = []
    recipe = recipes.override(PLAIN, {"precision": "fp16", "epochs": 1})
    fit(recipe, squares, "cuda", report=lambda e: notices.append(e.message) if isinstance(e, Notice) else None)
    assert any("loss scale" in n for n in notices)


def test_a_broken_capture_is_said_and_leaves_the_device_usable(
    squares: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host asks for a value in the middle of a capture, which no capture allows."""
    from tenfold.engines.torch.stepper import Stepper

    before = Stepper._average

    def asks(self: Any) -> None:
        if torch.cuda.is_current_stream_capturing():
            self.sums.sum().item()
        before(self)

    recipe = recipes.override(PLAIN, {"augment": {"translate": 2, "flip": "random"}})
    plain = fit(recipe, squares, "cuda")
    notices: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "_average", asks)
        broken = fit(
            recipe, squares, "cuda", report=lambda e: notices.append(e.message) if isinstance(e, Notice) else None
        )
    assert len(notices) == 1 and "not as a CUDA graph" in notices[0]
    assert same(broken, plain)
    torch.cuda.empty_cache()
    assert torch.rand(4, device="cuda").isfinite().all()
    assert same(fit(recipe, squares, "cuda"), plain)


def test_a_time_limit_is_kept_though_launches_run_ahead(squares: Dataset) -> None:
    recipe = recipes.override(PLAIN, {"epochs": 100_000, "time_limit": 2.0, "schedule.name": "linear"})
    result = fit(recipe, squares, "cuda")
    assert result.ended == "time_limit"
    assert result.seconds < 4


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_compiled_and_captured(squares: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    captures = spied(monkeypatch)
    recipe = recipes.override(PLAIN, {"compile": True, "optimizer": {"name": "sgd", "lr": 0.01}})
    compiled = fit(recipe, squares, "cuda")
    assert captures
    plain = fit(recipes.override(recipe, {"compile": False}), squares, "cuda")
    assert compiled.history[0].loss == pytest.approx(plain.history[0].loss, rel=1e-2)
