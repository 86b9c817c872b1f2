"""What ``tenfold doctor`` finds out: plain facts, no drawing.

Frameworks are asked in processes of their own, at once and with a time limit: a broken installation that
hangs or takes its process down with it is then a line of the report and not the end of it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tenfold import hardware, paths

PROBE_SECONDS = 60.0
WALK_SECONDS = 1.0
LITTLE_BYTES = 2_000_000_000  # CIFAR-10 as an archive, unpacked and in the cache takes a quarter of this

# Extras that are no feature of their own.
_NOT_FEATURES = ("all", "dev")

# What the extras bring, in words.
PURPOSES = {
    "torch": "training with PyTorch, and the report",
    "tensorflow": "training with TensorFlow, and the report",
    "jax": "training with JAX, and the report",
    "opencl": "training on any card with an OpenCL driver, and the report",
    "timm": "networks of timm and their pretrained weights",
    "tensorboard": "TensorBoard event files",
    "openvino": "verifying a model in a second runtime, exporting to OpenVINO",
    "litert": "models of tenfold export in LiteRT (writing them needs TensorFlow too)",
    "notebook": "live curves and pictures in a notebook",
    "tune": "searching a better recipe with tenfold tune",
    "nvml": "the energy that NVIDIA cards use, in tenfold compare",
}

_ENGINE = """
import json, sys, time
start = time.perf_counter()
from tenfold.engines import base
engine = base.load(sys.argv[1])
devices = [{"name": d.name, "label": d.label, "memory_bytes": d.memory} for d in engine.devices()]
found = {"versions": engine.versions(), "devices": devices, "seconds": time.perf_counter() - start}
print("\\n" + json.dumps(found))
"""

_RUNTIME = """
import json, onnxruntime
found = {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}
print("\\n" + json.dumps(found))
"""


def diagnose() -> dict[str, Any]:
    """Everything the report shows, in plain JSON; ``advice`` lists what is missing with the command for it.

    ``ok`` is False where something that is installed is broken or a needed package is missing.
    """
    from tenfold import __version__

    probes = {name: _start(_ENGINE, name) for name in _engines()}
    runtime = _start(_RUNTIME)
    found: dict[str, Any] = {
        "tenfold": __version__,
        "python": {"version": platform.python_version(), "path": sys.executable},
        "system": system(),
        **packages(),
        "data": data(),
        "cache": _place(paths.cache_folder()),
        "runs": _place(paths.runs_folder()),
        "engines": {name: _answer(probe) for name, probe in probes.items()},
        "runtimes": {"onnxruntime": _answer(runtime)},
    }
    found["advice"] = list(advice(found))
    parts = [*found["engines"].values(), *found["runtimes"].values()]
    found["ok"] = not found["missing_packages"] and all(p["state"] != "broken" for p in parts)
    return found


# ---- the machine -------------------------------------------------------------------------------------------


def system() -> dict[str, Any]:
    return {
        **hardware.describe(),
        "machine": platform.machine(),
        "memory_available_bytes": _memory_available(),
        "threads_set": {k: os.environ[k] for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if k in os.environ},
        "cpu_features": cpu_features(),
        "gpus": drivers(),
    }


def cpu_features() -> dict[str, bool] | None:
    """Instruction sets that decide how fast training on the processor is; None where the system doesn't tell."""
    flags = hardware.cpu_flags()
    if flags is None:
        return None
    if platform.machine() in ("aarch64", "arm64"):
        return {"neon": "asimd" in flags, "sve": "sve" in flags, "bf16": "bf16" in flags, "i8mm": "i8mm" in flags}
    return {
        "avx2": "avx2" in flags,
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "amx_bf16": "amx_bf16" in flags,
    }


def _memory_available() -> int | None:
    with suppress(OSError, ValueError):
        match = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else None
    return None


def drivers() -> list[str]:
    """Makers of graphics cards whose driver is loaded, whether or not a framework can use them."""
    found = []
    if Path("/proc/driver/nvidia/version").exists() or (os.name == "nt" and shutil.which("nvidia-smi")):
        found.append("nvidia")
    if Path("/dev/kfd").exists():
        found.append("amd")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found.append("apple")
    return found


# ---- packages ----------------------------------------------------------------------------------------------


def packages() -> dict[str, Any]:
    """``packages`` needed and their versions, those missing, and the ``extras``, as tenfold's metadata says."""
    try:
        requirements = importlib.metadata.requires("tenfold") or []
    except importlib.metadata.PackageNotFoundError:  # run from the source without being installed
        return {"packages": {}, "missing_packages": [], "extras": {}}
    needed: dict[str, str | None] = {}
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in requirements:
        name = re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if extra is None:
            needed[name] = _version(name)
        elif extra[1] not in _NOT_FEATURES:
            extras.setdefault(extra[1], {})[name] = _version(name)
    return {
        "packages": dict(sorted(needed.items())),
        "missing_packages": [name for name, version in needed.items() if version is None],
        "extras": {name: _extra(name, members) for name, members in sorted(extras.items())},
    }


def _extra(name: str, members: dict[str, str | None]) -> dict[str, Any]:
    missing = sorted(package for package, version in members.items() if version is None)
    return {
        "purpose": PURPOSES.get(name, ""),
        "installed": not missing,
        "packages": dict(sorted(members.items())),
        "missing": missing,
        "command": f"pip install 'tenfold[{name}]'",
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# ---- frameworks --------------------------------------------------------------------------------------------


def _engines() -> list[str]:
    from tenfold.engines import base

    return list(base.ENGINES)


def _start(code: str, *arguments: str) -> subprocess.Popen[str] | None:
    """A process that prints one line of JSON last; None for an engine whose package isn't installed."""
    from tenfold.engines import base

    if arguments and base.ENGINES[arguments[0]].missing():
        return None
    environment = {**os.environ, "PYTHONFAULTHANDLER": "", "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
    )


def _answer(process: subprocess.Popen[str] | None) -> dict[str, Any]:
    """``state``: ``ok``, ``missing`` or ``broken`` with the ``error`` in a line."""
    if process is None:
        return {"state": "missing"}
    try:
        output, errors = process.communicate(timeout=PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"state": "broken", "error": f"did not answer within {PROBE_SECONDS:.0f} seconds"}
    lines = [line for line in output.splitlines() if line.strip()]
    if process.returncode == 0 and lines:
        with suppress(ValueError):
            return {"state": "ok", **json.loads(lines[-1])}
    said = [line for line in errors.splitlines() if line.strip()]
    if process.returncode < 0:
        return {"state": "broken", "error": f"importing it ended the process by signal {-process.returncode}"}
    return {"state": "broken", "error": said[-1] if said else f"exit code {process.returncode}"}


# ---- places ------------------------------------------------------------------------------------------------


def data() -> dict[str, Any]:
    """The datasets known by name with where they lie (None: would be downloaded), and the folders searched."""
    from tenfold.data import cifar

    folders = paths.data_folders()
    datasets: dict[str, str | None] = {"digits": "built in"}
    for name, variant in cifar.VARIANTS.items():
        found = cifar.find(variant, folders)
        datasets[name] = str(found.path) if found else None
    searched = [{"path": str(f), "exists": f.is_dir()} for f in folders]
    return {"datasets": datasets, "folders": searched, "TENFOLD_DATA": os.environ.get("TENFOLD_DATA")}


def _place(folder: Path) -> dict[str, Any]:
    """A folder that tenfold writes to: whether it is there, how much is in it, and how much is free."""
    folder = folder.absolute()
    size, files, whole = _measure(folder)
    existing = next((p for p in (folder, *folder.parents) if p.is_dir()), Path("/"))
    return {
        "path": str(folder),
        "exists": folder.is_dir(),
        "size_bytes": size,
        "files": files,
        "counted_all": whole,
        "writable": os.access(existing, os.W_OK),
        "free_bytes": shutil.disk_usage(existing).free,
    }


def _measure(folder: Path) -> tuple[int, int, bool]:
    """Bytes and files below ``folder``, and whether all were counted within WALK_SECONDS."""
    size = files = 0
    end = time.monotonic() + WALK_SECONDS
    for entry in _walk(folder):
        with suppress(OSError):
            size += entry.stat(follow_symlinks=False).st_size
            files += 1
        if time.monotonic() > end:
            return size, files, False
    return size, files, True


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry


# ---- advice ------------------------------------------------------------------------------------------------


def advice(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    """For each thing that is missing: what that means, and the command that brings it."""
    if found["missing_packages"]:
        names = ", ".join(found["missing_packages"])
        yield _item(f"Packages that tenfold needs are missing: {names}.", "pip install --upgrade tenfold")
    for name, extra in found["extras"].items():
        useless = name == "nvml" and "nvidia" not in found["system"]["gpus"]
        if extra["missing"] and not useless:
            missing = ", ".join(extra["missing"])
            yield _item(f"For {extra['purpose']}: {missing}.", extra["command"])
    for name, part in [*found["engines"].items(), *found["runtimes"].items()]:
        if part["state"] == "broken":
            yield _item(f"{name} is broken: {part['error']}.", f"pip install --force-reinstall {_package(name)}")
    yield from _about_cards(found["system"]["gpus"], found["engines"].get("torch", {}))
    yield from _about_opencl(found["system"]["gpus"], found["engines"])
    for name, place in found["data"]["datasets"].items():
        if place is None:
            yield _item(f"{name} is not here; its first use downloads it.", f"tenfold show {name}")
    for kind in ("cache", "runs"):
        place = found[kind]
        if not place["writable"]:
            variable = f"TENFOLD_{kind.upper()}"
            yield _item(f"{place['path']} can't be written to.", f"export {variable}=/a/folder/of/yours")
        elif place["free_bytes"] < LITTLE_BYTES:
            yield _item(f"Little room is left for {kind} at {place['path']}.", f"df -h {shlex.quote(place['path'])}")


def _about_cards(cards: list[str], torch: dict[str, Any]) -> Iterator[dict[str, str]]:
    if torch.get("state") != "ok":
        return
    usable = {device["name"].split(":")[0] for device in torch["devices"]}
    versions = torch["versions"]
    if "nvidia" in cards and "cuda" not in usable:
        why = "finds no card" if "cuda" in versions else "has no CUDA in it"
        yield _item(f"An NVIDIA driver is loaded, but this build of PyTorch {why}.", _rebuild("CUDA"))
    if "amd" in cards and "hip" not in versions:
        yield _item("An AMD card is here, but this build of PyTorch has no ROCm in it.", _rebuild("ROCm"))


def _about_opencl(cards: list[str], engines: dict[str, Any]) -> Iterator[dict[str, str]]:
    """An OpenCL driver for a processor or a card without one; and which of its two roads an AMD card may take."""
    opencl = engines.get("opencl", {"state": "missing"})
    on_card = any(device["name"] != "cpu" for device in opencl.get("devices", []))
    if opencl["state"] == "ok" and not opencl["devices"]:
        command = "sudo apt install pocl-opencl-icd ocl-icd-libopencl1  # for a processor"
        yield _item("The opencl engine finds no OpenCL driver.", command)
    if "amd" not in cards or "hip" in engines.get("torch", {}).get("versions", {}):
        return
    if opencl["state"] == "missing":
        yield _item("Where ROCm does not know the AMD card, the opencl engine may.", "pip install 'tenfold[opencl]'")
    elif opencl["state"] == "ok" and not on_card:
        yield _item(
            "The AMD card has no OpenCL driver.",
            "sudo apt install mesa-opencl-icd  # or rocm-opencl-runtime, AMD's own",
        )
    elif opencl["state"] == "ok":
        yield _item("Without ROCm the AMD card trains through OpenCL.", "tenfold train digits --engine opencl")


def _package(name: str) -> str:
    """The package whose new installation may mend an engine or a runtime."""
    from tenfold.engines import base

    return base.ENGINES[name].packages[0] if name in base.ENGINES else name


def _rebuild(kind: str) -> str:
    return f"pip install --force-reinstall torch  # the {kind} build, see https://pytorch.org/get-started/locally"


def _item(problem: str, command: str) -> dict[str, str]:
    return {"problem": problem, "command": command}
