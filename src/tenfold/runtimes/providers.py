"""ONNX Runtime's execution providers: which computes, and that it really does. Takes the package ``onnxruntime`` as an
argument, and imports nothing.

Left alone, ONNX Runtime goes on without a provider that can't be had, and computes on the CPU what one can't: it says
so in its log at most. Here a session is of the provider asked for alone, or there is none.
"""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

from tenfold.errors import BundleError, CallError
from tenfold.runtimes.batches import first_line

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
NO_FALLBACK = "session.disable_cpu_ep_fallback"
INSTALL = (
    "On a machine with an NVIDIA card: pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'{}"
)
_DEVICE = re.compile(r"cuda(?::(\d{1,3}))?")


def card_of(device: str) -> int | None:
    """The number of the card that ``device`` names, ``cuda`` or ``cuda:1``; None for ``auto`` and ``cpu``.

    ``auto`` is the CPU: to start on a card takes longer than to answer for a few pictures. Raises CallError for any
    other name.
    """
    if device in ("auto", "cpu"):
        return None
    if (match := _DEVICE.fullmatch(device)) is None:
        raise CallError(
            f"The runtime onnxruntime computes on cpu, cuda or cuda:NUMBER, not on {device}.",
            "For another device take an engine: --runtime torch --device NAME.",
        )
    return int(match[1] or 0)


def require(package: Any, provider: str, more: str = "") -> None:
    """CallError where this build of ONNX Runtime hasn't got ``provider``. ``more``: other packages to install."""
    found = package.get_available_providers()
    if provider not in found:
        raise CallError(f"ONNX Runtime has no {said(provider)} here; it has {listed(found)}.", INSTALL.format(more))


def said(provider: str) -> str:
    """The name by which a provider is known."""
    return {CUDA: "CUDA", TENSORRT: "TensorRT", CPU: "CPU"}.get(provider, provider.removesuffix("ExecutionProvider"))


def listed(providers: list[str]) -> str:
    return ", ".join(map(said, providers)) or "none"


def on_cuda(card: int) -> tuple[str, dict[str, str]]:
    """The CUDA provider on a card. Convolutions and products in float32, not TF32, whose 10 bits are other answers."""
    return CUDA, {"device_id": str(card), "use_tf32": "0"}


def session(package: Any, model: bytes | str, options: Any, wanted: tuple[str, dict[str, str]], where: str) -> Any:
    """An InferenceSession in which ``wanted``, a provider and its options, computes every node.

    Raises CallError where ONNX Runtime hasn't got the provider or can't start it, BundleError where the provider can't
    compute the model.
    """
    provider, settings = wanted
    require(package, provider)
    if hasattr(package, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it tells what it doesn't find, which may not be needed
            package.preload_dlls()
    options.add_session_config_entry(NO_FALLBACK, "1")
    try:
        made = package.InferenceSession(model, options, providers=[(provider, settings)], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise BundleError(
            f"{where} can't be computed by {said(provider)} alone: {first_line(error)}",
            "Either its libraries can't be loaded, or it has no kernel for a part; tenfold doctor names providers.",
        ) from error
    check(made, provider, where)
    return made


def check(session: Any, provider: str, where: str) -> None:
    """CallError where ``session`` is not of ``provider`` first of all."""
    found = session.get_providers()
    if not found or found[0] != provider:
        raise CallError(
            f"{where} was to be computed by {said(provider)}, and ONNX Runtime took {listed(found)}.",
            "Its libraries could not be loaded: their versions must be those that this ONNX Runtime was built for.",
        )
