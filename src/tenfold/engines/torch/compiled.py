"""``compile: true``: the network as code that PyTorch's compiler makes for it, kept from one run to the next."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Any

import torch
from torch import Tensor, nn

from tenfold import paths
from tenfold.engines.base import Device
from tenfold.errors import TrainingError, UnsupportedError

_HINT = "Train without it: --set compile=false."


def check(device: Device) -> None:
    """Raises UnsupportedError, naming what is missing, where a network can't be compiled for ``device``."""
    kind = device.name.partition(":")[0]
    if kind not in ("cpu", "cuda", "xpu"):
        raise UnsupportedError(f"compile=true is not available on {device.name}.", _HINT)
    if kind != "cpu" and importlib.util.find_spec("triton") is None:
        raise UnsupportedError(
            f"compile=true needs the package triton on {device.name}.", f"pip install triton. {_HINT}"
        )
    if kind == "cpu" and _compiler() is None:
        raise UnsupportedError(
            "compile=true needs a C++ compiler on the CPU, and none was found.",
            f"Install g++, clang or MSVC, or name one by the variable CXX. {_HINT}",
        )


def _compiler() -> str | None:
    """The C++ compiler that PyTorch would call: CXX's, else the system's usual ones."""
    if given := os.environ.get("CXX"):
        return shutil.which(given)
    names = ("cl",) if sys.platform == "win32" else ("g++", "clang++")
    return next((found for found in map(shutil.which, names) if found), None)


class Compiled:
    """A module's compiled forward and backward; the module itself stays as it is. A size that is new is compiled when
    it comes."""

    def __init__(self, net: nn.Module) -> None:
        # the compiler's own choice is the system's folder for temporary files, which is emptied
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(paths.cache_folder() / "inductor"))
        self._call: Any = torch.compile(net, dynamic=False)

    def __call__(self, x: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException

        try:
            out: Tensor = self._call(x)
        except TorchDynamoException as error:
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise TrainingError(f"PyTorch could not compile the network: {first}", _HINT) from error
        return out
