"""The arithmetic of benchmarks/floor.py and the table of benchmarks/profile_table.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="needs tenfold[torch]")

from tenfold import recipe as recipes  # noqa: E402
from tenfold.architecture import zoo  # noqa: E402
from tenfold.engines.torch import build  # noqa: E402
from tenfold.recipe import Model  # noqa: E402

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for module in ("steps", "pages", "floor", "profile_table"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize("network", ["cnn", "sprint", "resnet18"])
def test_operations_are_those_that_pytorch_counts(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    floor = script("floor", monkeypatch)
    architecture = zoo.build(Model(name=network, widths=(8, 16)), 16, 16, 4)
    net = build.build(architecture).to("meta")  # shapes alone: nothing is computed
    images = torch.empty((3, 16, 16, 3), dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        net.train()(images).sum().backward()
    assert 3 * sum(c.flops for c in floor.costs(architecture, "fp32")) == counter.get_total_flops()


def test_bytes_of_a_small_network_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold.architecture.layers import Activation, Architecture, BatchNorm, Conv, Dense, GlobalPool, Normalize

    floor = script("floor", monkeypatch)
    layers = (Normalize(), Conv(4, 3, padding=1), BatchNorm(), Activation("relu"), GlobalPool("average"), Dense(2))
    moved = [c.bytes for c in floor.costs(Architecture("plain", 8, 8, 2, layers), "bf16")]
    pixels, maps = 3 * 64, 4 * 64
    # the first convolution's input needs no gradient: two passes, not three
    assert moved == [
        8 * pixels, 2 * 2 * (pixels + maps), 2 * 8 * maps, 2 * 5 * maps, 2 * 2 * (maps + 4), 2 * 3 * (4 + 2)
    ]  # fmt: skip


def test_the_floor_is_the_larger_of_arithmetic_and_movement(monkeypatch: pytest.MonkeyPatch) -> None:
    floor = script("floor", monkeypatch)
    recipe = recipes.load("quick")
    architecture = zoo.build(recipe.model, 32, 32, 10)
    parts = [*floor.costs(architecture, "bf16")]
    slow_arithmetic = floor.Machine("a", 1.0, 1e30)
    slow_memory = floor.Machine("b", 1e30, 1.0)
    more = floor.update(architecture, recipe)
    assert floor.floor(architecture, recipe, "bf16", 10, slow_arithmetic) == pytest.approx(
        10 * sum(c.flops for c in parts) + more.flops
    )
    assert floor.floor(architecture, recipe, "bf16", 10, slow_memory) == pytest.approx(
        10 * sum(c.bytes for c in parts) + more.bytes
    )


@pytest.mark.parametrize("name", ["floor", "profile-quick", "profile-sprint"])
def test_the_page_has_a_place_for_each_table_and_keeps_the_rest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = script("floor", monkeypatch).PAGE.read_text(encoding="utf-8")
    pages = script("pages", monkeypatch)
    changed = pages.between(page, name, "a table")
    assert changed.count("a table") == 1
    assert changed.split(f"<!-- {name}:start -->")[0] == page.split(f"<!-- {name}:start -->")[0]
    assert changed.split(f"<!-- {name}:end -->")[1] == page.split(f"<!-- {name}:end -->")[1]
    assert pages.between(changed, name, "another") == pages.between(page, name, "another")


def test_a_page_without_the_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = script("pages", monkeypatch)
    page = tmp_path / "page.md"
    page.write_text("<!-- floor:end --> <!-- floor:start -->", encoding="utf-8")
    with pytest.raises(ValueError, match=r"page\.md: the page needs <!-- floor:start --> and <!-- floor:end -->"):
        pages.put(page, "floor", "a table")


def test_the_shares_of_a_profile_are_told_by_kinds_and_what_is_left_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = script("profile_table", monkeypatch)
    parts = [("data", 0.1), ("host", 0.2), ("device", 0.7), ("idle", 0.0)]
    profile = {
        "parts": [{"key": key, "name": key, "seconds": share * 2, "share": share} for key, share in parts],
        "kinds": [{"name": "convolution forward", "seconds": 1.0}, {"name": "loss", "seconds": 0.3}],
    }
    assert table.rows(profile) == [
        ("convolution forward", 0.5), ("host", 0.2), ("loss", 0.15), ("data", 0.1)
    ]  # fmt: skip
