"""Where the time of a recording went, on recorded spans: no device is needed."""

from __future__ import annotations

import pytest

from tenfold.engines.recording import Recording, Span
from tenfold.profiling.kinds import kind
from tenfold.profiling.split import common, operations, split, union, without


def span(kind: str, name: str, lane: str, start: float, end: float, own: float | None = None, **more: object) -> Span:
    return Span(kind, name, lane, start, end, end - start if own is None else own, **more)  # type: ignore[arg-type]


def recording(spans: list[Span], seconds: float, steps: int = 1, separate: bool = False, **more: object) -> Recording:
    fields: dict[str, object] = {"inside": True, "host": "host", "computing": ("host",), **more}
    return Recording(steps, seconds, tuple(spans), "a test", separate=separate, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["aten::mkldnn_convolution", "aten::convolution"], "convolution forward"),
        (["aten::convolution_backward", "ConvolutionBackward0"], "convolution backward"),
        (["aten::copy_", "aten::to", "augmentation"], "augmentation"),
        (["aten::mul_", "aten::_foreach_mul_", "optimizer", "step"], "optimizer"),
        (["aten::index_select", "data", "step"], "data: looking up, waiting"),
        (["aten::native_batch_norm_backward"], "batch norm"),
        (["aten::gelu_backward", "GeluBackward0", "backward"], "activation"),
        (["aten::max_pool2d_with_indices"], "pooling"),
        (["compiled step", "step"], "compiled step"),
        (["aten::random"], "other operations"),
    ],
)
def test_operations_are_sorted_by_their_own_and_their_callers_names(names: list[str], wanted: str) -> None:
    assert kind(names[0], names[1:]) == wanted


def test_one_thread_is_divided_into_data_operations_and_python() -> None:
    found = split(
        recording(
            [
                span("part", "step", "host", 0.0, 9.0),
                span("part", "data", "host", 0.0, 2.0, callers=("step",)),
                span("operation", "aten::index_select", "host", 0.5, 1.0, callers=("data", "step")),
                span("operation", "aten::conv2d", "host", 3.0, 7.0, 1.0, callers=("forward", "step")),
                span("operation", "aten::mkldnn", "host", 3.5, 6.5, 3.0, callers=("aten::conv2d", "forward", "step")),
            ],
            10.0,
        )
    )
    # what is looked up counts as data, not as computing; after the step a second passed in which nothing was seen
    assert (found.data, found.device, found.host, found.idle) == pytest.approx((2.0, 4.0, 3.0, 1.0))
    assert found.kinds == pytest.approx({"convolution forward": 4.0})


def test_threads_that_compute_parts_count_by_their_share_while_the_host_waits() -> None:
    shared = recording(
        [
            span("part", "step", "host", 0.0, 10.0),
            span("part", "wait", "host", 1.0, 9.0, callers=("step",)),
            span("operation", "aten::mul_", "host", 9.0, 10.0, callers=("optimizer", "step")),
            span("part", "share", "share 1", 1.0, 9.0),
            span("operation", "aten::conv2d", "share 1", 1.0, 7.0, callers=("share",)),
            span("part", "share", "share 2", 1.0, 5.0),
            span("operation", "aten::conv2d", "share 2", 1.0, 5.0, callers=("share",)),
            span("part", "read", "feed", 0.0, 10.0),
            span("operation", "aten::copy_", "feed", 0.0, 10.0, callers=("read",)),
        ],
        20.0,
        steps=2,
        computing=("share 1", "share 2"),
    )
    found = split(shared)
    # of the 8 s in which the host waits: 5 computing, 1 in Python, 2 waiting for the slower part; then 10 s of nothing
    assert (found.data, found.device, found.host, found.idle) == pytest.approx((0.0, 3.0, 1.0, 6.0))
    assert found.total == pytest.approx(10.0)
    assert [(o.name, o.kind, o.seconds, o.calls) for o in operations(shared)] == [
        ("aten::conv2d", "convolution forward", 2.5, 1.0),
        ("aten::mul_", "optimizer", 0.5, 0.5),
    ]


def test_a_card_s_gaps_are_the_data_s_the_host_s_or_no_one_s() -> None:
    card = recording(
        [
            span("part", "step", "host", 1.0, 7.0),
            span("part", "data", "host", 1.0, 3.0, callers=("step",)),
            span("operation", "cudaStreamSynchronize", "host", 7.0, 11.0),
            span("part", "wait", "host", 7.0, 11.0),
            span("operation", "aten::conv2d", "host", 4.0, 5.0, device=3.0, callers=("forward", "step")),
            span("operation", "ConvolutionBackward0", "thread 7", 5.0, 6.0, device=2.0),
            span("kernel", "implicit_gemm", "device", 2.0, 3.0),
            span("kernel", "implicit_gemm", "device", 5.0, 8.0),
            span("kernel", "wgrad", "device", 6.0, 9.0),
        ],
        10.0,
        separate=True,
    )
    found = split(card)
    # 1–2 data; 2–3 and 5–9 kernels, of two streams at once; 3–5 Python; 9–11 the host waits and nothing runs
    assert (found.data, found.host, found.device, found.idle) == pytest.approx((1.0, 2.0, 5.0, 2.0))
    assert found.kinds == {"convolution forward": 3.0, "convolution backward": 2.0}


def test_intervals() -> None:
    assert union([(3, 4), (0, 1), (0.5, 2), (5, 5)]) == [(0, 2), (3, 4)]
    assert common([(0, 2), (3, 6)], [(1, 4), (5, 9)]) == [(1, 2), (3, 4), (5, 6)]
    assert without([(0, 10)], [(1, 2), (4, 5), (9, 12)]) == [(0, 1), (2, 4), (5, 9)]
    assert without([(0, 1), (2, 3)], []) == [(0, 1), (2, 3)]
