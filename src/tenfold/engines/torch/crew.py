"""A batch on the CPU in parts: each core computes a part whole, and the cores wait for each other once a step.

PyTorch's own threads share every operation and wait for each other at its end, some hundred times a step; where
anything else computes on the machine each of these waits can last a time slice of the scheduler. Parts of a batch need
one wait. What they give does not depend on how many threads there are: a part has its own random numbers and its own
batch-norm statistics (ghost batch norm: Hoffer et al. 2017), and the gradients are added up in an order of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from tenfold.architecture.layers import Architecture
from tenfold.engines.parts import named
from tenfold.engines.torch import build

Task = Callable[[nn.Module, int, torch.Generator], tuple[Tensor, Tensor]]
"""(module, part, generator) to (summed loss, images right), after its backward pass."""


class Crew:
    """Threads and, for each of ``parts``, a module that shares ``net``'s weights and has its own gradients."""

    def __init__(self, net: nn.Module, architecture: Architecture, parts: int) -> None:
        self.net, self.threads = net, torch.get_num_threads()
        self.nets = [net, *(_twin(net, architecture) for _ in range(parts - 1))]
        self.resting = False  # see build.train
        self.generators = [torch.Generator() for _ in self.nets]
        for module, generator in zip(self.nets, self.generators, strict=True):
            for dropout in build.dropouts(module):
                dropout.rng = generator
        each = max(1, self.threads // parts)
        self._pool = ThreadPoolExecutor(min(parts, self.threads), "tenfold-part", _settle, (each,))

    def forward_backward(self, task: Task, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """Runs ``task`` for every part; leaves the sum of the gradients in ``net`` and returns the sums of the rest."""
        for norms in zip(*map(build.batch_norms, self.nets), strict=True):
            for norm in norms[1:]:
                norm.mean.copy_(norms[0].mean)
                norm.variance.copy_(norms[0].variance)

        def run(part: int) -> tuple[Tensor, Tensor]:
            with named("share"):
                self.generators[part].manual_seed(seeds[part])
                module = self.nets[part]
                build.train(module, self.resting)
                module.zero_grad()
                return task(module, part, self.generators[part])

        with named("wait"):
            done = list(self._pool.map(run, range(len(self.nets))))
        self._add_gradients()
        for norms in () if self.resting else zip(*map(build.batch_norms, self.nets), strict=True):
            build.average_statistics(norms[0], [(norm.mean, norm.variance) for norm in norms])
        losses, right = zip(*done, strict=True)
        return build.add_in_pairs(losses), build.add_in_pairs(right)

    @torch.no_grad()
    def _add_gradients(self) -> None:
        """In pairs, as ``build.add_in_pairs`` does, and in place."""
        gradients = [_gradients(module) for module in self.nets]

        def add(first: int, after: int) -> None:
            if after - first > 1:
                middle = (first + after) // 2
                add(first, middle)
                add(middle, after)
                torch._foreach_add_(gradients[first], gradients[middle])

        add(0, len(gradients))

    def close(self) -> None:
        self._pool.shutdown()


def _gradients(net: nn.Module) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]


def _settle(threads: int) -> None:
    """PyTorch's settings that belong to a thread."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)


def _twin(net: nn.Module, architecture: Architecture) -> nn.Module:
    """A module over the same weights' memory, with batch-norm statistics and gradients of its own."""
    twin = build.build(architecture).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shared = dict(net.named_parameters())
    for name, parameter in twin.named_parameters():
        parameter.data = shared[name].data
    for own, buffer in zip(net.buffers(), twin.buffers(), strict=True):
        buffer.copy_(own)
    return twin
