"""Heat maps of other libraries' networks, found by the graph's nodes alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfold.architecture.layers import Architecture, External, Normalize
from tenfold.errors import BundleError, UnsupportedError
from tenfold.explanation import Explainer, steps, tail
from tenfold.export import onnx as export
from tenfold.runtimes import graph, nodes, onnxruntime

onnx = pytest.importorskip("onnx")

SIZE, CHANNELS, CLASSES = 12, 4, 3
RNG = np.random.default_rng(0)
WEIGHTS: dict[str, np.ndarray] = {
    "kernel": RNG.normal(0, 0.01, (CHANNELS, 3, 3, 3)),
    "matrix": RNG.normal(0, 1, (CHANNELS, CLASSES)),
    "transposed": RNG.normal(0, 1, (CLASSES, CHANNELS)),
    "bias": RNG.normal(0, 1, CLASSES),
    "gamma": RNG.uniform(0.5, 2, CHANNELS),
    "beta": RNG.normal(0, 1, CHANNELS),
    "gate": RNG.normal(0, 0.3, (CHANNELS, CHANNELS, 1, 1)),
    "wide": RNG.normal(0, 1, (CHANNELS * 25, CLASSES)),
    "half": np.array([0.5]),
    "tokens": RNG.normal(0, 1, (CHANNELS, CLASSES)),
}
WHOLE = {"flat": [-1, CHANNELS * 25], "rows": [-1, CHANNELS, 25], "from": [1], "to": [4], "axis": [3]}

make = onnx.helper.make_node
# x is 5×5 features of four channels, the last value with rows and columns; logits is what the network gives.
TAILS: dict[str, list[Any]] = {
    "pooled": [
        make("GlobalAveragePool", ["x"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "transposed", "bias"], ["logits"], transB=1, alpha=0.5),
    ],
    "mean": [
        make("ReduceMean", ["x"], ["p"], axes=[-1, -2], keepdims=0),
        make("MatMul", ["p", "matrix"], ["m"]),
        make("Add", ["bias", "m"], ["logits"]),
    ],
    "normed": [  # ConvNeXt
        make("ReduceMean", ["x"], ["p"], axes=[2, 3], keepdims=1),
        make("Transpose", ["p"], ["last"], perm=[0, 2, 3, 1]),
        make("LayerNormalization", ["last", "gamma", "beta"], ["n"], axis=-1, epsilon=1e-6),
        make("Transpose", ["n"], ["first"], perm=[0, 3, 1, 2]),
        make("Flatten", ["first"], ["f"]),
        make("Gemm", ["f", "matrix", "bias"], ["logits"]),
    ],
    "gated": [  # squeeze and excitation before the pool
        make("GlobalAveragePool", ["x"], ["s"]),
        make("Conv", ["s", "gate"], ["c"], kernel_shape=[1, 1]),
        make("Sigmoid", ["c"], ["g"]),
        make("Mul", ["x", "g"], ["xg"]),
        make("GlobalAveragePool", ["xg"], ["p"]),
        make("Reshape", ["p", "four"], ["f"]),
        make("MatMul", ["f", "matrix"], ["m"]),
        make("Sub", ["m", "bias"], ["logits"]),
    ],
    "flattened": [  # Keras, which flattens channels last
        make("Transpose", ["x"], ["last"], perm=[0, 2, 3, 1]),
        make("Reshape", ["last", "flat"], ["f"]),
        make("Gemm", ["f", "wide"], ["logits"]),
    ],
    "convolved": [  # a convolution of pooled features, as Keras's MobileNet ends
        make("GlobalAveragePool", ["x"], ["p"]),
        make("Conv", ["p", "gate"], ["c"]),
        make("Div", ["c", "half"], ["d"]),
        make("Squeeze", ["d", "spots"], ["f"]),
        make("Gemm", ["f", "matrix"], ["logits"]),
    ],
    "sliced": [  # where the rest lies is not followed
        make("Slice", ["x", "from", "to", "axis"], ["part"]),
        make("GlobalAveragePool", ["part"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "matrix"], ["logits"]),
    ],
}
WITHOUT: dict[str, list[Any]] = {
    "tokens": [
        make("Reshape", ["x", "rows"], ["r"]),
        make("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        make("ReduceMean", ["t"], ["p"], axes=[1], keepdims=0),
        make("Gemm", ["p", "tokens"], ["logits"]),
    ],
    "rows flattened": [
        make("Reshape", ["x", "rows"], ["r"]),
        make("Reshape", ["r", "flat"], ["f"]),
        make("Gemm", ["f", "wide"], ["logits"]),
    ],
    "an unknown operator": [
        make("GlobalAveragePool", ["x"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Softplus", ["f"], ["u"]),
        make("Gemm", ["u", "matrix"], ["logits"]),
    ],
}


def built(end: list[Any], **more: np.ndarray) -> bytes:
    """The model.onnx of a bundle whose network ends so, with ``more`` weights."""
    start = [
        make("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        make("Cast", ["planes"], ["float"], to=1),
        make("Conv", ["float", "kernel"], ["conv"], kernel_shape=[3, 3], strides=[2, 2]),
        make("Relu", ["conv"], ["x"]),
    ]
    give = onnx.numpy_helper.from_array
    whole = {**WHOLE, "four": [-1, CHANNELS], "spots": [2, 3]}
    weights = [give(v.astype(np.float32), n) for n, v in WEIGHTS.items()] + [give(v, n) for n, v in more.items()]
    weights += [give(np.array(v, np.int64), n) for n, v in whole.items()]
    values = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [*start, *end],
            "main",
            [values("pixels", 2, ["N", SIZE, SIZE, 3])],
            [values("logits", 1, ["N", CLASSES])],
            weights,
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    network = External("timm", "tiny", CLASSES, weights=(("kernel", (CHANNELS, 3, 3, 3), "trained"),))
    return export.build(
        Architecture("timm:tiny", SIZE, SIZE, CLASSES, (Normalize(), network)),
        {
            "00_normalize.mean": np.zeros(3, np.float32),
            "00_normalize.std": np.ones(3, np.float32),
            "01_external.kernel": WEIGHTS["kernel"].astype(np.float32),
        },
        classes="abc",
        geometry=graph.Geometry(SIZE, SIZE),
        temperature=2.0,
        name="tiny",
        graph=model.SerializeToString(),
    )


def explainer(data: bytes) -> Explainer:
    return Explainer(data, graph.describe(graph.inspect(data, "it"), "it"), where="it")


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("name", TAILS)
def test_contributions_and_biases_sum_up_to_the_logit(name: str, picture: np.ndarray) -> None:
    data = built(TAILS[name])
    made = explainer(data)
    asked = onnxruntime.OnnxValues(nodes.with_outputs(data, ["logits", "x"]), where="it")(picture[None])
    w, features = WEIGHTS, asked["x"][0]
    biases = {
        "pooled": w["bias"],
        "mean": w["bias"],
        "normed": w["beta"] @ w["matrix"] + w["bias"],
        "gated": -w["bias"],
    }.get(name, np.zeros(CLASSES))
    for index in range(CLASSES):
        probabilities, found = made.contributions(picture, index)
        np.testing.assert_allclose(probabilities, asked[graph.OUTPUT][0], atol=1e-6)
        assert found.shape == ((5, 3) if name == "sliced" else (5, 5)) and np.abs(found).max() > 0.01
        assert abs(found.sum() + biases[index] / 2 - asked["logits"][0, index] / 2) < 1e-4
    if name == "pooled":
        wanted = np.einsum("c,chw->hw", w["transposed"][2], features) * 0.5 / 25 / 2
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_of_a_norm_the_deviation_counts_as_given(picture: np.ndarray) -> None:
    """By the whole gradient the contributions would sum up to nothing."""
    asked = onnxruntime.OnnxValues(nodes.with_outputs(built(TAILS["normed"]), ["p", "x"]), where="it")(picture[None])
    pooled, features = asked["p"].ravel(), asked["x"][0]
    row = WEIGHTS["gamma"] * WEIGHTS["matrix"][:, 1] / np.sqrt(pooled.var() + 1e-6) / 25 / 2
    wanted = np.einsum("c,chw->hw", row - row.mean(), features)
    np.testing.assert_allclose(explainer(built(TAILS["normed"])).contributions(picture, 1)[1], wanted, atol=1e-4)


@pytest.mark.parametrize("name", WITHOUT)
def test_networks_without_a_map_say_so(name: str) -> None:
    data = built(WITHOUT[name])
    with pytest.raises(UnsupportedError, match="This network has no heat map: its"):
        explainer(data)


def test_an_answer_that_is_no_softmax_has_no_map() -> None:
    model = onnx.load_from_string(built(TAILS["pooled"]))
    model.graph.node[-1].op_type = "Sigmoid"
    del model.graph.node[-1].attribute[:]
    with pytest.raises(UnsupportedError, match="does not come from a softmax"):
        explainer(model.SerializeToString())


def test_a_stranger_s_graph_is_an_error_of_ours(picture: np.ndarray) -> None:
    model = onnx.load_from_string(built(TAILS["pooled"]))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    del gemm.input[1:]
    with pytest.raises(BundleError, match="its last layers can't be read"):
        explainer(model.SerializeToString())
    # One factor for each column: ONNX Runtime broadcasts it, and a pooled value has no columns.
    five = np.ones((1, 1, 5), np.float32)
    spread = [TAILS["pooled"][0], make("Mul", ["p", "five"], ["y"]), make("Flatten", ["y"], ["f"])]
    data = built([*spread, make("Gemm", ["f", "long"], ["logits"])], five=five, long=np.ones((20, 3), np.float32))
    with pytest.raises(BundleError, match="do not fit its features"):
        explainer(data).contributions(picture, 0)
    more = [make("Add", ["f", "rows4"], ["w"]), make("Gemm", ["w", "matrix"], ["logits"])]
    data = built([*TAILS["pooled"][:2], *more], rows4=np.ones((4, 4), np.float32))
    with pytest.raises(BundleError, match="answers that are no probabilities"):
        explainer(data).contributions(picture, 0)


def test_a_gate_of_pooled_values_is_not_gone_through(picture: np.ndarray) -> None:
    """The gated 2×2 cells are the map, though those before have more: what is pooled has no cells."""
    kernel = RNG.normal(0, 0.3, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    gated = [make(n.op_type, [{"x": "y"}.get(i, i) for i in n.input], list(n.output)) for n in TAILS["gated"][:5]]
    data = built([make("Conv", ["x", "small"], ["y"], strides=[2, 2]), *gated, *TAILS["gated"][5:]], small=kernel)
    assert explainer(data).contributions(picture, 0)[1].shape == (2, 2)


CURVES = {
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "Erf": {}, "HardSwish": {}, "HardSigmoid": {"alpha": 1 / 6},
}  # fmt: skip


@pytest.mark.parametrize("operator", [*CURVES, "Clip"])
def test_slopes_are_those_of_onnx_runtime_s_functions(operator: str) -> None:
    inputs = ["x", "low", "high"] if operator == "Clip" else ["x"]
    node = make(operator, inputs, ["y"], **CURVES.get(operator, {}))
    give = onnx.numpy_helper.from_array
    ends = [give(np.array(v, np.float32), n) for n, v in (("low", -1.5), ("high", 2))]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([make("Cast", ["pixels"], ["f"], to=1), make("Mul", ["f", "each"], ["c"]),
                                make("Sub", ["c", "four"], ["x"]), node], "g",
                               [onnx.helper.make_tensor_value_info("pixels", 2, ["N"])],
                               [onnx.helper.make_tensor_value_info("y", 1, ["N"])],
                               [*ends, give(np.float32(8 / 255), "each"), give(np.float32(4), "four")]),
        opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    data = model.SerializeToString()
    x, y = onnxruntime.values(nodes.with_outputs(data, ["x"]), np.arange(256).astype(np.uint8), ["x", "y"], "it")
    read = nodes.read(data, "it")
    step = steps.step(read.all[-1], read, set())
    assert isinstance(step, steps.Curve) and step.given == "x"
    ((_, found),) = step.back(np.ones((256, 1, 1), np.float32), {"x": x})
    measured = (y[2:] - y[:-2]) / (x[2:] - x[:-2])
    off = np.abs(found.ravel()[1:-1] - measured)
    assert np.sort(off)[-7] < 2e-3  # but for the places at a corner


def test_what_enters_the_last_stage_is_followed_through_padding_and_groups() -> None:
    """As Keras's MobileNet: zero padding of its own, a convolution of each channel, ReLU6."""
    rng = np.random.default_rng(2)
    stage = [
        make("Pad", ["x", "pads"], ["padded"]),
        make("Conv", ["padded", "depthwise"], ["d"], kernel_shape=[3, 3], strides=[2, 2], group=CHANNELS),
        make("Clip", ["d", "zero", "six"], ["r"]),
        make("GlobalAveragePool", ["r"], ["p"]),
        *TAILS["pooled"][1:],
    ]
    data = built(
        stage,
        pads=np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        depthwise=rng.normal(0.05, 0.12, (CHANNELS, 1, 3, 3)).astype(np.float32),
        zero=np.array(0, np.float32),
        six=np.array(6, np.float32),
    )
    found = tail.find(nodes.read(data, "it"), SIZE, SIZE)
    assert found.features == "x" and found.convolved
    picture = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    values = onnxruntime.OnnxValues(nodes.with_outputs(data, [*found.values, "p"]), where="it")(picture[None])
    contributions = found.contributions(values, CLASSES, 1)
    # The last stage is linear but for its bends, so it is exact: no number is above six here, and those below nought
    # take their share with them.
    assert values["d"].min() < 0 < values["d"].max() < 6
    logit = 0.5 * values["p"].ravel() @ WEIGHTS["transposed"][1] / 2
    assert abs(contributions.sum() - logit) < 1e-4
