"""A built module's answers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tenfold.engines.torch import devices
from tenfold.engines.torch.feed import resident


@torch.no_grad()
def logits(
    net: torch.nn.Module, images: np.ndarray | Tensor, device: torch.device, batch_size: int, precision: str
) -> np.ndarray:
    """float32 logits N×classes of a built module for uint8 images N×H×W×3, without a host wait between batches.

    Pixels that have room on the device are sent there at once; a Tensor is there already."""
    net.eval()
    devices.plain_fp32(device)
    pixels = images if isinstance(images, Tensor) else resident(images, device)
    out = []
    for start in range(0, len(images), batch_size):
        if pixels is not None:
            batch = pixels[start : start + batch_size]
        else:
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device, non_blocking=True)
        with devices.autocast(device, precision):
            out.append(net(batch).float())
    return torch.cat(out).cpu().numpy()
