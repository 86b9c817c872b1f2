from __future__ import annotations

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
