"""The processes of one training, joined by torch.distributed.

What they agree on (stop now, how far the run is, that all of them got this far) goes through gloo, which needs no card
and tells at once when a process is gone. What is added up each step goes through gloo on a CPU, NCCL on CUDA.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tenfold import hardware
from tenfold.distributed import Peers, World
from tenfold.engines.base import Device
from tenfold.errors import CallError, StoppedError, TenfoldError, TrainingError

T = TypeVar("T")

CONNECT = datetime.timedelta(minutes=10)  # for all processes to be started
WAIT = datetime.timedelta(days=100)  # longer than any run: a process that is gone is noticed by its connections
TELL_SECONDS = 1.0  # in which the first process may say what went wrong, before another does
GRACE_SECONDS = 10.0  # in which a process that has lost another may come to notice it by itself
PULSE = 7  # tag of the message that a neighbour sends when its training is over

_JOINED = itertools.count()


class Group(Peers):
    """``world`` joined; returns when all its processes are there. Raises TrainingError where they can't be joined."""

    def __init__(self, world: World) -> None:
        self.rank, self.size, self.local_rank, self.local_size = (
            world.rank, world.size, world.local_rank, world.local_size,
        )  # fmt: skip
        self.backend = "gloo"
        self._share_cores()
        self._gone: TenfoldError | None = None
        try:
            store, rank, size = next(dist.rendezvous("env://", timeout=CONNECT))
            store.set_timeout(CONNECT)
            self._store = dist.PrefixStore(f"tenfold/{next(_JOINED)}", store)  # what an earlier training said is past
            dist.init_process_group("gloo", store=self._store, rank=rank, world_size=size, timeout=WAIT)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"The {self.size} processes of this training could not be joined: {_line(error)}",
                "Each machine must reach the first one's address and port; GLOO_SOCKET_IFNAME names the network.",
            ) from None
        self.tensors: Any = dist.group.WORLD  # the group that tensors on the device are sent through
        self._speaking, self._watched = threading.Event(), True
        self._terminated()
        threading.Thread(target=self._watch, name="tenfold-neighbour", daemon=True).start()

    def _share_cores(self) -> None:
        """Each process has its share of the machine's cores. torchrun gives one to each where nobody says how many."""
        if os.environ.get("OMP_NUM_THREADS", "1") == "1":
            torch.set_num_threads(max(1, hardware.cores() // self.local_size))

    def _terminated(self) -> None:
        """SIGTERM is how torchrun ends what is left when one process has failed: the line that says so is not lost."""

        def end(number: int, frame: object) -> None:
            if self._gone is None:
                raise KeyboardInterrupt

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)

    # ---- one for all, and all alike ----------------------------------------------------------------------------

    def together(self, work: Callable[[], T]) -> T:
        own: BaseException | None = None
        try:
            value = work()
        except Exception as error:
            own = error
        found = self._gathered(_plain(own))
        failed = next((rank for rank, error in enumerate(found) if error is not None), None)
        if failed is None:
            return value
        if own is not None and (self.first or not isinstance(own, TenfoldError)):
            raise own
        message, hint, code = found[failed]
        where = "" if failed == 0 else f"Process {failed}: "
        kind = CallError if code == CallError.exit_code else TrainingError
        raise kind(f"{where}{message}", hint)

    def shared(self, value: T) -> T:
        held = [value]
        with self.watched():
            dist.broadcast_object_list(held, 0)
        return held[0]

    def alike(self, facts: dict[str, str]) -> None:
        ours, *others = self._gathered(facts)
        for rank, theirs in enumerate(others, 1):
            for name, value in ours.items():
                if theirs.get(name) != value:
                    raise CallError(
                        f"{name} is {value} in the first process and {theirs.get(name)} in process {rank}.",
                        "All processes of a training need the same.",
                    )

    def gathered(self, own: np.ndarray) -> np.ndarray:
        """The rows of all processes, in the order of their ranks."""
        return np.concatenate(self._gathered(own))

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest of each value among the processes; how one's wish becomes everyone's."""
        found = torch.tensor(values, dtype=torch.float64)
        with self.watched():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return [float(value) for value in found]

    def _gathered(self, own: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with self.watched():
            dist.all_gather_object(found, own)
        return found

    # ---- tensors on the device -----------------------------------------------------------------------------------

    def prepare(self, device: Device) -> None:
        if not device.name.startswith("cuda"):
            return
        torch.cuda.set_device(torch.device(device.name))
        with self.watched():
            self.tensors = dist.new_group(backend="nccl")
        self.backend = "nccl"

    def add_up(self, tensor: Tensor) -> None:
        """The sum of all processes' ``tensor``, in its place."""
        dist.all_reduce(tensor, group=self.tensors)

    def rows(self, vector: Tensor) -> Tensor:
        """All processes' vectors, K each: processes×K."""
        found = vector.new_empty(self.size, len(vector))
        dist.all_gather(list(found.unbind()), vector, group=self.tensors)
        return found

    # ---- the end ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A process that is gone is an error in words."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not _is_of_connection(error):
                raise
            self._gone = self._left_alone()
            raise self._gone from error

    def _left_alone(self) -> TrainingError:
        hint = None
        if self.run is not None:
            hint = f"What the last checkpoint holds is kept. Go on with: {self.resume(self.run)}"
        return TrainingError(
            f"Another of the {self.size} processes of this training has ended: it was killed, or says itself what went "
            "wrong.",
            hint,
        )

    def _watch(self) -> None:
        """Ends this process where its neighbour is gone and it can't notice: NCCL waits for half an hour, in a place
        where no signal is heard."""
        try:
            dist.recv(torch.zeros(1), (self.rank + 1) % self.size, tag=PULSE)
            return
        except RuntimeError:
            error = self._gone = self._gone or self._left_alone()
        if not self._speaking.wait(GRACE_SECONDS):
            if not self.told(error):
                print(f"Error: {error.message}\n{error.hint or ''}", file=sys.stderr, flush=True)
            os._exit(error.exit_code)

    def told(self, error: TenfoldError) -> bool:
        """The first process always speaks; another where no one has within a second."""
        if self._gone is None:
            _record(error)  # what followed from it is not for torchrun's summary
        self._gone = error  # SIGTERM must not cut its line off
        self._speaking.set()
        if isinstance(error, CallError | StoppedError):  # which all have met
            return not self.first
        if not self.first:
            time.sleep(TELL_SECONDS)
        try:
            self._store.set_timeout(datetime.timedelta(seconds=5))
            return bool(self._store.add("told", 1) > 1 and not self.first)
        except RuntimeError:
            return False

    def trained(self) -> None:
        self._part()
        if self.first and os.environ.get("OMP_NUM_THREADS", "1") == "1":
            torch.set_num_threads(hardware.cores())

    def close(self) -> None:
        with contextlib.suppress(TrainingError), self.watched():
            self._part()
            dist.barrier()
            dist.destroy_process_group()

    def _part(self) -> None:
        """Tells the neighbour that watches this process that it may go."""
        if self._watched:
            self._watched = False
            with self.watched():
                dist.send(torch.zeros(1), (self.rank - 1) % self.size, tag=PULSE)


def _plain(error: BaseException | None) -> tuple[str, str | None, int] | None:
    """An error as another process may tell it."""
    if error is None:
        return None
    if isinstance(error, TenfoldError):
        return error.message, error.hint, error.exit_code
    return f"{type(error).__name__}: {_line(error)}", None, 1


def _record(error: TenfoldError) -> None:
    """Leaves the error's words where torchrun looks for them; its summary of the failure shows them."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        about = {"py_callstack": str(error), "timestamp": str(int(time.time()))}
        text = json.dumps({"message": {"message": str(error), "extraInfo": about}})
        with contextlib.suppress(OSError):
            Path(path).write_text(text, encoding="utf-8")


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _is_of_connection(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return any(
        word in text for word in ("gloo", "Gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe")
    )
