from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tenfold import energy
from tenfold.energy import Reading


def cards(*joules: float) -> dict[int, Reading]:
    return {i: Reading("card", f"GPU-{i}abc", j) for i, j in enumerate(joules)}


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A library of two cards, the second without a counter."""
    found = SimpleNamespace(millijoules=5_000_000, NVMLError=NVMLError)

    def counter(index: int) -> int:
        if index == 1:
            raise NVMLError("not supported")
        return found.millijoules

    found.nvmlInit = lambda: None
    found.nvmlDeviceGetCount = lambda: 2
    found.nvmlDeviceGetHandleByIndex = lambda index: index
    found.nvmlDeviceGetTotalEnergyConsumption = counter
    found.nvmlDeviceGetName = lambda index: b"a card"  # bytes in older versions of the package
    found.nvmlDeviceGetUUID = lambda index: f"GPU-{index}"
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found


def test_the_counter_is_read_before_and_after(nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    meter = energy.meter()
    assert meter is not None
    before = meter()
    assert before == {0: Reading("a card", "GPU-0", 5000.0)}
    nvml.millijoules += 1_800_000  # half a watt-hour
    assert energy.used_wh(before, meter(), "cuda:0") == pytest.approx(0.5)
    assert energy.used_wh(before, meter(), "cpu") is None
    assert energy.used_wh(before, meter(), "cuda:1") is None


def test_a_driver_that_was_loaded_anew_tells_nothing() -> None:
    assert energy.used_wh(cards(5000), cards(10), "cuda:0") is None


def test_without_library_or_counter_there_is_no_meter(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.nvmlDeviceGetCount = lambda: 0
    assert energy.meter() is None
    nvml.nvmlInit = lambda: (_ for _ in ()).throw(NVMLError("no driver"))
    assert energy.meter() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where the package is not installed
    assert energy.meter() is None


@pytest.mark.parametrize(
    ("ran_on", "visible", "index"),
    [
        ("cuda:1", None, 1),
        ("cuda:0", "1", 1),
        ("cuda:1", "2,0", 0),
        ("cuda:0", "GPU-2", 2),
        ("cuda:0", "MIG-1", None),
        ("cuda:1", "0", None),
        ("cuda:7", None, None),
        ("cuda:0", "", None),
        ("mps", None, None),
        (None, None, None),
    ],
)
def test_which_card_a_device_is(ran_on: str | None, visible: str | None, index: int | None) -> None:
    assert energy.card(ran_on, cards(0, 0, 0), visible) == index


def test_a_processor_s_counter_may_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: str, name: str, used: int) -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        for file, text in (("name", name), ("energy_uj", used), ("max_energy_range_uj", 10_000_000)):
            (tmp_path / folder / file).write_text(f"{text}\n")

    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert energy.packages() == {} and energy.packages_wh({}, {}) is None
    write("intel-rapl:0", "package-0", 9_000_000)
    write("intel-rapl:1", "package-1", 1_000_000)
    write("intel-rapl:0:0", "core", 5)  # a part of the package, which counts it already
    write("intel-rapl:2", "psys", 5)
    before = energy.packages()
    assert sorted(before) == ["intel-rapl:0", "intel-rapl:1"]
    write("intel-rapl:0", "package-0", 2_600_000)
    write("intel-rapl:1", "package-1", 1_000_000)
    assert energy.packages_wh(before, energy.packages()) == pytest.approx(3.6 / 3600)
    assert energy.packages_wh({}, energy.packages()) is None
