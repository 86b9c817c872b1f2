"""A step that several processes take together: each computes its rows, and what all need is added up.

Every process draws for the whole batch and computes its own share of it (``engines/share.py``), so the run does not
depend on how many there are. Gradients are sums over the batch. DistributedDataParallel adds them up while the
backward pass is still under way; where the batch is computed in parts by threads, which it can't follow, and while
only the last layer is trained, which is too little to be worth it, they go in one piece with the step's figures.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tenfold.architecture.weights import specs
from tenfold.engines.base import Job
from tenfold.engines.schedule import Plan
from tenfold.engines.share import edges, share
from tenfold.engines.torch import build, sync_norm
from tenfold.engines.torch.distributed import Group
from tenfold.engines.torch.sync_norm import Sync
from tenfold.errors import TrainingError

CHECK_STEPS = 100  # between two looks at whether all processes still have the same weights


class DataParallel:
    def __init__(self, job: Job, plan: Plan) -> None:
        assert isinstance(job.peers, Group)
        self.group, self.plan, self.architecture = job.peers, plan, job.architecture
        self.share = share(plan, self.group.rank, self.group.size)
        shared = len(self.share.mates) > 1
        self.sync = Sync(self.group.rows, self.share.mates) if shared and job.recipe.sync_batch_norm else None
        # where every process computes the same statistics, there is nothing to bring together
        self.apart = self.sync is None or plan.parts > 1
        self.tensors: Mapping[str, Tensor] = {}
        self._statistics: list[Tensor] = []
        self._net: nn.Module | None = None
        self._wrapped: DistributedDataParallel | None = None
        self._known: set[object] = set()  # shapes of a step for which all have room
        self._trying = False  # a step for this process alone

    def attach(self, net: nn.Module, tensors: Mapping[str, Tensor], by_threads: bool) -> None:
        """Makes ``net``, the module that trains, one of several. ``by_threads``: a crew computes its batch in parts."""
        self.tensors = tensors
        roles = specs(self.architecture)
        self._statistics = [t for n, t in tensors.items() if roles[n].role == "statistic"]
        for norm in build.batch_norms(net):
            norm.sync = self.sync
        if self.sync is not None:
            sync_norm.attach(net, self.sync)
        within = self.share.within if by_threads else self.share.rows
        if within is not None:
            total = self.plan.batch_size
            if by_threads:
                at = edges(total, self.plan.parts)
                total = at[self.share.parts.start + 1] - at[self.share.parts.start]
            for dropout in build.dropouts(net):
                dropout.within = (total, within.start)
        self._net = None if by_threads else net

    def reseed(self, seed: int) -> None:
        """Another library's network draws by itself, in every process for its own images."""
        if self.architecture.external is not None:
            torch.manual_seed((seed + 0x9E3779B97F4A7C15 * (self.group.rank + 1)) % 2**63)

    # ---- the step ------------------------------------------------------------------------------------------------

    def forward(self, resting: bool) -> Callable[[Tensor], Tensor] | None:
        """The module whose backward pass adds up the gradients; None where :meth:`add_up` is to do it."""
        if self._net is None or resting or self._trying:
            return None
        if self._wrapped is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PyTorch 2.13 has another name for broadcast_buffers
                self._wrapped = DistributedDataParallel(
                    self._net,
                    process_group=self.group.tensors,
                    broadcast_buffers=False,
                    find_unused_parameters=self.architecture.external is not None,
                )
            # DistributedDataParallel compares annotations with classes, and those of this module are text
            self._wrapped.register_comm_hook(self.group.tensors, lambda group, bucket: _sum(group, bucket))
        return self._wrapped

    def holding_back(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a backward pass after which the same step has ``more``: gradients are added up in the last."""
        if not more or self._wrapped is None:
            return contextlib.nullcontext()
        held: contextlib.AbstractContextManager[None] = self._wrapped.no_sync()
        return held

    @torch.no_grad()
    def add_up(self, loss: Tensor, right: Tensor, gradients: list[Tensor], resting: bool) -> tuple[Tensor, Tensor]:
        """(summed loss, images right) of the whole batch; ``gradients`` become those of all processes, and batch norm's
        running statistics the mean of what they arrived at."""
        if self._trying:
            return loss, right
        means = self._statistics if self.apart and not resting else []
        tensors = [loss, right, *gradients, *means]
        flat = torch.cat([t.reshape(-1).float() for t in tensors])
        self.group.add_up(flat)
        found = flat.split([t.numel() for t in tensors])
        for tensor, total in zip(gradients, found[2:], strict=False):
            tensor.copy_(total.view_as(tensor))
        for tensor, total in zip(means, found[2 + len(gradients) :], strict=True):
            tensor.copy_(total.view_as(tensor) / self.group.size)
        return found[0].view(()), found[1].view(())

    # ---- what all must agree on -------------------------------------------------------------------------------------

    def agree(self, step: int, done: float, stop: bool) -> tuple[float, bool]:
        """See :meth:`tenfold.engines.base.Stepper.agree`. Now and then the processes' weights are compared, too."""
        mark = float(self._checksum()) if step % CHECK_STEPS == 0 else 0.0
        done, stopped, high, low = self.group.most([done, float(stop), mark, -mark])
        if high != -low:
            raise TrainingError(
                f"At step {step} the processes no longer have the same weights.",
                "All of them need the same kind of processor or card, and the same version of PyTorch.",
            )
        return done, stopped > 0

    def _checksum(self) -> int:
        total = torch.stack([t.view(torch.int32).sum(dtype=torch.int64) for t in self.tensors.values()]).sum()
        return int(total) % (1 << 50)

    def pieces(self, shape: object, own: Callable[[], int]) -> int | None:
        """In how many pieces a step of this ``shape`` fits into the memory of every process: ``own`` tries it in this
        one, with nobody waiting for it, and all take the largest answer. None where that is known."""
        if shape in self._known:
            return None
        self._known.add(shape)
        kept = [t.clone() for t in self._statistics]
        self._trying = True
        if self.sync is not None:
            self.sync.active = False
        try:
            found = own()
        finally:
            self._trying = False
            if self.sync is not None:
                self.sync.active = True
        with torch.no_grad():
            for tensor, before in zip(self._statistics, kept, strict=True):
                tensor.copy_(before)
        return int(self.group.most([found])[0])

    def answers(self, images: np.ndarray, answer: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """float32 logits N×classes of ``images``, of which each process answers for its share."""
        at = edges(len(images), self.group.size)
        own = images[at[self.group.rank] : at[self.group.rank + 1]]
        found = answer(own) if len(own) else np.empty((0, self.architecture.classes), np.float32)
        return self.group.gathered(found)


def _sum(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """A bucket of gradients added up; DistributedDataParallel of itself would take their mean."""
    sent = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert sent is not None
    found: torch.futures.Future[Tensor] = sent.get_future().then(lambda future: future.value()[0])
    return found
