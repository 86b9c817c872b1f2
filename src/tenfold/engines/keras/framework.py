"""What TensorFlow and JAX spell differently: gradients, compilation, devices. All else is written once, on Keras.

``on_jax`` and ``on_tensorflow`` each have one class; :func:`chosen` gives the one of this process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from tenfold.engines.base import Device
from tenfold.errors import UnsupportedError

Array = Any
Tree = Any
"""Arrays in dicts, lists and tuples; None is an empty place."""


class Framework(ABC):
    name: str
    fast_bf16_on_cpu = False  # whether bf16 takes less time than fp32 on a CPU with AMX

    @abstractmethod
    def versions(self) -> dict[str, str]: ...

    @abstractmethod
    def cards(self) -> list[Device]:
        """GPUs that this process can use, called ``cuda:0``, ``cuda:1`` …"""

    @abstractmethod
    def prepare(self, device: Device, precision: str) -> None:
        """The framework's switches, before anything is computed: what is repeated gives the same bits, and fp32 is not
        rounded to TF32."""

    @abstractmethod
    def on(self, device: Device) -> contextlib.AbstractContextManager[Any]:
        """What is made or computed in the block lies on ``device``."""

    @abstractmethod
    def send(self, tree: Tree, device: Device) -> Tree:
        """NumPy arrays as arrays of the framework, on the device."""

    @abstractmethod
    def fetch(self, tree: Tree) -> Tree:
        """NumPy arrays of what lies on a device, which is waited for."""

    @abstractmethod
    def compiled(
        self, function: Callable[..., Tree], device: Device, *, spend_first: bool = False
    ) -> Callable[..., Any]:
        """``function`` compiled for each new set of shapes. ``spend_first``: the memory of its first argument may be
        taken for the results."""

    def fused(self, function: Callable[..., Tree]) -> Callable[..., Tree]:
        """``function`` as one kernel even where what is around it is not compiled as a whole. It has no gradient with
        respect to anything but its arguments."""
        return function

    def conv(self, x: Array, kernel: Array, stride: int, padding: str) -> Array:
        """N×H×W×C by a kernel rows×columns×in×out; ``padding`` is same or valid."""
        from keras import ops

        return ops.conv(x, kernel, stride, padding, "channels_last")

    def max_pool(self, x: Array, size: int) -> Array:
        """The maxima of windows side by side in N×H×W×C, without what doesn't fill one at the edge; by the way whose
        gradient is the cheaper one."""
        from keras import ops

        rows, columns = (d // size * size for d in x.shape[1:3])
        x = functools.reduce(ops.maximum, (x[:, i:rows:size] for i in range(size)))
        return functools.reduce(ops.maximum, (x[:, :, i:columns:size] for i in range(size)))

    @abstractmethod
    def value_and_gradients(
        self, function: Callable[[dict[str, Array]], tuple[Array, Tree]], at: dict[str, Array]
    ) -> tuple[Array, Tree, dict[str, Array]]:
        """(value, what the function gives beside it, gradients by name) of ``function`` at ``at``."""

    @abstractmethod
    def memory_bytes(self, device: Device) -> int:
        """The most of a card's memory used so far."""

    @abstractmethod
    def free_bytes(self, device: Device) -> int:
        """What is free of a card's memory."""

    @abstractmethod
    def out_of_memory(self, error: BaseException) -> bool:
        """Whether ``error`` says that the device's memory ran out."""


def load(name: str) -> None:
    """Chooses Keras's backend for this process; to be called before anything imports Keras.

    Raises UnsupportedError where Keras is loaded with another one.
    """
    loaded = sys.modules.get("keras")
    if loaded is not None and hasattr(loaded, "backend") and loaded.backend.backend() != name:
        raise UnsupportedError(
            f"Keras is already loaded with {loaded.backend.backend()} in this process, so {name} can't be.",
            f"One engine a process: start another one for {name}, or set KERAS_BACKEND={name} before importing keras.",
        )
    os.environ["KERAS_BACKEND"] = name
    chosen.cache_clear()
    chosen()


@functools.cache
def chosen() -> Framework:
    """The framework of this process."""
    name = os.environ["KERAS_BACKEND"]
    framework: Framework = importlib.import_module(f"tenfold.engines.keras.on_{name}").framework()
    return framework
