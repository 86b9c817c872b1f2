"""A step's device work captured once as a CUDA graph and launched whole from then on.

A step of a small network is many short kernels, and on a fast card Python launches them more slowly than they run. A
graph is one launch. What it computes on must lie where it lay when it was
captured, so a step's images are written into buffers of the graph's own and everything else that changes (rates, the
average's decay) lies in tensors that the loop fills. Random numbers follow the default generator: a launch reads its
seed and offset, so seeding it before a launch gives the numbers that the same step gives uncaptured.

Capturing runs nothing and changes no weight. The first steps of each shape are taken uncaptured, and they count: they
bring libraries and memory into the state that a capture needs, and no state has to be put back. A captured step gives
the numbers that an uncaptured one gives, so it does not matter to the result which of the two a step was.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from tenfold.engines.torch.feed import Picked

WARM_UP = 3  # uncaptured steps of each shape, as many as torch.cuda.make_graphed_callables takes
AHEAD = 2  # steps that the host may be ahead of the device

Work = Callable[[], None]


class Backend(Protocol):
    def capture(self, work: Work) -> Work:
        """Records what ``work`` does on the device without doing it, and returns what does it. Raises
        torch.OutOfMemoryError, or RuntimeError where an operation can't be recorded."""

    def wait(self) -> None:
        """Until the device has done all that was launched."""


class StepGraphs:
    """The graph of the steps of one shape at a time: a new key gives up the graph before it, and its memory."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.broken: str | None = None  # why no step can be captured
        self._key: Hashable = None
        self._taken = 0
        self._launch: Work | None = None
        self._static: Picked | None = None

    def take(self, key: Hashable, picked: Picked, work: Callable[[Picked], None]) -> bool:
        """Does ``work`` for the images of a step by a graph; False, and nothing done, where the caller is to do it.

        ``key`` is all that changes what ``work`` computes beside the values in tensors: sizes, numbers of pieces.
        """
        if self.broken is not None:
            return False
        if key != self._key or not _fit(self._static, picked):
            self.release()
            self._key, self._static = key, _buffers(picked)
        if self._taken < WARM_UP:
            self._taken += 1
            return False
        assert self._static is not None
        static = self._static
        _write(static, picked)
        if self._launch is None:
            try:
                self._launch = self.backend.capture(lambda: work(static))
            except torch.OutOfMemoryError:
                self.release()
                raise
            except RuntimeError as error:
                self.broken = str(error).strip().partition("\n")[0]
                self.release()
                return False
        self._launch()
        return True

    def release(self) -> None:
        if self._launch is not None:
            self.backend.wait()  # its memory is in use for as long as it runs
        self._key, self._taken, self._launch, self._static = None, 0, None, None


def _buffers(picked: Picked) -> Picked:
    """Room for a step's images, labels and sides. Pixels that stay where they are are taken as they are."""
    return replace(picked, **{name: torch.empty_like(t) for name, t in _changing(picked).items()})


def _write(static: Picked, picked: Picked) -> None:
    for name, tensor in _changing(picked).items():
        getattr(static, name).copy_(tensor)


def _changing(picked: Picked) -> dict[str, Tensor]:
    """The tensors of ``picked`` that are others each step. Resident pixels are more than a step's images."""
    streamed = len(picked.pixels) == len(picked.index)
    found = {f.name: getattr(picked, f.name) for f in fields(picked) if f.name != "pixels" or streamed}
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def _fit(static: Picked | None, picked: Picked) -> bool:
    if static is None:
        return False
    changing = _changing(picked)
    if "pixels" not in changing and static.pixels is not picked.pixels:
        return False
    return all(
        isinstance(own := getattr(static, n), Tensor) and own.shape == t.shape and own.dtype == t.dtype
        for n, t in changing.items()
    )


class Cuda:
    """Capture on the current stream, which must not be the device's default one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def capture(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream(self.device)
        try:
            # thread_local: the thread that reads batches ahead may pin memory meanwhile
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                work()
        except BaseException as error:
            self._clean_up(graph, pool)
            if isinstance(error.__context__, torch.OutOfMemoryError):  # the capture broke because memory ran out
                raise error.__context__ from None
            raise

        def launch() -> None:
            graph.replay()

        return launch

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def _clean_up(self, graph: torch.cuda.CUDAGraph, pool: Any) -> None:
        """What a broken capture leaves behind (PyTorch 2.11 to 2.13): the allocator still expects it to go on, and the
        default generator may."""
        with contextlib.suppress(RuntimeError):
            graph.reset()
        index = torch.cuda.current_device() if self.device.index is None else self.device.index
        with contextlib.suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(index, pool)
            torch._C._cuda_releasePool(index, pool)
        with contextlib.suppress(RuntimeError, AttributeError):
            fresh = torch.Generator(torch.device("cuda", index))
            torch.cuda.default_generators[index].graphsafe_set_state(fresh.graphsafe_get_state())
        with contextlib.suppress(RuntimeError):
            self.wait()


class Pace:
    """Keeps the host at most AHEAD steps before the device. Graphs are launched so much faster than they run that a
    time limit, Ctrl-C and the display would otherwise meet a long queue."""

    def __init__(self, event: Callable[[], Any]) -> None:
        self._event = event
        self._under_way: deque[Any] = deque()

    def step(self) -> None:
        """After the last launch of a step: waits until the step AHEAD of it before is done."""
        event = self._event()
        event.record()
        self._under_way.append(event)
        if len(self._under_way) > AHEAD:
            self._under_way.popleft().synchronize()
