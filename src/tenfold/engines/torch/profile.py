"""Steps as PyTorch's profiler sees them: every operation of every thread, and on a card every kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from tenfold.engines import parts
from tenfold.engines.recording import Recording, Span

LABEL = "tenfold: "
DEVICE = "device"


def record(take: Callable[[], None], wait: Callable[[], object], steps: int, device: torch.device) -> Recording:
    """``steps`` calls of ``take``, and the wait for the last: see :class:`Recording`."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler tells its start and stop on standard error
    card = _activity(device)
    # the parts of a batch have threads of their own
    everywhere = _ExperimentalConfig(profile_all_threads=True)
    with (
        # acc_events: there is one cycle, and PyTorch 2.11 warns of the loss of others without it
        profile(activities=[ProfilerActivity.CPU, *card], experimental_config=everywhere, acc_events=True) as found,
        parts.heard(lambda name: record_function(LABEL + name)),
    ):
        start = time.perf_counter()
        for _ in range(steps):
            with parts.named("step"):
                take()
        with parts.named("wait"):
            wait()
        seconds = time.perf_counter() - start
    spans, host, computing = understood(list(found.events() or []))
    return Recording(
        steps, seconds, spans, "PyTorch's profiler", True, bool(card), host, computing,
        lambda path: found.export_chrome_trace(str(path)),
    )  # fmt: skip


def _activity(device: torch.device) -> list[ProfilerActivity]:
    """What the profiler calls the device where that is not the CPU."""
    kinds = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
    return [kinds[device.type]] if device.type in kinds else []


def understood(events: Iterable[Any]) -> tuple[tuple[Span, ...], str, tuple[str, ...]]:
    """(spans, the lane that takes the steps, the lanes that compute) of the profiler's FunctionEvents."""
    events = [event for event in events if not event.name.startswith("ProfilerStep")]
    threads = _lanes(events)
    spans = []
    for event in events:
        start, end = event.time_range.start / 1e6, event.time_range.end / 1e6
        if event.device_type != DeviceType.CPU:
            # a label's shadow on the device covers the gaps between its kernels
            if not event.is_user_annotation and not event.name.startswith(LABEL):
                spans.append(Span("kernel", event.name, DEVICE, start, end, end - start, end - start))
            continue
        label = event.name.startswith(LABEL)
        spans.append(
            Span(
                "part" if label else "operation",
                event.name.removeprefix(LABEL),
                threads.get(event.thread, f"thread {event.thread}"),
                start,
                end,
                max(0.0, event.self_cpu_time_total / 1e6),
                max(0.0, event.self_device_time_total / 1e6),
                tuple(_callers(event)),
            )
        )
    host = next((lane for lane in threads.values() if lane == "host"), "host")
    computing = tuple(lane for lane in threads.values() if lane.startswith("share")) or (host,)
    return tuple(spans), host, computing


def _lanes(events: Iterable[Any]) -> dict[int, str]:
    """Names of the threads, by the labels that are only used there."""
    found: dict[int, str] = {}
    shares = 0
    for event in events:
        name = event.name.removeprefix(LABEL) if event.name.startswith(LABEL) else ""
        if event.device_type != DeviceType.CPU or event.thread in found:
            continue
        if name == "step":
            found[event.thread] = "host"
        elif name == "share":
            shares += 1
            found[event.thread] = f"share {shares}"
        elif name == "read":
            found[event.thread] = "feed"
    return found


def _callers(event: Any) -> Iterable[str]:
    at = event.cpu_parent
    while at is not None:
        yield at.name.removeprefix(LABEL)
        at = at.cpu_parent
