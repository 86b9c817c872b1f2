"""Names for the parts of a step, for whoever profiles it. Where nobody does, a name costs a function call.

    with named("data"):
        picked = self.feed.take(step)

The names and what they stand for, the same in every engine:

    step          a step as the host takes it                 data       its images: looked up, or waited for
    augmentation  images gathered, mirrored, shifted, mixed   optimizer  rates set, weights updated
    average       the moving average of the weights           forward, loss, backward
    sum           figures, and gradients, of all processes
    send          the host's arrays go to the device          compute    a step that is one compiled function
    share         a thread computes its part of a batch       wait       the host waits for the device, or for threads
    read          a thread reads batches ahead
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Listener = Callable[[str], AbstractContextManager[object]]

_SILENT: AbstractContextManager[object] = contextlib.nullcontext()
_listener: Listener | None = None


def named(name: str) -> AbstractContextManager[object]:
    """The context of a part of the step, in whichever thread."""
    return _SILENT if _listener is None else _listener(name)


@contextlib.contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """While the block runs, ``listener`` gives the context of every part, in every thread."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before
