"""The network of the bundle as a PyTorch user writes it, and the usual way from a picture's bytes to its tensor.

``MODEL`` in the environment names a bundle's folder (manifest.json, weights.safetensors). The network is tenfold's
``sprint`` at any widths, batch norm folded nowhere, nothing compiled: plain modules in ``eval()``.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

FOLDER = Path(os.environ["MODEL"])
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
CLASSES = MANIFEST["classes"]
SIZE = (MANIFEST["geometry"]["width"], MANIFEST["geometry"]["height"])


class Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(outputs),
            nn.GELU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.GELU(),
        )


class Net(nn.Module):
    """float 3×H×W images, normalised, to logits."""

    def __init__(self, widths: list[int], classes: int, scale: float) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 24, 2), nn.GELU())
        before = [24, *widths[:-1]]
        self.blocks = nn.Sequential(*(Block(i, o) for i, o in zip(before, widths, strict=True)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.first(x))
        return self.head(x.amax((2, 3))) * self.scale


def load() -> tuple[Net, torch.Tensor, torch.Tensor]:
    """The network with the bundle's weights, and the mean and standard deviation that its images are normalised by."""
    weights = load_file(FOLDER / "weights.safetensors")
    layers = MANIFEST["architecture"]["layers"]
    if MANIFEST["architecture"]["name"] != "sprint" or any(layer["kind"] == "residual" for layer in layers):
        raise SystemExit("The peers know the network sprint, two convolutions a stage; train quick, for example.")
    named = {name.split("_")[0]: {} for name in weights}  # layer's number -> part -> values, in the network's order
    for name, values in weights.items():
        named[name.split("_")[0]][name.split(".")[-1]] = values
    (normalise, first, *rest, dense) = [named[number] for number in sorted(named)]
    widths = [len(layer["kernel"]) for layer in rest[::4]]  # convolution, norm, convolution, norm
    net = Net(widths, len(CLASSES), layers[-1]["factor"] / MANIFEST["temperature"])
    with torch.no_grad():
        net.first[0].weight.copy_(first["kernel"])
        net.first[0].bias.copy_(first["bias"])
        net.head.weight.copy_(dense["kernel"])
        for module, layer in zip((m for block in net.blocks for m in block if list(m.parameters())), rest, strict=True):
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(layer["kernel"])
            else:
                module.bias.copy_(layer["beta"])
                module.running_mean.copy_(layer["mean"])
                module.running_var.copy_(layer["variance"])
    return net.eval(), normalise["mean"].view(3, 1, 1), normalise["std"].view(3, 1, 1)


NET, MEAN, STD = load()


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """Float 3×H×W: RGB, resized as torchvision's Resize does by default (bilinear), divided by 255, normalised."""
    pixels = np.array(picture.convert("RGB").resize(SIZE, Image.Resampling.BILINEAR))
    return (torch.from_numpy(pixels).permute(2, 0, 1).float().div(255) - MEAN) / STD


def read(data: bytes) -> torch.Tensor:
    return to_tensor(Image.open(io.BytesIO(data)))


def probabilities(batch: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.softmax(NET(batch), 1)


def answer(row: torch.Tensor, top: int = 3) -> dict:
    """What a client gets: the most probable classes."""
    values, indices = row.topk(top)
    best = [{"class": CLASSES[i], "probability": p} for p, i in zip(values.tolist(), indices.tolist(), strict=True)]
    return {**best[0], "top": best}
