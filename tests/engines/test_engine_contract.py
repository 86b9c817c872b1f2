"""What every engine must do. The class runs against each engine that is installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference

from tenfold import recipe as recipes
from tenfold.architecture import weights, zoo
from tenfold.architecture.layers import Architecture
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.engines import base, batches, loop
from tenfold.engines.base import Checkpointed, EpochEnd, Event, Job, Notice, Started, State, Step
from tenfold.errors import TrainingError, UnknownNameError, UnsupportedError
from tenfold.recipe import Model, Recipe

# One convolution a stage: most of these runs' time goes into compiling. NETWORKS has each network whole.
PLAIN = Recipe(
    model=Model(name="sprint", widths=(8, 16), depth=1),
    epochs=4,
    batch_size=32,
    precision="fp32",
    checkpoint=recipes.Checkpoint(seconds=0),
)


def with_fields(**changes: Any) -> Recipe:
    return recipes.override(PLAIN, {key.replace("__", "."): value for key, value in changes.items()})


NETWORKS: dict[str, dict[str, Any]] = {
    "cnn": {"name": "cnn", "widths": [4, 6], "dropout": 0.0},
    "sprint": {"name": "sprint", "widths": [8, 16]},
    "resnet18": {"name": "resnet18", "widths": [4, 6]},
}


class Memory:
    """Checkpoints kept in a list."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def save(self, state: State) -> None:
        self.states.append(state)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> base.Engine:
    """The engine of --engine: one is loaded in a process, so each has a run of its own (``make test``)."""
    name = request.config.getoption("--engine")
    missing = base.ENGINES[name].missing()
    if missing is not None:
        pytest.skip(f"{missing} is not installed: pip install 'tenfold[{base.ENGINES[name].extra}]'")
    engine = base.load(name)
    try:
        engine.device("cpu")
    except UnsupportedError as error:  # its framework has no driver for this machine's processor
        pytest.skip(str(error))
    return engine


def build(recipe: Recipe, dataset: Dataset) -> Architecture:
    return zoo.build(recipe.model, dataset.geometry.height, dataset.geometry.width, len(dataset.classes))


def job(engine: base.Engine, recipe: Recipe, dataset: Dataset, device: str = "cpu", **more: Any) -> Job:
    architecture = build(recipe, dataset)
    first = weights.initial(architecture, recipe.seed, dataset["train"].images)
    return Job(architecture, recipe, first, dataset, engine.device(device), **more)


_once: dict[str, dict[str, np.ndarray]] = {}


def after_an_epoch(engine: base.Engine, squares: Dataset) -> dict[str, np.ndarray]:
    """The weights that PLAIN's first epoch leaves, for many tests trained once. No fixture of the module's: that would
    train before each test is given folders of its own."""
    if engine.name not in _once:
        _once[engine.name] = engine.fit(job(engine, with_fields(epochs=1), squares)).weights
    return _once[engine.name]


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def _take(steps: base.Steps, step: int) -> None:
    steps.stepper.take(step, 0.5)


class TestEngine:
    def test_weights_come_back_as_they_went_in(self, engine: base.Engine, squares: Dataset) -> None:
        """Names, shapes and dtypes follow from the architecture alone, and frozen weights stay as they were."""
        task = job(engine, with_fields(epochs=1), squares)
        found = after_an_epoch(engine, squares)
        weights.check(task.architecture, found)
        frozen = [n for n, s in weights.specs(task.architecture).items() if s.role == "frozen"]
        assert frozen
        assert all(np.array_equal(found[n], task.weights[n]) for n in [*frozen, "00_normalize.mean"])
        trained = [n for n, s in weights.specs(task.architecture).items() if s.role == "trained"]
        assert all(not np.array_equal(found[n], task.weights[n]) for n in trained)

    def test_steps_taken_one_by_one_are_those_of_a_run_and_can_be_recorded(
        self, engine: base.Engine, squares: Dataset
    ) -> None:
        if engine.name == "opencl":
            pytest.skip("its fit takes the same steps, and compiling them once more takes long")
        with engine.steps(job(engine, with_fields(epochs=1), squares)) as steps:
            for step in range(steps.plan.steps):
                steps.stepper.take(step, step / steps.plan.steps)
            found = steps.stepper.weights()
            following = itertools.count(steps.plan.steps)
            seen = engine.record(steps, lambda: _take(steps, next(following)), 2)
            steps.stepper.close()
        assert same(found, after_an_epoch(engine, squares))
        names = [(s.kind, s.name, s.lane) for s in seen.spans]
        assert names.count(("part", "step", seen.host)) == 2 == names.count(("part", "data", seen.host))
        assert any(kind == "operation" for kind, _, _ in names) and seen.seconds > 0

    def test_logits_equal_a_plain_float64_computation(self, engine: base.Engine, squares: Dataset) -> None:
        from numpy.lib.stride_tricks import sliding_window_view

        from tenfold.architecture.layers import Activation, Conv, Dense, Flatten, Normalize, Pool

        layers = (Normalize(), Conv(5, 3, padding=1, bias=True), Activation("relu"), Pool(), Flatten(), Dense(4))
        architecture = Architecture("plain", 16, 16, 4, layers)
        images = squares["test"].images
        w = {n: a.astype(np.float64) for n, a in weights.initial(architecture, 1, images).items()}
        x = (images / 255 - w["00_normalize.mean"]) / w["00_normalize.std"]
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = sliding_window_view(x, (3, 3), axis=(1, 2))
        x = np.einsum("nhwcij,ocij->nohw", windows, w["01_conv.kernel"]) + w["01_conv.bias"][:, None, None]
        x = np.maximum(x, 0).reshape(len(x), 5, 8, 2, 8, 2).max((3, 5)).reshape(len(x), -1)
        wanted = x @ w["05_dense.kernel"].T + w["05_dense.bias"]
        single = {n: a.astype(np.float32) for n, a in w.items()}
        found = engine.logits(architecture, single, images, engine.device("cpu"), batch_size=7)
        assert found.dtype == np.float32
        assert np.abs(found - wanted).max() < 1e-4

    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
    def test_a_first_step_equals_a_float64_computation(
        self, engine: base.Engine, squares: Dataset, network: str, optimizer: str
    ) -> None:
        """Loss, updated weights and batch norm's statistics; the same for batch norm over parts of the batch."""
        settings = {"name": optimizer, "lr": 0.05, "weight_decay": 0.01, "eps": 0.1, "muon_lr": 0.05}
        recipe = with_fields(
            model=NETWORKS[network], optimizer=settings, epochs=1, virtual_batch_size=16 if optimizer == "sgd" else None
        )
        small = dataclasses.replace(squares, splits={**squares.splits, "train": _first(squares, 32)})
        task = job(engine, recipe, small)
        shuffled = batches.order(recipe.seed, 0, 32)  # which images are a part of the batch
        split = small["train"]
        loss, wanted = reference.first_step(
            recipe, task.architecture, task.weights, split.images[shuffled], split.labels[shuffled]
        )
        result = engine.fit(task)
        assert result.steps == 1
        assert result.history[0].loss == pytest.approx(loss, abs=1e-4)
        off = {n: float(np.abs(result.weights[n] - wanted[n]).max()) for n in wanted}
        assert max(off.values()) < 1e-4, sorted(off.items(), key=lambda item: -item[1])[:4]
        changed = [n for n, s in weights.specs(task.architecture).items() if s.role == "trained"]
        assert all(np.abs(wanted[n] - task.weights[n]).max() > 1e-4 for n in changed)

    @pytest.mark.parametrize("network", NETWORKS)
    def test_first_weights_answer_as_in_float64(
        self, engine: base.Engine, squares: Dataset, network: str, reference_logits: Any
    ) -> None:
        """Every engine starts from the same network: its parameters, its weights, what they answer."""
        task = job(engine, with_fields(model=NETWORKS[network]), squares)
        images = squares["test"].images[:16]
        found = engine.logits(task.architecture, task.weights, images, task.device)
        assert np.abs(found - reference_logits(task.architecture, task.weights, images)).max() < 1e-4

    @pytest.mark.parametrize("network", NETWORKS)
    def test_logits_of_no_images_and_of_any_batch_size(
        self, engine: base.Engine, squares: Dataset, network: str
    ) -> None:
        task = job(engine, with_fields(model=NETWORKS[network]), squares)
        images = squares["test"].images

        def logits(x: np.ndarray, **more: Any) -> np.ndarray:
            return engine.logits(task.architecture, task.weights, x, task.device, **more)

        assert logits(images[:0]).shape == (0, 4)
        assert np.allclose(logits(images), logits(images, batch_size=9), atol=1e-4)
        both = (logits(images) + logits(np.ascontiguousarray(images[:, :, ::-1]))) / 2
        assert np.allclose(logits(images, tta="flip"), both, atol=1e-4)
        answers = engine.answers(task.architecture, task.weights, task.device)
        for part in (images, images[:1], images[5:9]):
            assert np.allclose(answers(part), logits(part), atol=1e-4)
        assert engine.precisions(task.device)[0] == "fp32"

    @pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
    def test_overfits_64_images(self, engine: base.Engine, squares: Dataset, optimizer: str) -> None:
        rates = {"sgd": 0.05, "adam": 0.01, "adamw": 0.01, "muon": 1.0}
        recipe = with_fields(
            optimizer={"name": optimizer, "lr": rates[optimizer], "weight_decay": 1e-4}, epochs=30,
            schedule__name="linear",  # at a constant rate Muon's last step may be off, by chance
        )  # fmt: skip
        small = dataclasses.replace(squares, splits={**squares.splits, "train": _first(squares, 64)})
        result = engine.fit(job(engine, recipe, small))
        found = engine.logits(build(recipe, small), result.weights, small["train"].images, engine.device("cpu"))
        assert (found.argmax(1) == small["train"].labels).mean() == 1.0

    def test_events_come_in_order_and_say_what_happened(self, engine: base.Engine, squares: Dataset) -> None:
        events: list[Event] = []
        memory = Memory()
        result = engine.fit(job(engine, PLAIN, squares, report=events.append, checkpoints=memory))
        assert isinstance(events[0], Started)
        assert (events[0].steps, events[0].steps_per_epoch, events[0].first_step) == (32, 8, 0)
        assert events[0].parameters == weights.count(build(PLAIN, squares))
        ends = [e for e in events if isinstance(e, EpochEnd)]
        assert [e.epoch for e in ends] == [1, 2, 3, 4]
        assert [e.step for e in ends] == [8, 16, 24, 32]
        assert all(e.val_accuracy is not None and 0 <= e.val_accuracy <= 1 for e in ends)
        assert ends[-1].loss < ends[0].loss
        assert len(memory.states) == sum(isinstance(e, Checkpointed) for e in events) >= 32
        assert result.ended == "finished"
        assert (result.steps, result.images, result.epochs) == (32, 1024, 4.0)
        assert result.history == ends
        assert all(isinstance(e, Started | Step | EpochEnd | Checkpointed | Notice) for e in events)

    @pytest.mark.parametrize(
        "changes",
        [
            {"optimizer": {"name": "muon", "lr": 1.0, "whiten_bias_epochs": 1}, "augment.flip": "alternating"},
            {"optimizer": {"name": "adamw", "lr": 0.01}, "ema": 0.9, "augment.mixup": 0.3, "model.dropout": 0.2},
            {"augment.flip": "random", "augment.translate": 2, "low_res": {"size": 10, "until": 0.5}, "patience": 9},
        ],
        ids=["muon", "adamw-ema-mixup-dropout", "sgd-lowres-patience"],
    )
    def test_resumed_equals_unbroken_bit_for_bit(
        self, engine: base.Engine, squares: Dataset, changes: dict[str, Any]
    ) -> None:
        recipe = recipes.override(PLAIN, changes)
        memory = Memory()
        whole = engine.fit(job(engine, recipe, squares, checkpoints=memory))
        states = {s.meta["step"]: s for s in memory.states}
        for step in (11, 24):  # in mid-epoch, with pictures still small; after an epoch, with all that changes changed
            resumed = engine.fit(job(engine, recipe, squares, resume=states[step]))
            assert same(resumed.weights, whole.weights), step
            assert [(e.loss, e.val_loss) for e in resumed.history] == [(e.loss, e.val_loss) for e in whole.history]

    def test_an_interrupt_leaves_a_checkpoint_to_go_on_from(self, engine: base.Engine, squares: Dataset) -> None:
        asked = iter([None] * 10 + ["interrupt"] * 100)
        memory = Memory()
        recipe = with_fields(checkpoint__seconds=1000)
        broken = engine.fit(job(engine, recipe, squares, stop=lambda: next(asked), checkpoints=memory))
        assert (broken.ended, broken.steps) == ("interrupt", 11)
        assert memory.states[-1].meta["step"] == 11
        whole = engine.fit(job(engine, recipe, squares))
        resumed = engine.fit(job(engine, recipe, squares, resume=memory.states[-1]))
        assert same(resumed.weights, whole.weights)

    def test_nan_stops_with_the_last_good_state(self, engine: base.Engine, squares: Dataset) -> None:
        recipe = with_fields(optimizer={"name": "sgd", "lr": 1e30, "momentum": 0.0})
        memory = Memory()
        with pytest.raises(TrainingError, match="no longer a number"):
            engine.fit(job(engine, recipe, squares, checkpoints=memory))
        for state in memory.states:
            assert all(np.isfinite(a).all() for a in state.arrays.values())

    def test_a_time_limit_fits_the_schedule(
        self, engine: base.Engine, squares: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a clock that goes on at each look: on a busy machine a last step may take a third of a second."""
        looks = itertools.count()
        monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(looks) / 200))
        events: list[Event] = []
        recipe = recipes.override(PLAIN, {"epochs": 100_000, "time_limit": 1.0, "schedule.name": "linear"})
        result = engine.fit(job(engine, recipe, squares, report=events.append))
        assert result.ended == "time_limit"
        assert 1 <= result.seconds < 1.1
        assert result.steps > 20
        last = [e for e in events if isinstance(e, EpochEnd)][-1]
        assert last.lr < 0.1 * recipe.optimizer.lr

    def test_patience_stops_and_gives_the_best_weights(self, engine: base.Engine, squares: Dataset) -> None:
        recipe = recipes.override(PLAIN, {"epochs": 100, "patience": 3})
        result = engine.fit(job(engine, recipe, squares))
        assert result.ended == "patience"
        best = max(e.val_accuracy or 0 for e in result.history)
        assert len(result.history) < 100
        val = squares["val"]
        found = engine.logits(build(recipe, squares), result.weights, val.images, engine.device("cpu"))
        assert (found.argmax(1) == val.labels).mean() == pytest.approx(best)

    def test_class_weights_move_the_answer_to_rare_classes(self, engine: base.Engine, squares: Dataset) -> None:
        train = squares["train"]
        keep = np.flatnonzero((train.labels != 3) | (np.arange(len(train)) < 8))
        noise = np.random.default_rng(0).integers(0, 256, train.images[keep].shape, dtype=np.uint8)
        rare = dataclasses.replace(
            squares,
            splits={
                **squares.splits,
                "train": dataclasses.replace(
                    train, images=noise, labels=train.labels[keep], origins=[str(i) for i in keep]
                ),
            },
        )
        unseen = np.random.default_rng(1).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
        given = []
        for how in ("none", "balanced"):
            recipe = with_fields(class_weights=how, epochs=6, optimizer__lr=0.02)
            result = engine.fit(job(engine, recipe, rare))
            logits = engine.logits(build(recipe, rare), result.weights, unseen, engine.device("cpu"))
            odds = np.exp(logits - logits.max(1, keepdims=True))
            given.append((odds / odds.sum(1, keepdims=True))[:, 3].mean())
        assert given[1] > 2 * given[0]

    @pytest.mark.parametrize(
        "changes",
        [
            {"augment.rotate": 10.0},
            {"augment.cutout": 5},
            {"augment.color_jitter": 0.3},
            {"augment.cutmix": 1.0},
            {"augment.translate": 2, "augment.translate_fill": "zero"},
            {"schedule.name": "onecycle"},
            {"schedule.name": "cosine", "schedule.warmup": 0.2},
            {"schedule.name": "step"},
            {"label_smoothing": 0.1},
            {"precision": "bf16"},
            {"ema": 0.99},
        ],
        ids=str,
    )  # virtual_batch_size: in a first step's float64 computation
    def test_every_field_is_honoured_or_refused_by_name(
        self, engine: base.Engine, squares: Dataset, changes: dict[str, Any]
    ) -> None:
        recipe = recipes.override(PLAIN, {"epochs": 1, **changes})
        task = job(engine, recipe, squares)
        try:
            engine.check(task.architecture, recipe, task.device)
        except UnsupportedError as refused:
            assert next(iter(changes)).split(".")[-1] in str(refused)
            return
        changed = engine.fit(task)
        assert not same(after_an_epoch(engine, squares), changed.weights)
        assert all(np.isfinite(w).all() for w in changed.weights.values())

    def test_a_batch_of_more_than_all_images_is_all_of_them(self, engine: base.Engine, squares: Dataset) -> None:
        small = dataclasses.replace(squares, splits={**squares.splits, "train": _first(squares, PLAIN.batch_size)})
        sizes = (PLAIN.batch_size, 10_000)
        whole, more = (engine.fit(job(engine, with_fields(epochs=2, batch_size=size), small)) for size in sizes)
        assert (whole.steps, more.steps) == (2, 2)
        assert same(whole.weights, more.weights)

    @pytest.mark.parametrize("more", [{}, {"virtual_batch_size": 8, "optimizer__name": "sgd"}])
    def test_a_frozen_body_stays_as_it_is(self, engine: base.Engine, squares: Dataset, more: dict[str, Any]) -> None:
        """Weights and batch norm's statistics alike, as long as only the last layer is trained; all move afterwards."""
        if not engine.finetunes:
            pytest.skip(f"the {engine.name} engine refuses finetune")
        tuned = {"finetune": {"frozen_epochs": 1, "body_lr": 0.5}, **more}
        task = job(engine, with_fields(epochs=1, **tuned), squares)
        first = engine.fit(task).weights
        moved = {n for n, w in first.items() if not np.array_equal(w, task.weights[n])}
        head = next(n for n in reversed(list(first)) if n.endswith(".kernel"))
        assert moved == {head}
        after = engine.fit(job(engine, with_fields(epochs=2, **tuned), squares)).weights
        learnt = {n for n, s in weights.specs(task.architecture).items() if s.role != "frozen" and s.counted}
        assert {n for n, w in after.items() if not np.array_equal(w, task.weights[n])} == learnt

    def test_a_resumed_fine_tuning_equals_an_unbroken_one(self, engine: base.Engine, squares: Dataset) -> None:
        """Resumed while the body rests, at the step when it begins, and after it."""
        if not engine.finetunes:
            pytest.skip(f"the {engine.name} engine refuses finetune")
        recipe = with_fields(epochs=2, finetune={"frozen_epochs": 1}, optimizer__name="adamw")
        memory = Memory()
        whole = engine.fit(job(engine, recipe, squares, checkpoints=memory)).weights
        states = {s.meta["step"]: s for s in memory.states}
        for step in (3, 8, 11):
            resumed = engine.fit(job(engine, recipe, squares, resume=states[step])).weights
            assert same(whole, resumed), f"resumed at step {step}"

    @pytest.mark.parametrize("preset", ["quick", "balanced", "strong", "sprint", "accurate"])
    def test_a_preset_takes_another_size_and_number_of_classes(self, engine: base.Engine, preset: str) -> None:
        rng = np.random.default_rng(0)
        names = tuple(f"class {i}" for i in range(100))

        def split(count: int) -> Split:
            pixels = rng.integers(0, 256, (count, 24, 40, 3), dtype=np.uint8)
            return Split(pixels, np.arange(count) % 100, [str(i) for i in range(count)])

        splits = {"train": split(200), "val": split(20), "test": split(0)}
        dataset = Dataset("other", "other", names, splits, Geometry(24, 40))
        small = {"model.widths": [8], "batch_size": 50, "epochs": 1, "min_steps": 0, "precision": "fp32"}
        recipe = recipes.override(recipes.load(preset), small)
        result = engine.fit(job(engine, recipe, dataset))
        assert result.steps == 4
        assert 100 in next(w.shape for n, w in reversed(result.weights.items()) if n.endswith("kernel"))

    def test_what_it_lacks_is_refused_before_training(self, engine: base.Engine, squares: Dataset) -> None:
        flat = with_fields(model={"name": "cnn", "widths": [4]}, low_res={"size": 8, "until": 0.5})
        with pytest.raises(UnsupportedError, match="low_res"):
            engine.check(build(flat, squares), flat, engine.device("cpu"))
        tiny = with_fields(low_res={"size": 4, "until": 0.5})
        with pytest.raises(UnsupportedError, match="too small"):
            engine.check(build(tiny, squares), tiny, engine.device("cpu"))

    def test_a_device_that_is_not_there_is_an_error(self, engine: base.Engine) -> None:
        with pytest.raises(UnknownNameError, match="cuda:77"):
            engine.device("cuda:77")
        assert engine.devices()[-1].name == "cpu"

    def test_a_memory_map_trains_as_the_array_does(self, engine: base.Engine, squares: Dataset, tmp_path: Any) -> None:
        train = squares["train"]
        np.save(tmp_path / "x.npy", train.images)
        mapped = dataclasses.replace(train, images=np.load(tmp_path / "x.npy", mmap_mode="r"))
        streamed = dataclasses.replace(squares, splits={**squares.splits, "train": mapped})
        events: list[Event] = []
        recipe = recipes.override(PLAIN, {"augment.translate": 2, "augment.flip": "random"})
        a = engine.fit(job(engine, recipe, squares))
        b = engine.fit(job(engine, recipe, streamed, report=events.append))
        assert isinstance(events[0], Started)
        assert events[0].placement == "stream"
        assert same(a.weights, b.weights)


def _first(dataset: Dataset, count: int) -> Any:
    split = dataset["train"]
    return dataclasses.replace(
        split, images=split.images[:count], labels=split.labels[:count], origins=split.origins[:count]
    )


def test_an_unknown_engine_and_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold.errors import MissingExtraError

    with pytest.raises(UnknownNameError, match="Did you mean torch"):
        base.load("torhc")
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[torch\]'"):
        base.load("torch")
