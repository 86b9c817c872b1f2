"""A training in several processes: what the program that started them tells each, and what they ask of one another.

``torchrun`` (``python -m torch.distributed.run``) starts the processes and tells each its place by environment
variables. All of them go through the same training; where they must agree, or one must do something for all, they ask
their :class:`Peers`. In a training of one process that is the class itself, which asks nobody.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenfold.errors import CallError, TenfoldError, UnsupportedError

if TYPE_CHECKING:
    from tenfold.engines.base import Device, Engine
    from tenfold.recipe import Recipe

T = TypeVar("T")

ENGINE = "torch"  # the one that trains in several processes


@dataclass(frozen=True)
class World:
    """This process's place: the ``rank``-th of ``size``, the ``local_rank``-th of ``local_size`` on its machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def world() -> World | None:
    """What torchrun says, None where it says nothing or started one process. CallError where it makes no sense."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(os.environ.get(name) for name in (*names, "MASTER_ADDR", "MASTER_PORT")):
        return None
    try:
        found = World(*(int(os.environ[name]) for name in names))
    except ValueError:
        found = World(-1, 2, -1, 1)
    if found.size == 1:
        return None
    if not (0 <= found.rank < found.size and 0 <= found.local_rank < found.local_size <= found.size):
        told = ", ".join(f"{name}={os.environ[name]}" for name in names)
        raise CallError(
            f"The environment's places of a training's processes make no sense: {told}.", "torchrun sets them."
        )
    return found


def follows() -> bool:
    """Whether this process is one of several and not the first, which writes and speaks for all."""
    try:
        found = world()
    except CallError:
        return False
    return found is not None and found.rank > 0


class Peers:
    """The processes of a training, seen from one of them. This class is a training in one process."""

    rank, size, local_rank, local_size = 0, 1, 0, 1
    backend: str | None = None  # what the gradients are added up through: gloo, nccl
    run: Path | None = None  # the run folder, for what is said of going on

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def together(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in this process. Where it fails in any of them, it fails in all."""
        return work()

    def shared(self, value: T) -> T:
        """The first process's ``value``."""
        return value

    def alike(self, facts: dict[str, str]) -> None:
        """CallError where a fact differs between the processes."""

    def watched(self) -> AbstractContextManager[None]:
        """While the block runs, a process that is gone is a TrainingError in words."""
        return nullcontext()

    def prepare(self, device: Device) -> None:
        """Before training: how tensors on ``device`` are added up."""

    def trained(self) -> None:
        """After training: the first process has its machine's cores to itself."""

    def told(self, error: TenfoldError) -> bool:
        """Whether another process says what went wrong."""
        return False

    def close(self) -> None: ...

    def facts(self) -> dict[str, Any]:
        """For run.json, a bundle's provenance and --json."""
        return {"number": self.size, "backend": self.backend}

    def resume(self, run: Path) -> str:
        """The command that goes on with a run."""
        start = "torchrun … -m tenfold" if self.size > 1 else "tenfold"
        return f"{start} train --resume {shlex.quote(str(run))}"


@contextmanager
def joined(engine: str) -> Iterator[Peers]:
    """The processes that were started with this one, for a training by ``engine``. Whoever meets an error that another
    process tells of finds ``told`` set on it."""
    here = world()
    if here is None:
        yield Peers()
        return
    from tenfold.engines import base

    _refuse(engine, here.size)
    peers: Peers | None = None
    try:
        peers = base.load(ENGINE).join(here)
        yield peers
    except TenfoldError as error:
        error.told = peers.told(error) if peers is not None else here.rank > 0
        raise
    peers.close()


def _refuse(engine: str, size: int) -> None:
    if size > 1 and engine != ENGINE:
        raise UnsupportedError(
            f"{size} processes were started for one training, and the {engine} engine trains in one.",
            f"Take --engine {ENGINE}, or start tenfold without torchrun.",
        )


def check(recipe: Recipe, engine: str, size: int) -> None:
    """Refuses what can't be trained by ``size`` processes."""
    _refuse(engine, size)
    if size > 1 and recipe.compile:
        raise UnsupportedError("compile=true is not available in several processes.", "Take --set compile=false.")


def device(engine: Engine, name: str, peers: Peers) -> Device:
    """The device called ``name``; of several processes each has the card of its place on its machine."""
    if peers.size == 1:
        return engine.device(name)
    kind, _, number = name.partition(":")
    if number:
        raise CallError(
            f"--device {name} names one card for {peers.size} processes.", f"--device {kind} gives each its own."
        )
    found = engine.devices()
    kind = found[0].name.partition(":")[0] if kind == "auto" else engine.device(kind).name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise UnsupportedError(
            f"Several processes train on CUDA cards or on processors, not on {kind}.", "--device cpu."
        )
    own = [one for one in found if one.name.partition(":")[0] == kind]
    if kind == "cpu":
        return own[0]
    if peers.local_size > len(own):
        raise CallError(
            f"{peers.local_size} processes were started on a machine with {len(own)} cards.",
            f"torchrun --nproc-per-node {len(own)} starts one a card; --device cpu trains on the processor.",
        )
    return own[peers.local_rank]
