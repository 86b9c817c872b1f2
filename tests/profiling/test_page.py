"""What a profile means in sentences, and how it is drawn."""

from __future__ import annotations

from typing import Any

from tenfold import recipe as recipes
from tenfold.engines.recording import Span
from tenfold.profiling import advice, page, strip
from tenfold.profiling.records import Cost, Operation, Part, Profile


def profile(parts: dict[str, float], **more: Any) -> Profile:
    fields: dict[str, Any] = {
        "kind": "training", "subject": "some <data>/flowers", "computed_by": "torch", "device": "cpu",
        "device_label": "A processor", "precision": "bf16", "images": 100, "pixels": 32, "units": 3, "seconds": 0.5,
        "seconds_lowest": 0.4, "seconds_highest": 0.8, "profiled": 0.6, "memory_bytes": 10**9,
        "parts": [Part(key, key, seconds) for key, seconds in parts.items()], "kinds": [],
        "operations": [Operation("aten::conv2d", "convolution forward", 0.1, 0.1, 4.0)], "profiler": "a test",
        "hardware": {"cores": 2, "cpu": "A processor", "memory_bytes": 10**10, "system": "Linux"},
        "versions": {"tenfold": "0.1.0"}, "created": "2026-01-02T03:04:05+00:00", "command": "tenfold profile", **more,
    }  # fmt: skip
    return Profile(**fields)


def test_what_takes_much_of_a_step_is_told_with_what_may_help() -> None:
    quick = recipes.load("quick")
    found = profile({"data": 0.4, "host": 0.2, "device": 0.2, "idle": 0.2})
    said = " ".join(advice.of_training(found, quick, "stream"))
    assert "40 % of a step is spent waiting for pictures" in said
    assert "20 % of a step is Python and launching" in said and "now 100" in said
    assert "20 % of a step is spent waiting: the threads" in said
    card = profile({"data": 0.0, "host": 0.3, "device": 0.7, "idle": 0.0}, device="cuda:0")
    launched = recipes.override(quick, {"cuda_graphs": False})
    assert "--set cuda_graphs=true" in " ".join(advice.of_training(card, launched, "device"))
    full = profile({"data": 0.0, "host": 0.0, "device": 1.0, "idle": 0.0}, kinds=[Cost("optimizer", 0.3, 0.3)])
    assert len(advice.of_training(full, quick, "device")) == 2  # the balance, and the optimizer


def test_the_page_escapes_what_comes_from_strangers_and_has_no_script() -> None:
    spans = (
        Span("part", "step", "host", 0.0, 1.0, 0.1),
        Span("operation", "aten::<b>", "host", 0.1, 0.4, 0.3, callers=("optimizer", "step")),
        Span("operation", "aten::conv2d", "host", 0.5, 0.9, 0.4, callers=("forward", "step")),
    )
    text = page.html(profile({"data": 0.1, "device": 0.9}, timeline=spans, notes=["a <note>"]))
    assert "<script" not in text and "some <data>" not in text and "a &lt;note&gt;" in text
    assert "<title>Profile of flowers" in text and "aten::&lt;b&gt;" in text and "200" in text
    assert page.html(profile({"device": 1.0}, phases={"train": 3.0, "total": 4.0})).count('id="training"') == 1


def test_a_timeline_has_a_row_for_each_lane_and_merges_what_can_t_be_seen() -> None:
    many = [Span("operation", "aten::mul_", "host", i * 1e-5, i * 1e-5 + 9e-6, 9e-6) for i in range(10_000)]
    drawn = strip.draw([*many, Span("kernel", "gemm", "device", 0.0, 0.1, 0.1)])
    assert drawn.count("<rect") < 100 and drawn.index(">host<") < drawn.index(">device<")
    assert strip.draw([]) == ""
