"""JAX behind Keras."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from typing import Any

# A GPU's memory is taken as it is needed, and the same work gives the same bits: both are read when JAX is loaded.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if "xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"

import jax
import numpy as np

from tenfold import hardware, paths
from tenfold.engines.base import Device
from tenfold.engines.keras.cpu_conv import cpu_conv
from tenfold.engines.keras.framework import Array, Framework, Tree


class Jax(Framework):
    name = "jax"

    def versions(self) -> dict[str, str]:
        import jaxlib

        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}

    def cards(self) -> list[Device]:
        return [
            Device(f"cuda:{i}", card.device_kind, (card.memory_stats() or {}).get("bytes_limit"))
            for i, card in enumerate(_cards())
        ]

    def prepare(self, device: Device, precision: str) -> None:
        jax.config.update("jax_default_matmul_precision", "highest" if precision == "fp32" else None)

    def on(self, device: Device) -> contextlib.AbstractContextManager[Any]:
        return jax.default_device(_native(device))

    def send(self, tree: Tree, device: Device) -> Tree:
        return jax.device_put(tree, _native(device))

    def fetch(self, tree: Tree) -> Tree:
        return jax.tree.map(np.asarray, jax.device_get(tree))

    def compiled(
        self, function: Callable[..., Tree], device: Device, *, spend_first: bool = False
    ) -> Callable[..., Any]:
        run = jax.jit(function, donate_argnums=(0,) if spend_first else ())

        def on_device(*arguments: Tree) -> Tree:
            with self.on(device):
                return run(*arguments)

        return on_device

    def conv(self, x: Array, kernel: Array, stride: int, padding: str) -> Array:
        if stride > 1 or not _on_cpu():
            return super().conv(x, kernel, stride, padding)
        return cpu_conv(x, kernel, kernel.shape[0] // 2 if padding == "same" else 0)

    def value_and_gradients(
        self, function: Callable[[dict[str, Array]], tuple[Array, Tree]], at: dict[str, Array]
    ) -> tuple[Array, Tree, dict[str, Array]]:
        (value, beside), gradients = jax.value_and_grad(function, has_aux=True)(at)
        return value, beside, gradients

    def memory_bytes(self, device: Device) -> int:
        if device.name == "cpu":
            return hardware.peak_memory_bytes()
        return int((_native(device).memory_stats() or {}).get("peak_bytes_in_use", 0))

    def free_bytes(self, device: Device) -> int:
        stats = _native(device).memory_stats() or {}
        return int(stats.get("bytes_limit", 0)) - int(stats.get("bytes_in_use", 0))

    def out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def _on_cpu() -> bool:
    """Whether what is being traced will run on the CPU: see :meth:`Jax.on`."""
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    return (device.platform if device is not None else jax.default_backend()) == "cpu"


def _cards() -> list[Any]:
    try:
        return jax.devices("gpu")
    except RuntimeError:  # no build for GPUs, or none there
        return []


def _native(device: Device) -> Any:
    if device.name == "cpu":
        return jax.devices("cpu")[0]
    return _cards()[int(device.name.partition(":")[2])]


def _keep_compiled() -> None:
    """Compiled steps are kept from one run to the next, by the processor they are for."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    processor = " ".join([hardware.cpu_name(), *sorted(hardware.cpu_flags() or ())])
    kind = hashlib.sha256(processor.encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(paths.cache_folder() / "xla" / kind))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def framework() -> Framework:
    _keep_compiled()
    return Jax()
