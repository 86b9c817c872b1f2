from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tenfold.architecture import zoo
from tenfold.architecture.layers import Architecture
from tenfold.errors import BundleError
from tenfold.recipe import Model, load, presets


@pytest.mark.parametrize("model", [*(load(p).model for p in presets() if p != "finetune"), Model(name="resnet18")])
def test_an_architecture_survives_json(model: Model) -> None:
    architecture = zoo.build(model, 32, 32, 10)
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


def spoilt() -> list[tuple[str, Any]]:
    base = zoo.build(Model(name="resnet18", widths=(8, 8)), 16, 16, 3).to_dict()

    def change(**at: Any) -> dict[str, Any]:
        data = copy.deepcopy(base)
        data["layers"][1].update(at)
        return data

    deep: list[Any] = []
    for _ in range(50):
        deep = [{"kind": "residual", "body": deep, "shortcut": []}]
    return [
        ("not an object", []),
        ("unknown field", {**base, "code": "x"}),
        ("architecture.name", {**base, "name": 3}),
        ("architecture.height", {**base, "height": True}),
        ("architecture.width", {**base, "width": 10**9}),
        ("not a list", {**base, "layers": {}}),
        ("not a list", {**base, "layers": deep}),
        ("not a known layer", {**base, "layers": [{"kind": "lambda"}]}),
        (r"layers\[1\].filters", change(filters=10**9)),
        (r"layers\[1\].kernel", change(kernel=-1)),
        (r"layers\[1\].init", change(init="eval")),
        (r"layers\[1\].bias", change(bias=1)),
        ("unknown field", change(extra=1)),
        ("first layer", {**base, "layers": []}),
        ("not 4 logits", {**base, "classes": 4}),
    ]


@pytest.mark.parametrize(("says", "data"), spoilt())
def test_a_strangers_architecture_is_checked_field_by_field(says: str, data: Any) -> None:
    with pytest.raises(BundleError, match=says):
        Architecture.from_dict(data)
