"""The engine's part of a training: its job, what is logged of it, how it is interrupted."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tenfold import networks
from tenfold.clock import Clock
from tenfold.distributed import Peers
from tenfold.engines.base import EpochEnd, Event, FitResult, Job, Notice, State, Step
from tenfold.outcome import Work
from tenfold.run import Run


def fit(work: Work, clock: Clock, run: Run, notes: list[str], peers: Peers) -> FitResult:
    """Trains, or goes on from the run's last checkpoint. What must be told is added to ``notes``."""

    def say(sentence: str) -> None:
        notes.append(sentence)
        clock.listen(Notice(sentence))

    def begin() -> tuple[Mapping[str, Any], State | None]:
        state = run.last()
        first = networks.first_weights(work, run, say, resumed=state is not None)
        run.trim_metrics(state.meta["step"] if state else -1)
        return first, state

    first, state = peers.shared(peers.together(begin))
    clock.phase("train")
    with _interrupts() as stop, _board(run) as board:

        def report(event: Event) -> None:
            if isinstance(event, Notice):
                notes.append(event.message)
            row = _metrics_row(event)
            if row is not None:
                run.log(row)
                board(row)
            clock.listen(event)

        job = Job(work.architecture, work.recipe, first, work.dataset, work.device, report, stop, run, state, peers)
        fitted = work.engine.fit(job)
    return _ended(fitted, peers)


def follow(work: Work, peers: Peers) -> FitResult:
    """:func:`fit` in a process that is not the first: it trains with that one, and writes and says nothing."""
    peers.together(lambda: None)
    first, state = peers.shared((None, None))
    assert first is not None
    with _interrupts() as stop:
        job = Job(
            work.architecture, work.recipe, first, work.dataset, work.device, stop=stop, resume=state, peers=peers
        )
        fitted = work.engine.fit(job)
    return _ended(fitted, peers)


def _ended(fitted: FitResult, peers: Peers) -> FitResult:
    """No process goes before all have ended, and the first has written the last checkpoint."""
    peers.together(lambda: None)
    peers.trained()
    return fitted


def _metrics_row(event: Event) -> dict[str, Any] | None:
    if isinstance(event, Step):
        return {"event": "step", **dataclasses.asdict(event)}
    if isinstance(event, EpochEnd):
        return {"event": "epoch", **dataclasses.asdict(event)}
    return None


@contextmanager
def _board(run: Run) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """TensorBoard's writer where the recipe asks for it."""
    if not run.recipe.log.tensorboard:
        yield lambda row: None
        return
    from tenfold import tensorboard

    with tensorboard.writer(run.path / "tensorboard") as write:
        yield write


@contextmanager
def _interrupts() -> Iterator[Callable[[], str | None]]:
    """While the block runs, the first Ctrl-C or SIGTERM asks the engine to stop with a checkpoint; a second ends it."""
    asked: list[str] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append("interrupt")

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
