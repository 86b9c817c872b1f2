from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.serving import oip
from tenfold.serving.refusal import Refusal

SHAPE = (2, 3, 3)
PIXELS = np.arange(36, dtype=np.uint8).reshape(2, *SHAPE)


def body(**changes: Any) -> bytes:
    tensor = {"name": "pixels", "shape": [2, *SHAPE], "datatype": "UINT8", "data": PIXELS.ravel().tolist(), **changes}
    return json.dumps({"inputs": [{k: v for k, v in tensor.items() if v is not None}]}).encode()


def test_flat_nested_and_binary_mean_the_same() -> None:
    for data in (PIXELS.ravel().tolist(), PIXELS.tolist(), PIXELS.reshape(2, -1).tolist()):
        assert (oip.parse(body(data=data), None, SHAPE).pixels == PIXELS).all()
    head = body(data=None, parameters={"binary_data_size": 36})
    found = oip.parse(head + PIXELS.tobytes(), len(head), SHAPE)
    assert (found.pixels == PIXELS).all() and found.id is None and not found.binary


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "images"},
        {"datatype": "FP32"},
        {"datatype": None},
        {"shape": None},
        {"shape": [2, 3, 2, 3]},
        {"shape": [2**60, *SHAPE]},
        {"shape": [-1, *SHAPE]},
        {"shape": [0, *SHAPE]},
        {"shape": [2.0, *SHAPE]},
        {"shape": [True, *SHAPE]},
        {"shape": "2"},
        {"data": None},
        {"data": []},
        {"data": list(range(35))},
        {"data": [256] * 36},
        {"data": [-1] * 36},
        {"data": [1.0] * 36},
        {"data": ["1"] * 36},
        {"data": [True] * 36},
        {"data": [[1] * 18, 5]},
        {"data": {"a": 1}},
        {"parameters": {"binary_data_size": 36}},
        {"data": None, "parameters": {"binary_data_size": 36}},
        {"data": None, "parameters": {"binary_data_size": -1}},
        {"data": None, "parameters": {"binary_data_size": "36"}},
        {"parameters": 5},
    ],
)
def test_what_is_no_tensor_of_the_models_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        oip.parse(body(**changes), None, SHAPE)
    assert (refused.value.status, refused.value.code) == (400, "bad_tensor")


def test_the_rest_of_a_request_is_checked() -> None:
    sound = json.loads(body())
    for changes in (
        {"id": 5},
        {"inputs": []},
        {"inputs": [*sound["inputs"], *sound["inputs"]]},
        {"inputs": {}},
        {"outputs": []},
        {"outputs": [{"name": "logits"}]},
        {"outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]},
        {"outputs": "probabilities"},
        {"parameters": []},
    ):
        with pytest.raises(Refusal):
            oip.parse(json.dumps({**sound, **changes}).encode(), None, SHAPE)
    for header in (0, 10**6):
        with pytest.raises(Refusal, match="Inference-Header"):
            oip.parse(body(), header, SHAPE)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda s: st.lists(s, max_size=4)))
def test_no_data_breaks_it(data: Any) -> None:
    with pytest.raises(Refusal):
        oip.parse(body(data=data if data is not None else []), None, SHAPE)


def test_who_asks_for_bytes_gets_them() -> None:
    sound = json.loads(body())
    for changes, binary in (
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}, True),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}],
            },
            False,
        ),
    ):
        assert oip.parse(json.dumps({**sound, **changes}).encode(), None, SHAPE).binary == binary
    rows = np.random.default_rng(0).random((2, 3), np.float32)
    text, length = oip.answer(rows, "a", "1", "é", False)
    assert length is None and np.allclose(json.loads(text)["outputs"][0]["data"], rows.ravel())
    raw, length = oip.answer(rows, "a", "1", None, True)
    assert length is not None and (np.frombuffer(raw[length:], "<f4").reshape(2, 3) == rows).all()
    assert json.loads(raw[:length])["outputs"][0]["parameters"] == {"binary_data_size": 24}
