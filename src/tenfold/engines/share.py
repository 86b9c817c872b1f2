"""Which of a step's images each of several processes computes: plain numbers.

A batch is split evenly. Where batch norm's statistics are taken over parts of it (``virtual_batch_size``), a process
has whole parts, or a part is split between several: never more than one part, or a piece of one, is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.engines.schedule import Plan
from tenfold.errors import RecipeError


@dataclass(frozen=True)
class Share:
    """One process's share of every batch.

    parts   which of the plan's parts lie in it; a single one may be shared
    rows    its images, counted in the batch
    within  its images, counted in its part, where that is shared; else None
    mates   the ranks of the processes that have images of its part, itself among them
    """

    parts: range
    rows: range
    within: range | None
    mates: range


def edges(count: int, number: int) -> list[int]:
    """Where ``number`` stretches of nearly equal length begin and end in ``count``: number + 1 places."""
    return [i * (count // number) + min(i, count % number) for i in range(number + 1)]


def share(plan: Plan, rank: int, size: int) -> Share:
    """The share of process ``rank`` of ``size``. RecipeError where the batch can't be shared so."""
    if plan.batch_size < size:
        raise RecipeError(
            f"A batch of {plan.batch_size} images can't be shared by {size} processes.",
            "Start fewer, or take a larger batch_size.",
        )
    of_parts = edges(plan.batch_size, plan.parts)
    if plan.parts % size == 0:
        each = plan.parts // size
        parts = range(rank * each, (rank + 1) * each)
        return Share(parts, range(of_parts[parts.start], of_parts[parts.stop]), None, range(rank, rank + 1))
    if size % plan.parts:
        raise RecipeError(
            f"A batch in {plan.parts} parts (virtual_batch_size) can't be shared by {size} processes.",
            f"Their number must divide {plan.parts} or be a multiple of it; virtual_batch_size=null makes one part.",
        )
    each = size // plan.parts
    part, place = divmod(rank, each)
    start, stop = of_parts[part], of_parts[part + 1]
    of_mates = edges(stop - start, each)
    within = range(of_mates[place], of_mates[place + 1])
    rows = range(start + within.start, start + within.stop)
    return Share(range(part, part + 1), rows, within, range(part * each, (part + 1) * each))
