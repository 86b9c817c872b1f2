"""What a process started by torchrun is told, and what is refused there. Trainings: tests/engines/torch."""

from __future__ import annotations

from typing import Any

import pytest

from tenfold import distributed, recipe, training
from tenfold.cli import app
from tenfold.distributed import Peers, World
from tenfold.engines.base import Device
from tenfold.errors import CallError, UnknownNameError, UnsupportedError

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1",
}  # fmt: skip


def told(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    for name, value in {**TORCHRUN, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def test_the_place_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.world() is None
    assert not distributed.follows()
    told(monkeypatch)
    assert distributed.world() == World(3, 4, 1, 2)
    assert distributed.follows()
    told(monkeypatch, RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    assert distributed.world() is None
    told(monkeypatch, MASTER_PORT=None)  # someone else's variables
    assert distributed.world() is None


@pytest.mark.parametrize("changes", [{"RANK": "4"}, {"RANK": "x"}, {"LOCAL_RANK": "2"}, {"LOCAL_WORLD_SIZE": "5"}])
def test_a_place_that_cannot_be_is_an_error(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    told(monkeypatch, **changes)
    with pytest.raises(CallError, match="WORLD_SIZE=4"):
        distributed.world()
    assert not distributed.follows()


@pytest.mark.parametrize("arguments", [["train", "--engine", "jax"], ["train", "--sed", "1"], ["train", "--seed", "x"]])
def test_one_process_says_what_all_have_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    told(monkeypatch)
    assert app.run(arguments) == 2
    assert capsys.readouterr().err == ""
    told(monkeypatch, RANK="0", LOCAL_RANK="0")
    assert app.run(arguments) == 2
    assert capsys.readouterr().err.startswith("Error: ")


@pytest.mark.parametrize("engine", ["jax", "tensorflow", "opencl"])
def test_other_engines_are_refused_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    told(monkeypatch)
    with pytest.raises(UnsupportedError, match=f"4 processes .* {engine}") as caught:
        training.train("digits", engine=engine)
    assert "--engine torch" in str(caught.value)


def test_compile_is_refused_in_several_processes() -> None:
    compiled = recipe.Recipe(compile=True)
    distributed.check(compiled, "torch", 1)
    with pytest.raises(UnsupportedError, match="compile"):
        distributed.check(compiled, "torch", 2)


class Machine:
    """An engine on a machine with these devices."""

    name = "torch"

    def __init__(self, *names: str) -> None:
        self.names = names

    def devices(self) -> list[Device]:
        return [Device(name, name) for name in self.names]

    def device(self, name: str) -> Device:
        for found in self.devices():
            if name in ("auto", found.name, found.name.partition(":")[0]):
                return found
        raise UnknownNameError("device", name, self.names)


class Several(Peers):
    size, local_size, local_rank = 2, 2, 1


def device(machine: Any, name: str) -> str:
    return distributed.device(machine, name, Several()).name


def test_each_process_has_the_card_of_its_place() -> None:
    two = Machine("cuda:0", "cuda:1", "cpu")
    assert device(two, "auto") == device(two, "cuda") == "cuda:1"
    assert device(two, "cpu") == "cpu"
    assert device(Machine("cpu"), "auto") == "cpu"
    assert distributed.device(two, "auto", Peers()).name == "cuda:0"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "name", "message"),
    [
        (Machine("cuda:0", "cuda:1", "cpu"), "cuda:1", "one card for 2 processes"),
        (Machine("cuda:0", "cpu"), "auto", "2 processes .* 1 cards"),
        (Machine("mps", "cpu"), "auto", "not on mps"),
        (Machine("cpu"), "cuda", "No device"),
    ],
)
def test_devices_that_cannot_be_shared_out_are_refused(machine: Machine, name: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        device(machine, name)


def test_one_process_asks_nobody() -> None:
    alone = Peers()
    assert alone.together(lambda: 3) == 3
    assert alone.shared([1]) == [1]
    assert alone.facts() == {"number": 1, "backend": None}
