"""What a CUDA graph needs of a step, shown on the CPU by a backend that records and repeats operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold import recipe as recipes  # noqa: E402
from tenfold.architecture import weights, zoo  # noqa: E402
from tenfold.data.dataset import Dataset  # noqa: E402
from tenfold.engines import base  # noqa: E402
from tenfold.engines.base import FitResult, Job, Notice, State  # noqa: E402
from tenfold.engines.schedule import Plan, plan  # noqa: E402
from tenfold.engines.torch import build, graphs, stepper  # noqa: E402
from tenfold.recipe import Model, Recipe  # noqa: E402

PLAIN = Recipe(model=Model(name="sprint", widths=(8, 16)), batch_size=32, epochs=3, precision="fp32")

# operations by which the host waits for the device or sends it numbers: none of them can be captured
WAITS = ("_local_scalar_dense", "lift_fresh", "nonzero", "is_nonzero", "masked_select", "equal.default", "unique")


class Memory:
    def __init__(self) -> None:
        self.states: list[State] = []

    def save(self, state: State) -> None:
        self.states.append(state)


def fit(recipe: Recipe, dataset: Dataset, backend: Any, monkeypatch: pytest.MonkeyPatch, **more: Any) -> FitResult:
    """Trains on the CPU, its steps taken through ``backend`` where there is one."""
    before = stepper.Stepper.__init__

    def init(self: Any, job: Job, precision: str, plan: Plan) -> None:
        before(self, job, precision, plan)
        if self.crew is not None:  # as on a card, which computes the parts of a batch together
            self.crew = None
            for norm in build.batch_norms(self.net):
                norm.groups = self.plan.parts
        if backend is not None and self.recipe.cuda_graphs:
            self.graphs = graphs.StepGraphs(backend)

    architecture = zoo.build(recipe.model, 16, 16, len(dataset.classes))
    first = weights.initial(architecture, recipe.seed, dataset["train"].images)
    with monkeypatch.context() as patch:
        patch.setattr(stepper.Stepper, "__init__", init)
        engine = base.load("torch")
        return engine.fit(Job(architecture, recipe, first, dataset, engine.device("cpu"), **more))


def same(a: FitResult, b: FitResult) -> bool:
    return all(np.array_equal(a.weights[n], b.weights[n]) for n in a.weights) and [
        (e.loss, e.accuracy, e.val_loss) for e in a.history
    ] == [(e.loss, e.accuracy, e.val_loss) for e in b.history]


CHANGES: dict[str, dict[str, Any]] = {
    "muon": {
        "optimizer": {"name": "muon", "lr": 1.0, "weight_decay": 0.01, "whiten_bias_epochs": 1},
        "augment": {"flip": "alternating", "translate": 2, "cutout": 4},
        "schedule.name": "linear",
        "label_smoothing": 0.2,
    },
    "adamw, average, smaller pictures first": {
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
        "augment": {"flip": "random", "translate": 1, "translate_fill": "zero"},
        "ema": 0.9,
        "low_res": {"size": 12, "until": 0.5},
    },
    "sgd, mixed": {
        "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0.01},
        "augment": {"mixup": 0.3, "rotate": 10.0, "color_jitter": 0.2},
        "model.dropout": 0.3,
        "class_weights": "balanced",
        "precision": "bf16",
    },
    "sgd, statistics by parts": {"optimizer": {"name": "sgd", "lr": 0.05}, "virtual_batch_size": 8},
    "adam, cutmix": {"optimizer": {"name": "adam", "lr": 0.01, "weight_decay": 0.01}, "augment": {"cutmix": 1.0}},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_captured_steps_equal_uncaptured_ones_bit_for_bit(
    squares: Dataset, changes: dict[str, Any], recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.override(PLAIN, changes)
    plain = fit(recipe, squares, None, monkeypatch)
    captured = fit(recipe, squares, recorder, monkeypatch)
    sizes = 2 if recipe.low_res else 1
    assert recorder.captures == sizes
    assert recorder.launches == 24 - sizes * graphs.WARM_UP
    assert same(captured, plain)


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_no_step_waits_for_the_device_or_sends_it_numbers(
    squares: Dataset, changes: dict[str, Any], recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(recipes.override(PLAIN, changes), squares, recorder, monkeypatch)
    assert recorder.operations
    assert [o for o in recorder.operations if any(w in o for w in WAITS)] == []


@pytest.mark.parametrize("name", [name for name in recipes.presets() if name != "finetune"])
def test_every_preset_s_step_can_be_captured(
    squares: Dataset, name: str, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.override(
        recipes.load(name), {"batch_size": 16, "epochs": 0.5, "min_steps": 8, "precision": "fp32"}
    )
    recipe = recipes.override(recipe, {"model.widths": [4, 8], "low_res": None})
    plain = fit(recipe, squares, None, monkeypatch)
    assert same(fit(recipe, squares, recorder, monkeypatch), plain)
    assert recorder.captures == 1
    assert [o for o in recorder.operations if any(w in o for w in WAITS)] == []


def test_a_run_resumed_at_any_step_equals_an_unbroken_one(
    squares: Dataset, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps taken uncaptured are others after a resume."""
    recipe = recipes.override(PLAIN, {**CHANGES["adamw, average, smaller pictures first"], "checkpoint.seconds": 0})
    memory = Memory()
    whole = fit(recipe, squares, recorder, monkeypatch, checkpoints=memory)
    for state in memory.states[2::5]:
        assert same(fit(recipe, squares, recorder, monkeypatch, resume=state), whole), state.meta["step"]


def test_streamed_pictures_are_captured_too(
    squares: Dataset, recorder: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    import dataclasses

    train = squares["train"]
    np.save(tmp_path / "x.npy", train.images)
    mapped = dataclasses.replace(train, images=np.load(tmp_path / "x.npy", mmap_mode="r"))
    streamed = dataclasses.replace(squares, splits={**squares.splits, "train": mapped})
    recipe = recipes.override(PLAIN, CHANGES["muon"])
    assert same(fit(recipe, streamed, recorder, monkeypatch), fit(recipe, squares, None, monkeypatch))
    assert recorder.launches == 21


def test_the_recipe_decides(squares: Dataset, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(recipes.override(PLAIN, {"cuda_graphs": False}), squares, recorder, monkeypatch)
    assert recorder.captures == 0


class Failing:
    """A backend whose captures raise ``errors`` one after the other, and then do their work."""

    def __init__(self, then: Any, *errors: BaseException) -> None:
        self.then, self.errors = then, list(errors)

    def capture(self, work: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return self.then.capture(work)


def test_what_cannot_be_captured_is_said_and_run_as_it_is(
    squares: Dataset, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[str] = []

    def report(event: base.Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    recipe = recipes.override(PLAIN, CHANGES["muon"])
    backend = Failing(recorder, RuntimeError("operation not permitted when stream is capturing\nand more"))
    broken = fit(recipe, squares, backend, monkeypatch, report=report)
    assert notices == [
        "Steps are launched kernel by kernel, not as a CUDA graph: operation not permitted when stream is capturing"
    ]
    assert same(broken, fit(recipe, squares, None, monkeypatch))


def test_a_capture_without_room_is_made_again_in_smaller_pieces(
    squares: Dataset, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[str] = []
    backend = Failing(recorder, torch.OutOfMemoryError("no room"))
    result = fit(
        PLAIN,
        squares,
        backend,
        monkeypatch,
        report=lambda e: notices.append(e.message) if isinstance(e, Notice) else None,
    )
    assert result.steps == 24
    assert len(notices) == 1 and "2 parts of 16" in notices[0]
    assert recorder.captures == 1
    assert recorder.launches == 24 - 2 * graphs.WARM_UP - 1


def test_the_host_stays_a_few_steps_before_the_device() -> None:
    waited: list[int] = []

    class Event:
        made = 0

        def __init__(self) -> None:
            self.number = Event.made
            Event.made += 1

        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            waited.append(self.number)

    pace = graphs.Pace(Event)
    for _ in range(6):
        pace.step()
    assert waited == list(range(6 - graphs.AHEAD))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", ["cnn", "sprint", "resnet18"])
def test_pictures_stay_channels_last_and_in_half_precision_through_the_network(
    squares: Dataset, network: str, precision: str
) -> None:
    recipe = recipes.override(PLAIN, {"model": {"name": network, "widths": [8, 16]}, "augment": {"translate": 2}})
    architecture = zoo.build(recipe.model, 16, 16, 4)
    first = weights.initial(architecture, 0, squares["train"].images)
    job = Job(architecture, recipe, first, squares, base.load("torch").device("cpu"))
    training = stepper.Stepper(job, precision, plan(recipe, len(squares["train"])))
    wanted = torch.bfloat16 if precision == "bf16" else torch.float32
    seen = 0

    def check(module: Any, given: Any, out: Any) -> None:
        nonlocal seen
        seen += 1
        assert given[0].is_contiguous(memory_format=torch.channels_last), module
        assert out.dtype == wanted and out.is_contiguous(memory_format=torch.channels_last), module

    for module in training.net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.MaxPool2d | build._BatchNorm):
            module.register_forward_hook(lambda m, i, o: check(m, i, o) if o.ndim == 4 else None)
    training.take(0, 0.0)
    assert seen >= 4
