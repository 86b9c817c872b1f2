from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold.engines.torch import conv  # noqa: E402


@pytest.mark.parametrize("kernel, padding", [(3, 1), (3, 0), (1, 0)])
def test_the_product_is_the_gradient_of_the_kernel(kernel: int, padding: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 6, 7, 4, dtype=torch.float64)
    layer = torch.nn.Conv2d(6, 9, kernel, padding=padding, bias=False, dtype=torch.float64)
    out = layer(x)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    assert torch.allclose(conv.weight_gradient(gradient, x, kernel, padding), layer.weight.grad)


def test_in_bfloat16_it_agrees_with_the_plain_layer_and_is_taken_where_it_pays() -> None:
    torch.manual_seed(0)
    ours = conv.Conv(96, 96, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    plain = torch.nn.Conv2d(96, 96, 3, padding=1, bias=False)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(20, 96, 3, 3)
    found = []
    for layer in (ours, plain):
        images = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(images)
        out.float().square().sum().backward()
        found.append((out.float(), images.grad, layer.weight.grad))
        name = type(out.grad_fn).__name__
        assert ("ByProduct" in name) == (layer is ours)
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() <= 0.02 * theirs.abs().max()


@pytest.mark.parametrize("channels, size", [(32, 3), (96, 15)])
def test_elsewhere_the_layer_is_pytorchs(channels: int, size: int) -> None:
    layer = conv.Conv(channels, channels, 3, padding=1, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        assert "ByProduct" not in type(layer(torch.randn(2, channels, size, size)).grad_fn).__name__


_STRIDED = """
import torch
from tenfold.engines.torch import conv
torch.manual_seed(0)
for few, out in ((4, 6), (6, 16), (7, 8), (16, 24)):
    layer = conv.Conv(few, out, 1, 2, bias=False)
    exact = torch.nn.Conv2d(few, out, 1, 2, bias=False).double()
    exact.load_state_dict(layer.state_dict())
    layer.to(memory_format=torch.channels_last)
    for _ in range(20):
        x = torch.randn(16, few, 16, 16).to(memory_format=torch.channels_last)
        layer.zero_grad(), exact.zero_grad()
        layer(x).square().sum().backward()
        exact(x.double()).square().sum().backward()
        assert (layer.weight.grad - exact.weight.grad).abs().max() < 1e-4 * exact.weight.grad.abs().max()
print("sound")
"""


def test_a_strided_kernel_of_one_pixel_and_few_channels_keeps_to_its_memory() -> None:
    """In a process of its own: what it guards against ends one, or never ends."""
    done = subprocess.run([sys.executable, "-c", _STRIDED], capture_output=True, text=True, timeout=120)
    assert done.stdout == "sound\n", (done.returncode, done.stderr[-500:])
