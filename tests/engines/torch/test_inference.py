from __future__ import annotations

import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from tenfold.architecture import weights, zoo  # noqa: E402
from tenfold.engines.torch import build, inference  # noqa: E402
from tenfold.recipe import Model  # noqa: E402


class Names(TorchDispatchMode):
    """The names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def network(images: np.ndarray) -> torch.nn.Module:
    architecture = zoo.build(Model(name="sprint", widths=(4, 8)), 16, 16, 4)
    net = build.build(architecture)
    build.load_weights(net, architecture, weights.initial(architecture, 0, images))
    return net


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), np.uint8)


def test_each_core_answers_batches_of_its_own_and_in_order(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    net, cpu = network(images), torch.device("cpu")
    used: set[str] = set()
    net.register_forward_hook(lambda *_: used.add(threading.current_thread().name))
    found = {}
    for threads in (1, 3):
        used.clear()
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found[threads] = inference.logits(net, images, cpu, 8, "fp32")
        assert (threading.current_thread().name in used) == (threads == 1)
    assert np.array_equal(found[1], found[3])


def test_pixels_on_the_device_are_answered_without_a_wait_between_batches(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # what is seen below is a thread's
    net = network(images)
    cpu = torch.device("cpu")
    wanted = inference.logits(net, images, cpu, 8, "fp32")
    sent: list[int] = []
    there = torch.from_numpy(images)

    def resident(given: np.ndarray, device: torch.device) -> torch.Tensor:
        sent.append(len(given))
        return there

    monkeypatch.setattr(inference, "resident", resident)
    with Names() as names:
        found = inference.logits(net, images, cpu, 8, "fp32")
    assert np.array_equal(found, wanted)
    assert sent == [50]  # at once, not by batches
    assert names.seen and not any("_local_scalar_dense" in name or "lift_fresh" in name for name in names.seen)
    assert np.array_equal(inference.logits(net, torch.from_numpy(images), cpu, 8, "fp32"), wanted)
    assert sent == [50]


def test_large_pictures_are_answered_in_small_batches_on_a_cpu(images: np.ndarray) -> None:
    net = network(images)
    seen: list[int] = []
    net.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    large = images.repeat(8, axis=1).repeat(8, axis=2)
    out = inference.logits(net, large, torch.device("cpu"), 500, "fp32")
    assert out.shape == (50, 4) and sum(seen) == 50
    assert max(seen) == inference.CPU_PIXELS // 128**2
