"""What PyTorch can compute on here, and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from tenfold import hardware
from tenfold.engines.base import Device

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def found() -> list[Device]:
    """The devices of this process, the fastest first, cpu last. ROCm's cards are called cuda, as PyTorch calls them."""
    cards = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(i)
        cards.append(Device(f"cuda:{i}", card.name, card.total_memory))
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        cards += [Device(f"xpu:{i}", torch.xpu.get_device_name(i)) for i in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        cards.append(Device("mps", "Apple GPU"))
    cpu = f"{hardware.cpu_name()}, {torch.get_num_threads()} threads"
    return [*cards, Device("cpu", cpu, hardware.memory_bytes())]


def precision(wanted: str, device: Device) -> str:
    """What ``auto`` means on a device: bf16 where it is computed natively, fp16 on older CUDA, else fp32."""
    if wanted != "auto":
        return wanted
    if device.name.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.name == "cpu":
        amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return "bf16" if amx is not None and amx() else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context in which a module computes in ``precision``; nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])


def prepare(device: torch.device) -> None:
    """PyTorch's switches for training: called once a run."""
    if device.type == "cuda":
        # a resumed run must equal an unbroken one: no algorithm chosen by a race of timings
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        plain_fp32(device)
        torch.cuda.reset_peak_memory_stats(device)


def plain_fp32(device: torch.device) -> None:
    """fp32 means fp32: TF32's ten bits would not agree with the CPU's logits to 1e-4."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


@contextlib.contextmanager
def without_subnormals() -> Iterator[None]:
    """Numbers below 1e-38 are taken as 0, which is many times faster; a setting of the thread, so it is put back."""
    before = not bool((torch.tensor([1e-310], dtype=torch.float64) * 1).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextlib.contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """On CUDA the block's work runs on a stream that is not the default one, where a graph can be captured."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    outer = torch.cuda.current_stream(device)
    stream.wait_stream(outer)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        outer.wait_stream(stream)


def warm_up(device: torch.device) -> None:
    """Creates the device's context and its libraries' handles, which the first operation would wait for."""
    if device.type != "cuda":
        return
    with torch.no_grad():
        x = torch.zeros(8, 8, 8, 8, device=device)
        torch.nn.functional.conv2d(x, x)
        torch.mm(x[0, 0], x[0, 0])
    torch.cuda.synchronize(device)
