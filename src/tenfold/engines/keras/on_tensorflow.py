"""TensorFlow behind Keras."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is loaded

import numpy as np

from tenfold import hardware
from tenfold.engines.base import Device
from tenfold.engines.keras.framework import Array, Framework, Tree


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps what libraries write to standard error to themselves, unless the block fails: TensorFlow tells which
    instruction sets it uses and that there is no card, at any level of logging."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


with _quietly():
    import tensorflow as tf


class TensorFlow(Framework):
    name = "tensorflow"
    fast_bf16_on_cpu = True  # oneDNN's

    def versions(self) -> dict[str, str]:
        found = {"tensorflow": str(tf.__version__)}
        build = tf.sysconfig.get_build_info()
        for name, key in (("cuda", "cuda_version"), ("cudnn", "cudnn_version")):
            if build.get(key):
                found[name] = str(build[key])
        return found

    def cards(self) -> list[Device]:
        found = []
        for i, card in enumerate(tf.config.list_physical_devices("GPU")):
            details = tf.config.experimental.get_device_details(card)
            found.append(Device(f"cuda:{i}", details.get("device_name", "GPU")))
        return found

    def prepare(self, device: Device, precision: str) -> None:
        tf.config.experimental.enable_tensor_float_32_execution(precision != "fp32")

    def on(self, device: Device) -> contextlib.AbstractContextManager[Any]:
        return tf.device(_native(device))

    def send(self, tree: Tree, device: Device) -> Tree:
        with self.on(device):
            return tf.nest.map_structure(lambda a: None if a is None else tf.convert_to_tensor(a), tree)

    def fetch(self, tree: Tree) -> Tree:
        return tf.nest.map_structure(lambda a: None if a is None else np.array(a.numpy()), tree)

    def compiled(
        self, function: Callable[..., Tree], device: Device, *, spend_first: bool = False
    ) -> Callable[..., Any]:
        # on a CPU oneDNN's convolutions are faster than those that XLA compiles
        run = tf.function(function, jit_compile=device.name != "cpu", autograph=False)

        def on_device(*arguments: Tree) -> Tree:
            with self.on(device):
                return run(*arguments)

        return on_device

    def fused(self, function: Callable[..., Tree]) -> Callable[..., Tree]:
        # TensorFlow alone would pass over the memory once for every operation
        return tf.function(function, jit_compile=True, autograph=False)

    def max_pool(self, x: Array, size: int) -> Array:
        return tf.nn.max_pool2d(x, size, size, "VALID")

    def value_and_gradients(
        self, function: Callable[[dict[str, Array]], tuple[Array, Tree]], at: dict[str, Array]
    ) -> tuple[Array, Tree, dict[str, Array]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(at.values()))
            value, beside = function(at)
        return value, beside, tape.gradient(value, at)

    def memory_bytes(self, device: Device) -> int:
        if device.name == "cpu":
            return hardware.peak_memory_bytes()
        return int(tf.config.experimental.get_memory_info(_native(device)[1:])["peak"])

    def free_bytes(self, device: Device) -> int:
        return 8 << 30  # TensorFlow does not tell; a card for training has at least this

    def out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, tf.errors.ResourceExhaustedError)


def _native(device: Device) -> str:
    kind, _, number = device.name.partition(":")
    return "/CPU:0" if kind == "cpu" else f"/GPU:{number}"


def framework() -> Framework:
    with _quietly():
        cards = tf.config.list_physical_devices("GPU")
    for card in cards:
        with contextlib.suppress(RuntimeError):  # the program that loaded TensorFlow has used it: its setting stays
            tf.config.experimental.set_memory_growth(card, True)
    if cards:
        tf.config.experimental.enable_op_determinism()
    return TensorFlow()
