"""ONNX Runtime's providers: the one asked for computes, or nothing does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tenfold.errors import BundleError, CallError
from tenfold.predict import load
from tenfold.runtimes import providers


def package(*available: str, **more: Any) -> Any:
    """ONNX Runtime, as far as it is asked, with these providers."""
    return SimpleNamespace(get_available_providers=lambda: list(available), __version__="1.2", **more)


@pytest.mark.parametrize(("device", "card"), [("auto", None), ("cpu", None), ("cuda", 0), ("cuda:3", 3)])
def test_names_of_devices(device: str, card: int | None) -> None:
    assert providers.card_of(device) == card


@pytest.mark.parametrize("device", ["mps", "cuda:", "cuda:-1", "CUDA", "opencl:0"])
def test_other_devices_are_an_engines(device: str) -> None:
    with pytest.raises(CallError, match=r"computes on cpu, cuda or cuda:NUMBER, not on .*--runtime torch"):
        providers.card_of(device)


def test_a_build_without_the_provider_is_told_with_what_it_has() -> None:
    with pytest.raises(CallError, match=r"has no CUDA here; it has Azure, CPU\..*onnxruntime-gpu\[cuda,cudnn\]"):
        providers.require(package("AzureExecutionProvider", providers.CPU), providers.CUDA)
    providers.require(package(providers.CUDA, providers.CPU), providers.CUDA)


def test_cuda_is_refused_before_a_model_is_read(tmp_path: Path) -> None:
    if providers.CUDA in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(CallError, match="has no CUDA here"):
        load(tmp_path / "model.onnx", device="cuda")


def test_a_provider_that_does_not_start_is_no_cpu(bundle_folder: Path) -> None:
    """What ONNX Runtime does with a provider that it names and hasn't got: it warns, and would take the CPU."""
    if providers.CUDA in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    claims = package(providers.CUDA, providers.CPU, InferenceSession=onnxruntime.InferenceSession)
    model = (bundle_folder / "model.onnx").read_bytes()
    with pytest.warns(UserWarning), pytest.raises(BundleError, match=r"it can't be computed by CUDA alone: .*CPU EP"):
        providers.session(claims, model, onnxruntime.SessionOptions(), providers.on_cuda(0), "it")


def test_a_session_of_another_provider_is_refused(bundle_folder: Path) -> None:
    session = onnxruntime.InferenceSession(
        (bundle_folder / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"]
    )
    providers.check(session, providers.CPU, "it")
    with pytest.raises(CallError, match="was to be computed by TensorRT, and ONNX Runtime took CPU"):
        providers.check(session, providers.TENSORRT, "it")


def test_what_a_session_is_asked_for() -> None:
    asked: dict[str, Any] = {}

    class Session:
        def __init__(self, model: Any, options: Any, **more: Any) -> None:
            asked.update(more)

        def get_providers(self) -> list[str]:
            return [providers.CUDA, providers.CPU]

    options = onnxruntime.SessionOptions()
    made = package(providers.CUDA, providers.CPU, InferenceSession=Session, preload_dlls=lambda: print("no cuDNN"))
    providers.session(made, b"", options, providers.on_cuda(1), "it")
    assert asked == {"providers": [(providers.CUDA, {"device_id": "1", "use_tf32": "0"})], "enable_fallback": 0}
    assert options.get_session_config_entry(providers.NO_FALLBACK) == "1"


@pytest.mark.cuda
def test_on_a_card_it_gives_the_bundles_answers(bundle_folder: Path) -> None:
    if providers.CUDA not in onnxruntime.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    model, card = load(bundle_folder), load(bundle_folder, device="cuda")
    assert card.runtime.device == "cuda"
    np.testing.assert_allclose(card.probabilities(images), model.probabilities(images), atol=1e-4)
