"""The engine contract: what trains.

An engine takes an architecture, a recipe, first weights and a dataset, reports events, and gives canonical weights back
as NumPy arrays. NumPy stands at every boundary: only ``engines/<name>/`` imports that framework, every engine's folder
has the same files (build, augment, optimize, stepper), and one class of contract tests runs against each. What an
engine lacks it refuses by name in ``check``, before training starts, with the engine that has it.

How a run goes from step to step is the same in every engine (``engines/loop.py``), and so are its length and rates
(``schedule.py``), which images a step takes (``batches.py``) and which weights go with which rate (``groups.py``).
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tenfold.architecture.layers import Architecture
from tenfold.data.dataset import Dataset
from tenfold.distributed import Peers, World
from tenfold.engines import external
from tenfold.errors import MissingExtraError, UnknownNameError, UnsupportedError
from tenfold.recipe import Recipe

if TYPE_CHECKING:
    from tenfold.engines.recording import Recording
    from tenfold.engines.schedule import Plan


@dataclass(frozen=True)
class Device:
    """``name`` as given to --device (``cpu``, ``cuda:0``), ``label`` for people, ``memory`` in bytes or None."""

    name: str
    label: str
    memory: int | None = None


# ---- events: what an engine reports, in this order -------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """Once, before the first step. ``first_step`` is above 0 in a resumed run.

    The first ``light_steps`` steps are on smaller pictures and take about ``light_cost`` of a later step's time.
    """

    steps: int
    steps_per_epoch: int
    first_step: int
    parameters: int
    device: Device
    precision: str
    placement: Literal["device", "stream"]
    light_steps: int = 0
    light_cost: float = 1.0


@dataclass(frozen=True)
class Step:
    """A few times a second. ``loss`` and ``accuracy`` are means over the steps since the last such event."""

    step: int
    epoch: float
    loss: float
    accuracy: float
    lr: float
    images_per_second: float
    memory_bytes: int


@dataclass(frozen=True)
class EpochEnd:
    """``epoch`` counts from 1; val figures are None without a validation split; ``seconds`` is training time so far."""

    epoch: int
    step: int
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    images_per_second: float
    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Checkpointed:
    step: int
    reason: Literal["time", "epoch", "stop"]


@dataclass(frozen=True)
class Notice:
    """Something the user must be told: a halved batch, a slower path."""

    message: str


Event = Started | Step | EpochEnd | Checkpointed | Notice
Report = Callable[[Event], None]


@dataclass
class State:
    """All that a run needs to go on from a step, bit for bit: what a checkpoint holds.

    arrays   weights, the optimizer's state, the average: NumPy arrays by name
    meta     plain JSON values: step, seconds trained, sums of the epoch under way, best epoch …
    """

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]

    def part(self, kind: str) -> dict[str, np.ndarray]:
        """The arrays called ``kind/<name>``, by name."""
        return {n.partition("/")[2]: a for n, a in self.arrays.items() if n.startswith(kind + "/")}


class Checkpoints(Protocol):
    """Where an engine leaves its state; the run folder implements it (``tenfold.run``)."""

    def save(self, state: State) -> None: ...


@dataclass(frozen=True)
class Job:
    """One training: all that ``fit`` is given.

    weights   first weights by canonical name, float32
    stop      asked after every step: a reason to stop now (``"interrupt"``), or None
    peers     the processes that train together: each calls ``fit`` with the same job, but for ``device``, ``report``,
              ``stop`` and ``checkpoints``, which are its own
    """

    architecture: Architecture
    recipe: Recipe
    weights: Mapping[str, np.ndarray]
    dataset: Dataset
    device: Device
    report: Report = lambda event: None
    stop: Callable[[], str | None] = lambda: None
    checkpoints: Checkpoints | None = None
    resume: State | None = None
    peers: Peers = field(default_factory=Peers)


@dataclass(frozen=True)
class FitResult:
    """``weights`` by canonical name, float32, ready to be evaluated (the average where the recipe keeps one).

    ended: ``finished``, ``patience``, ``time_limit`` or ``interrupt``. ``seconds`` is training alone, device work
    synchronised, over all parts of a resumed run; ``images`` counts those trained on in that time.
    """

    weights: dict[str, np.ndarray]
    ended: Literal["finished", "patience", "time_limit", "interrupt"]
    epochs: float
    steps: int
    seconds: float
    images: int
    peak_memory_bytes: int
    precision: str
    history: list[EpochEnd] = field(default_factory=list)


class Stepper(ABC):
    """A training step on the device, as ``engines/loop.py`` asks for it.

    placement   whether the pixels lie on the device or are sent to it in batches
    """

    placement: Literal["device", "stream"]

    def agree(self, done: float, stop: bool) -> tuple[float, bool]:
        """What all processes of a training take for the share of the run that is ``done``, and whether to ``stop``."""
        return done, stop

    def announce(self) -> None:  # noqa: B027 (an engine may have nothing to say)
        """Says what a user must know before the first step."""

    @abstractmethod
    def take(self, step: int, done: float) -> float:
        """Takes step ``step`` (from 0) of the run, of which the share ``done`` is behind; returns the rate's factor.

        It need not wait for the device. What is random in it is a function of (seed, step) alone.
        """

    @abstractmethod
    def sums(self) -> tuple[float, float]:
        """(summed loss, images right) of the steps since ``reset_sums``, the device waited for."""

    @abstractmethod
    def reset_sums(self) -> None: ...

    @abstractmethod
    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 logits of the validation images, uint8 N×H×W×3, with the weights that ``weights`` gives now."""

    @abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """Canonical weights that a user gets now: the moving average where there is one."""

    @abstractmethod
    def state(self) -> State:
        """All that the next step depends on, ``sums`` included."""

    @abstractmethod
    def restore(self, state: State) -> None: ...

    @abstractmethod
    def memory_bytes(self) -> int:
        """The most memory used so far: the device's, or on a CPU the process's."""

    def close(self) -> None:  # noqa: B027 (an engine may have nothing to end)
        """After the last step: waits for the device and ends what runs beside it."""


@dataclass(frozen=True)
class Steps:
    """A training that stands before its first step. ``precision`` is fp32, fp16 or bf16, already resolved."""

    stepper: Stepper
    plan: Plan
    precision: str


class Engine(ABC):
    """A framework behind the contract. Engines hold no state between calls.

    finetunes   whether its steps leave weights and batch norm's statistics alone while their group rests
    """

    name: str
    finetunes: bool = False

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Versions of the framework and of what it computes with (CUDA, cuDNN)."""

    @abstractmethod
    def devices(self) -> list[Device]:
        """Devices this process can use, the fastest first; ``cpu`` is the last, where there is a driver for it."""

    @abstractmethod
    def check(self, architecture: Architecture, recipe: Recipe, device: Device) -> None:
        """Raises UnsupportedError for the first thing this engine or device can't do, and says which can."""

    def precisions(self, device: Device) -> list[str]:
        """What the device computes in natively, ``fp32`` first."""
        return ["fp32"]

    def warm_up(self, device: Device) -> None:  # noqa: B027 (an engine may have nothing to do)
        """Does what the first work on ``device`` would wait for. Called in a thread of its own while data is read."""

    def steps(self, job: Job) -> AbstractContextManager[Steps]:
        """The steps of ``job`` to be taken one by one while the block runs, as :meth:`fit` takes them: for who times or
        profiles them. What memory runs out for raises TrainingError."""
        raise UnsupportedError(f"The {self.name} engine can't take single steps.")

    def record(self, steps: Steps, take: Callable[[], None], count: int) -> Recording:
        """What is seen of ``count`` steps while ``take`` takes one after another: by the framework's own profiler where
        the engine has one, else by the host's clock."""
        from tenfold.engines.recording import by_clock

        return by_clock(take, steps.stepper.sums, count)

    @abstractmethod
    def fit(self, job: Job) -> FitResult:
        """Trains. Raises TrainingError on NaN or when memory runs out at the smallest batch."""

    @abstractmethod
    def logits(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
        images: np.ndarray,
        device: Device,
        *,
        batch_size: int = 500,
        precision: str = "fp32",
        tta: str = "none",
    ) -> np.ndarray:
        """float32 logits N×classes for uint8 images N×H×W×3."""

    def join(self, world: World) -> Peers:
        """The processes that were started together for one training."""
        raise UnsupportedError(f"The {self.name} engine trains in one process.")

    def answers(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray],
        device: Device,
        *,
        precision: str = "fp32",
    ) -> Callable[[np.ndarray], np.ndarray]:
        """What gives :meth:`logits` of images again and again: where an engine can, the network is built and its
        weights are sent to the device once."""
        return lambda images: self.logits(architecture, weights, images, device, precision=precision)

    def library(self, name: str) -> external.Library:
        """Another package's networks, where ENGINES says that this engine reaches them."""
        raise UnsupportedError(f"The {self.name} engine has no networks of {name}.")

    def device(self, name: str) -> Device:
        """The device called ``name``; ``auto`` is the fastest. One that isn't there is an error, never a fallback."""
        found = self.devices()
        if name == "auto":
            return found[0]
        wanted = f"{name}:0" if name in ("cuda", "xpu") else name
        for device in found:
            if device.name == wanted:
                return device
        raise UnknownNameError(
            "device", name, ["auto", *(d.name for d in found)], where=f" for the {self.name} engine here"
        )


@dataclass(frozen=True)
class Entry:
    """Where an engine is: its folder under ``engines/``, the packages it imports, and the extra that brings them.

    libraries   other packages whose networks it reaches; one that is not among ``packages`` is also the name of the
                extra that brings it
    """

    folder: str
    packages: tuple[str, ...]
    extra: str
    libraries: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """The first of its packages that is not installed."""
        return next((p for p in self.packages if importlib.util.find_spec(p) is None), None)


ENGINES: dict[str, Entry] = {
    "torch": Entry("torch", ("torch",), "torch", ("timm",)),
    "tensorflow": Entry("keras", ("tensorflow", "keras"), "tensorflow", ("keras",)),
    "jax": Entry("keras", ("jax", "keras"), "jax", ("keras",)),
    "opencl": Entry("tinygrad", ("tinygrad",), "opencl"),
}


def check_network(recipe: Recipe, engine: str) -> None:
    """Refuses another library's network, before the engine is imported: one that the engine called ``engine`` doesn't
    reach or that the recipe's settings don't fit, a library that isn't installed, a file of weights that is none."""
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    external.check(recipe, engine, {name: entry.libraries for name, entry in ENGINES.items()})
    library = external.library(recipe.model.name)
    if library is not None:
        _require_library(library, engine, f"model.name={recipe.model.name}")


def _require_library(library: str, engine: str, purpose: str) -> None:
    if engine not in ENGINES or library not in ENGINES[engine].libraries:
        raise UnsupportedError(f"{purpose} needs an engine that has the networks of {library}; {engine} has not.")
    if importlib.util.find_spec(library) is None:
        own = library in ENGINES[engine].packages
        raise MissingExtraError(library, ENGINES[engine].extra if own else library, purpose)


def check(engine: Engine, architecture: Architecture, recipe: Recipe, device: Device) -> None:
    """Refuses what an engine can't do: first what is refused the same way in all of them."""
    if recipe.finetune is not None and not engine.finetunes:
        raise UnsupportedError(
            f"finetune is not available with the {engine.name} engine.", "Take --engine torch or --set finetune=null."
        )
    if architecture.external is not None:
        _require_library(architecture.external.library, engine.name, f"The network {architecture.name}")
        if recipe.finetune is not None and not architecture.external.head:
            raise UnsupportedError(
                f"finetune trains the last layer first, and {architecture.name} does not say which that is.",
                "Take --set finetune=null.",
            )
    engine.check(architecture, recipe, device)


def load(name: str) -> Engine:
    """The engine called ``name``. Raises UnknownNameError, or MissingExtraError naming the install command."""
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    entry = ENGINES[name]
    missing = entry.missing()
    if missing is not None:
        raise MissingExtraError(missing, entry.extra, f"The {name} engine")
    module = importlib.import_module(f"tenfold.engines.{entry.folder}")
    engine: Engine = module.engine(name)
    return engine
