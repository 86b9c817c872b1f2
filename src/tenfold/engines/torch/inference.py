"""A built module's answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from tenfold.engines.torch import devices
from tenfold.engines.torch.feed import resident

# Pixels of a batch on a CPU, 64 images of 32×32: on two cores sprint answered 1,139 to 1,185 images/s so, 608 to 762
# in batches of 500, whose activations no cache holds.
CPU_PIXELS = 64 * 32 * 32


def logits(
    net: torch.nn.Module, images: np.ndarray | Tensor, device: torch.device, batch_size: int, precision: str
) -> np.ndarray:
    """float32 logits N×classes of a built module for uint8 images N×H×W×3, without a host wait between batches.

    Pixels that have room on the device are sent there at once; a Tensor is there already. On a CPU each core takes
    batches of its own, as in training, and ``batch_size`` is the most.
    """
    if device.type == "cpu":
        batch_size = max(1, min(batch_size, CPU_PIXELS // (images.shape[1] * images.shape[2])))
    net.eval()
    devices.plain_fp32(device)
    pixels = images if isinstance(images, Tensor) else resident(images, device)

    @torch.no_grad()
    def answer(start: int) -> Tensor:
        if pixels is not None:
            batch = pixels[start : start + batch_size]
        else:
            batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device, non_blocking=True)
        with devices.autocast(device, precision):
            out: Tensor = net(batch).float()
        return out

    starts = range(0, len(images), batch_size)
    threads = min(torch.get_num_threads(), len(starts)) if device.type == "cpu" else 1
    if threads == 1:
        found = [answer(start) for start in starts]
    else:
        with ThreadPoolExecutor(threads, "tenfold-answers", torch.set_num_threads, (1,)) as pool:
            found = list(pool.map(answer, starts))
    return torch.cat(found).cpu().numpy()
