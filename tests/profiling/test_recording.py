"""What engines record of their steps: PyTorch's profiler, and the host's clock for the others."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold.engines import parts
from tenfold.engines.recording import by_clock, chrome


def test_parts_cost_nothing_and_are_heard_in_every_thread_while_someone_listens() -> None:
    assert parts.named("data") is parts.named("step")  # one context that does nothing
    heard: list[tuple[str, str]] = []

    class Note:
        def __init__(self, name: str) -> None:
            heard.append((name, threading.current_thread().name))

        def __enter__(self) -> None: ...

        def __exit__(self, *exc: object) -> None: ...

    def work() -> None:
        with parts.named("share"):
            pass

    with pytest.raises(ValueError, match="stop"), parts.heard(Note):
        with parts.named("step"):
            thread = threading.Thread(target=work, name="beside")
            thread.start()
            thread.join()
        raise ValueError("stop")
    assert [h[0] for h in heard] == ["step", "share"] and heard[1][1] == "beside"
    assert parts.named("data") is parts.named("step")


def test_by_the_clock_a_step_s_parts_nest_and_waiting_for_it_is_computing() -> None:
    waits = []

    def take() -> None:
        with parts.named("data"):
            pass
        with parts.named("compute"):
            pass

    found = by_clock(take, lambda: waits.append(1), 3)
    assert len(waits) == 3 and found.steps == 3 and not found.inside and not found.separate
    assert [s.name for s in found.spans[:4]] == ["data", "compiled step", "compiled step", "step"]
    assert found.spans[0].callers == ("step",) and found.spans[1].kind == "operation"
    step = found.spans[3]
    inner = sum(s.seconds for s in found.spans[:3])
    assert step.own == pytest.approx(step.seconds - inner) and found.seconds >= step.seconds
    trace = json.loads(chrome(found.spans, "a test"))["traceEvents"]
    assert [e["args"]["name"] for e in trace if e["ph"] == "M"] == ["a test", "host"]
    assert len([e for e in trace if e["ph"] == "X"]) == 12


def event(name: str, thread: int, start: float, end: float, parent: Any = None, **more: Any) -> Any:
    from torch.autograd import DeviceType

    fields = {"device_type": DeviceType.CPU, "is_user_annotation": False, "self_device_time_total": 0.0} | more
    fields.setdefault("self_cpu_time_total", end - start)
    time_range = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(name=name, thread=thread, time_range=time_range, cpu_parent=parent, **fields)


def test_pytorch_s_events_become_spans_with_lanes_and_callers() -> None:
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    from torch.autograd import DeviceType

    from tenfold.engines.torch.profile import understood

    step = event("tenfold: step", 1, 0, 100)
    forward = event("tenfold: forward", 1, 0, 50, step)
    share = event("tenfold: share", 2, 10, 40)
    kernel = {"device_type": DeviceType.CUDA, "self_cpu_time_total": 0.0}
    spans, host, computing = understood(
        [
            event("ProfilerStep#1", 1, 0, 100), step, forward, share,
            event("aten::conv2d", 1, 10, 20, forward, self_device_time_total=7.0),
            event("aten::copy_", 3, 10, 20, event("tenfold: read", 3, 0, 30)),
            event("aten::mul", 4, 10, 20),
            event("implicit_gemm", 9, 12, 19, **kernel),
            event("tenfold: forward", 9, 0, 50, **kernel, ),
            event("forward", 9, 0, 50, **{**kernel, "is_user_annotation": True}),
        ]
    )  # fmt: skip
    assert (host, computing) == ("host", ("share 1",))
    by_name = {s.name: s for s in spans}
    conv = by_name["aten::conv2d"]
    assert (conv.kind, conv.lane, conv.callers) == ("operation", "host", ("forward", "step"))
    assert (conv.start, conv.end, conv.own, conv.device) == pytest.approx((1e-5, 2e-5, 1e-5, 7e-6))
    assert by_name["aten::mul"].lane == "thread 4"
    kernels = [s for s in spans if s.kind == "kernel"]
    assert [(k.name, k.lane) for k in kernels] == [("implicit_gemm", "device")]  # labels' shadows are none
    assert by_name["step"].kind == "part"
