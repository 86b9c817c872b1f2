"""What tinygrad can compute on here: OpenCL devices, and tinygrad's own runtimes for graphics cards.

The devices of all OpenCL drivers are given to tinygrad in one order, graphics cards before processors, so that a name
means the same device for both; by itself tinygrad sees the first driver's only.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold import hardware
from tenfold.engines.base import Device
from tenfold.engines.tinygrad import pocl
from tenfold.errors import UnknownNameError, UnsupportedError

NO_DRIVER = (
    "Install the loader ocl-icd-libopencl1 and a driver: pocl-opencl-icd for a processor, intel-opencl-icd for Intel's "
    "cards, mesa-opencl-icd or rocm-opencl-runtime for AMD's."
)

# tinygrad's runtimes beside OpenCL: tenfold's name, what people call it, and the file without which none is there
_RUNTIMES = {
    "metal": ("Metal", None),
    "amd": ("tinygrad's own AMD runtime", Path("/dev/kfd")),
    "cuda": ("CUDA", Path("/proc/driver/nvidia/version")),
}


@dataclass(frozen=True)
class OpenCL:
    """An OpenCL device: ``handle`` is its cl_device_id, ``driver`` the platform that offers it."""

    handle: Any
    name: str
    driver: str
    memory: int
    processor: bool


def found() -> list[Device]:
    """All devices of this process, the fastest first; ``cpu`` is the last, where there is one."""
    own = _runtimes()
    cards, rest = _opencl_devices()
    ordered = [*own, *cards] if sys.platform == "darwin" else [*cards, *own]
    return [*ordered, *rest, *_own_cpu(bool(rest))]


def find(name: str) -> Device:
    """The device called ``name``; ``auto`` is the fastest. Where OpenCL has it, no other runtime is opened."""
    wanted = f"{name}:0" if name in ("opencl", "amd", "cuda") else name
    cards, rest = _opencl_devices()
    known = [*cards, *rest]
    if name == "auto" and cards and sys.platform != "darwin":
        return cards[0]
    if wanted not in [device.name for device in known]:
        known = found()
    if not known:
        raise UnsupportedError("The opencl engine finds no device on this machine.", NO_DRIVER)
    if name == "auto":
        return known[0]
    for device in known:
        if device.name == wanted:
            return device
    if name == "cpu":
        raise UnsupportedError("The opencl engine has no driver for this machine's processor.", NO_DRIVER)
    raise UnknownNameError("device", name, ["auto", *(d.name for d in known)], where=" for the opencl engine here")


def place(device: Device) -> str:
    """What tinygrad calls a device."""
    name = device.name
    if name == "cpu":
        first = next((index for index, one in enumerate(opencl()) if one.processor), None)
        name = "cpu" if first is None else f"opencl:{first}"
    return name.replace("opencl", "cl").upper().removesuffix(":0")


def on_processor(device: Device) -> bool:
    return device.name == "cpu"


@contextlib.contextmanager
def default(device: Device) -> Iterator[None]:
    """What tinygrad makes by itself while the block runs lies on ``device``: it would look for one otherwise."""
    # tinygrad's helpers that compile are processes, which it starts anew after 16 kernels unless told otherwise
    os.environ.setdefault("BEAM_MAX_TASKS_PER_CHILD", "10000")
    from tinygrad.helpers import Context

    _prepared(place(device))
    with Context(DEV=place(device).split(":")[0]):
        yield


@functools.cache
def _prepared(where: str) -> None:
    if not where.startswith("CL"):
        return
    from tinygrad import Device as Devices

    index = int(where.partition(":")[2] or 0)
    if opencl()[index].driver == pocl.PLATFORM:
        pocl.take_source(Devices[where])


# ---- OpenCL --------------------------------------------------------------------------------------------------------


def _opencl_devices() -> tuple[list[Device], list[Device]]:
    """(graphics cards, processors): the first processor is ``cpu`` and stands last."""
    cards: list[Device] = []
    processors: list[Device] = []
    for index, one in enumerate(opencl()):
        device = Device("cpu" if one.processor and not processors else f"opencl:{index}", _label(one), one.memory)
        (processors if one.processor else cards).append(device)
    return cards, processors[::-1]


def _label(one: OpenCL) -> str:
    name = hardware.cpu_name() if one.processor else one.name
    return f"{name} (OpenCL, {one.driver})"


@functools.cache
def opencl() -> tuple[OpenCL, ...]:
    """The devices of every OpenCL driver, as tinygrad numbers them from now on; none where there is no driver."""
    try:
        from tinygrad.runtime.autogen import opencl as cl

        seen = [device for platform in _platforms(cl) for device in _of_platform(cl, platform)]
    except (ImportError, AttributeError, OSError):  # no libOpenCL
        return ()
    ordered = tuple(sorted(seen, key=lambda one: one.processor))
    if ordered:
        from tinygrad.runtime.ops_cl import CLDevice

        handles = (cl.cl_device_id * len(ordered))(*(one.handle for one in ordered))
        CLDevice.device_ids = handles
    return ordered


def _platforms(cl: Any) -> list[Any]:
    number = ctypes.c_uint32()
    if cl.clGetPlatformIDs(0, None, number) != 0 or not number.value:
        return []
    handles = (cl.cl_platform_id * number.value)()
    cl.clGetPlatformIDs(number.value, handles, None)
    return list(handles)


def _of_platform(cl: Any, platform: Any) -> list[OpenCL]:
    number = ctypes.c_uint32()
    if cl.clGetDeviceIDs(platform, cl.CL_DEVICE_TYPE_ALL, 0, None, number) != 0 or not number.value:
        return []
    handles = (cl.cl_device_id * number.value)()
    cl.clGetDeviceIDs(platform, cl.CL_DEVICE_TYPE_ALL, number.value, handles, None)
    driver = _text(cl.clGetPlatformInfo, platform, cl.CL_PLATFORM_NAME)
    return [
        OpenCL(
            handle,
            _text(cl.clGetDeviceInfo, handle, cl.CL_DEVICE_NAME),
            driver,
            _number(cl.clGetDeviceInfo, handle, cl.CL_DEVICE_GLOBAL_MEM_SIZE),
            bool(_number(cl.clGetDeviceInfo, handle, cl.CL_DEVICE_TYPE) & cl.CL_DEVICE_TYPE_CPU),
        )
        for handle in handles
    ]


def _text(ask: Any, of: Any, what: int) -> str:
    buffer = ctypes.create_string_buffer(1024)
    ask(of, what, 1024, buffer, None)
    return " ".join(buffer.value.decode(errors="replace").split())


def _number(ask: Any, of: Any, what: int) -> int:
    value = ctypes.c_uint64()
    ask(of, what, 8, ctypes.byref(value), None)
    return value.value


# ---- tinygrad's own runtimes ---------------------------------------------------------------------------------------


def _runtimes() -> list[Device]:
    """Graphics cards that tinygrad reaches without OpenCL, each opened to see that it can be."""
    devices = []
    for name, (label, needs) in _RUNTIMES.items():
        if (sys.platform != "darwin") if needs is None else not needs.exists():
            continue
        for index in range(_opened(name.upper())):
            devices.append(Device(name if name == "metal" else f"{name}:{index}", f"card {index} ({label})"))
    return devices


@functools.cache
def _opened(runtime: str) -> int:
    """How many devices the runtime has; 0 where it can't be opened."""
    from tinygrad import Device as Devices

    try:
        opened = Devices[runtime]
        return max(1, int(opened.count()))
    except Exception:
        return 0


def _own_cpu(there: bool) -> list[Device]:
    """tinygrad's own processor runtime, where OpenCL has none and it can compile; it calls clang."""
    if there or not shutil.which("clang") or not _computes("CPU"):
        return []
    return [Device("cpu", f"{hardware.cpu_name()} (tinygrad's own runtime, clang)", hardware.memory_bytes())]


@functools.cache
def _computes(runtime: str) -> bool:
    from tinygrad import Tensor

    try:
        return bool((Tensor([1.0, 2.0], device=runtime) + 1).tolist() == [2.0, 3.0])
    except Exception:
        return False


def memory(device: Device) -> int:
    """Bytes in use: on a processor the most that the process had, else what tinygrad holds on devices now."""
    if on_processor(device):
        return hardware.peak_memory_bytes()
    from tinygrad.helpers import GlobalCounters

    return int(GlobalCounters.mem_used_per_device[place(device)])
