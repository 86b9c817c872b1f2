"""Another library's network as plain data: names, shapes and roles without the library, and bounds for strangers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tenfold.architecture import weights
from tenfold.architecture.layers import Architecture, Conv, External, Normalize, Residual
from tenfold.bundle import tensors
from tenfold.errors import BundleError

NETWORK = External(
    "timm",
    "tiny.v1",
    3,
    dropout=0.25,
    head=("head.fc",),
    weights=(
        ("pos_embed", (1, 5, 4), "trained"),
        ("stem.conv.weight", (4, 3, 2, 2), "trained"),
        ("stem.bn.running_mean", (4,), "statistic"),
        ("scale", (), "frozen"),
        ("head.fc.weight", (3, 4), "trained"),
        ("head.fc.bias", (3,), "trained"),
    ),
)
ARCHITECTURE = Architecture("timm:tiny.v1", 8, 8, 3, (Normalize(), NETWORK))


def test_it_survives_json() -> None:
    written = json.loads(json.dumps(ARCHITECTURE.to_dict()))
    assert Architecture.from_dict(written) == ARCHITECTURE
    assert ARCHITECTURE.external == NETWORK
    assert Architecture("plain", 8, 8, 3, (Normalize(), Conv(3, 1))).external is None


def test_names_shapes_and_roles_follow_from_it_alone() -> None:
    specs = weights.specs(ARCHITECTURE)
    assert list(specs)[:4] == ["00_normalize.mean", "00_normalize.std", "01_external.pos_embed",
                               "01_external.stem.conv.weight"]  # fmt: skip
    assert specs["01_external.stem.bn.running_mean"] == weights.WeightSpec((4,), "statistic")
    assert specs["01_external.scale"] == weights.WeightSpec((), "frozen")
    assert weights.count(ARCHITECTURE) == 20 + 48 + 4 + 1 + 12 + 3
    assert weights.output_shapes(ARCHITECTURE)[-1] == ("01_external", (3,))


def test_its_weights_are_checked_and_kept_as_any() -> None:
    made = {n: np.ones(s.shape, np.float32) for n, s in weights.specs(ARCHITECTURE).items()}
    weights.check(ARCHITECTURE, tensors.load(tensors.save(made), "it"))
    with pytest.raises(BundleError, match=r"01_external\.scale' is missing"):
        weights.check(ARCHITECTURE, {n: w for n, w in made.items() if not n.endswith("scale")})
    with pytest.raises(BundleError, match=r"stem\.conv\.weight' is float32 \(4,\)"):
        weights.check(ARCHITECTURE, {**made, "01_external.stem.conv.weight": np.ones(4, np.float32)})


def test_numpy_does_not_make_its_first_weights() -> None:
    with pytest.raises(TypeError, match="engine"):
        weights.initial(ARCHITECTURE, 0, np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("layers", [
    (NETWORK,),
    (Normalize(), Conv(3, 1), NETWORK),
    (Normalize(), NETWORK, NETWORK),
    (Normalize(), Residual((NETWORK,), (NETWORK,))),
])  # fmt: skip
def test_it_stands_alone_after_normalize(layers: tuple[Any, ...]) -> None:
    with pytest.raises(BundleError):
        weights.output_shapes(Architecture("odd", 8, 8, 3, layers))


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(BundleError, match=r"gives \(3,\), not 4"):
        weights.output_shapes(Architecture("odd", 8, 8, 4, (Normalize(), NETWORK)))


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(layer: Any) -> None:
        for step in path[:-1]:
            layer = layer[step]
        layer[path[-1]] = value

    return change


LONG = "x" * 201
MANY = [[f"w{i}", [1], "trained"] for i in range(20_001)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("library", value="../timm"), "library is not a name"),
        (put("name", value="a b"), "name is not a name"),
        (put("name", value=LONG), "name is not a name"),
        (put("name", value=7), "name is not a name"),
        (put("units", value=0), "units"),
        (put("dropout", value=1.0), "dropout"),
        (put("dropout", value=None), "dropout"),
        (put("head", value="fc"), "head is not a list"),
        (put("head", value=["a"] * 17), "head is not a list"),
        (put("head", value=[{}]), r"head\[0\] is not a name"),
        (put("weights", value=[]), "1 to 20,000 weights"),
        (put("weights", value=MANY), "1 to 20,000 weights"),
        (put("weights", 0, value=["a", [1]]), "name, a shape and a role"),
        (put("weights", 0, 0, value="a\n"), "is not a name"),
        (put("weights", 0, 0, value="/etc"), "is not a name"),
        (put("weights", 0, 0, value="scale"), "twice"),
        (put("weights", 0, 1, value=[1] * 9), "at most 8 sizes"),
        (put("weights", 0, 1, value=[0]), "whole number from 1"),
        (put("weights", 0, 1, value=[2**31]), "whole number from 1"),
        (put("weights", 0, 1, value=[True]), "whole number from 1"),
        (put("weights", 0, 2, value="secret"), "role"),
        (put("weights", 0, 2, value=[]), "role"),
        (put("weights", 0, value=["a", [1], "trained", "more"]), "name, a shape and a role"),
        (put("more", value=1), "unknown field"),
    ],
)
def test_a_stranger_s_text_is_bounded(change: Callable[[Any], None], says: str) -> None:
    written = json.loads(json.dumps(ARCHITECTURE.to_dict()))
    change(written["layers"][1])
    with pytest.raises(BundleError, match=says):
        Architecture.from_dict(written)


def test_more_weights_than_fit_anywhere_are_refused() -> None:
    written = ARCHITECTURE.to_dict()
    written["layers"][1]["weights"][0][1] = [2**31 - 1] * 8
    with pytest.raises(BundleError, match="more than 2,000,000,000 weights"):
        weights.specs(Architecture.from_dict(written))
