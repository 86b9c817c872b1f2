"""What is listed, under which names, and what is said where there is nothing. No device is opened."""

from __future__ import annotations

from typing import Any

import pytest

from tenfold.errors import UnknownNameError, UnsupportedError

pytest.importorskip("tinygrad")

from tenfold.engines.tinygrad import TinygradEngine, devices
from tenfold.engines.tinygrad.devices import OpenCL


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """(OpenCL devices …) → they are all that this machine has."""

    def make(*found: OpenCL) -> None:
        monkeypatch.setattr(devices, "opencl", lambda: found)
        monkeypatch.setattr(devices, "_runtimes", list)
        monkeypatch.setattr(devices.shutil, "which", lambda name: None)

    return make


CARD = OpenCL(None, "Radeon", "AMD Accelerated Parallel Processing", 8 << 30, False)
ARC = OpenCL(None, "Arc", "Intel(R) OpenCL Graphics", 16 << 30, False)
POCL = OpenCL(None, "cpu-x", "Portable Computing Language", 4 << 30, True)
INTEL = OpenCL(None, "Xeon", "Intel(R) OpenCL", 4 << 30, True)


def test_a_machine_without_a_driver(machine: Any) -> None:
    machine()
    assert TinygradEngine().devices() == []
    for name in ("auto", "cpu", "opencl"):
        with pytest.raises(UnsupportedError, match="pocl-opencl-icd"):
            TinygradEngine().device(name)


def test_cards_come_first_and_cpu_last(machine: Any) -> None:
    machine(CARD, ARC, POCL, INTEL)
    found = devices.found()
    assert [d.name for d in found] == ["opencl:0", "opencl:1", "opencl:3", "cpu"]
    assert [devices.place(d) for d in found] == ["CL", "CL:1", "CL:3", "CL:2"]
    assert "Radeon (OpenCL, AMD" in found[0].label
    assert found[0].memory == 8 << 30
    assert devices.find("auto").name == devices.find("opencl").name == "opencl:0"
    assert "Portable Computing Language" in devices.find("cpu").label


def test_a_card_alone_is_no_processor(machine: Any) -> None:
    machine(CARD)
    assert devices.find("auto").name == "opencl:0"
    with pytest.raises(UnsupportedError, match=r"processor.*pocl-opencl-icd"):
        devices.find("cpu")
    with pytest.raises(UnknownNameError, match="Known: auto, opencl:0"):
        devices.find("opencl:7")


def test_two_cards_of_one_name_are_told_apart(machine: Any) -> None:
    machine(CARD, CARD, POCL)
    assert [devices.place(d) for d in devices.found()] == ["CL", "CL:1", "CL:2"]


def test_tinygrads_own_runtimes_stand_between(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(POCL)
    amd = devices.Device("amd:0", "card 0")
    monkeypatch.setattr(devices, "_runtimes", lambda: [amd])
    assert [d.name for d in devices.found()] == ["amd:0", "cpu"]
    assert devices.find("auto") == devices.find("amd") == amd
    assert devices.place(amd) == "AMD"
