from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tenfold.cli import app, diagnosis


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of the engines' and runtimes' processes without waiting for a framework to be imported."""
    engine = {"versions": {"torch": "2.0"}, "devices": [], "seconds": 0.1}
    engine["devices"] = [{"name": "cpu", "label": "a processor", "memory_bytes": 1}]  # type: ignore[list-item]
    monkeypatch.setattr(diagnosis, "_ENGINE", f"print('chatter'); print({json.dumps(engine)!r})")
    monkeypatch.setattr(diagnosis, "_RUNTIME", 'print(\'{"version": "1", "providers": []}\')')


def doctor(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict:
    assert app.run(["doctor", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def broken(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """A torch that does ``content`` when it is imported, in the doctor's own processes."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    found = doctor(capsys)
    assert found["ok"]
    assert found["engines"]["torch"]["devices"][-1]["name"] == "cpu"
    assert "CPUExecutionProvider" in found["runtimes"]["onnxruntime"]["providers"]
    assert {"numpy", "onnxruntime", "typer"} <= set(found["packages"])
    assert found["extras"]["torch"]["installed"]
    assert found["data"]["datasets"]["digits"] == "built in"


def test_the_report_in_words(quick_probes: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["doctor"]) == 0
    said = capsys.readouterr()
    for title in ("Machine", "Training", "Predicting", "Packages", "Data", "Places"):
        assert f"\n{title}\n" in f"\n{said.out}"
    assert "a processor" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("raise OSError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
    ],
)
def test_a_broken_framework_is_reported_and_fails(
    content: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch")
    broken(tmp_path, monkeypatch, content)
    found = doctor(capsys, code=1)
    assert not found["ok"]
    assert found["engines"]["torch"]["state"] == "broken"
    assert expected in found["engines"]["torch"]["error"]
    assert found["runtimes"]["onnxruntime"]["state"] == "ok"
    assert any("force-reinstall torch" in item["command"] for item in found["advice"])


def test_a_framework_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    broken(tmp_path, monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(diagnosis, "PROBE_SECONDS", 1.5)
    assert "did not answer" in doctor(capsys, code=1)["engines"]["torch"]["error"]


def test_what_is_not_installed_comes_with_its_command(
    quick_probes: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = diagnosis._version
    monkeypatch.setattr(diagnosis, "_version", lambda name: None if name == "matplotlib" else there(name))
    found_spec = diagnosis.importlib.util.find_spec
    monkeypatch.setattr(
        diagnosis.importlib.util, "find_spec", lambda name: None if name == "torch" else found_spec(name)
    )
    found = doctor(capsys)
    assert found["engines"]["torch"] == {"state": "missing"}
    assert found["extras"]["torch"]["missing"] == ["matplotlib"]
    assert "pip install 'tenfold[torch]'" in [item["command"] for item in found["advice"]]
    assert found["ok"]


def test_a_missing_core_package_is_a_failure(
    quick_probes: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = diagnosis._version
    monkeypatch.setattr(diagnosis, "_version", lambda name: None if name == "safetensors" else there(name))
    assert doctor(capsys, code=1)["missing_packages"] == ["safetensors"]


def test_a_card_that_the_build_can_not_use_is_pointed_out() -> None:
    cpu_build = {"state": "ok", "devices": [{"name": "cpu"}], "versions": {"torch": "2.13+cpu"}}
    items = list(diagnosis._about_cards(["nvidia", "amd"], cpu_build))
    assert ["CUDA" in items[0]["problem"], "ROCm" in items[1]["problem"]] == [True, True]
    cuda = {"state": "ok", "devices": [{"name": "cuda:0"}], "versions": {"torch": "2.13", "cuda": "12.6"}}
    assert list(diagnosis._about_cards(["nvidia"], cuda)) == []


def test_an_amd_user_is_told_which_road_to_take() -> None:
    """ROCm's PyTorch needs no word; without it the opencl engine is pointed to, and the driver that it lacks."""
    cpu, card = {"name": "cpu"}, {"name": "opencl:0"}
    torch = {"state": "ok", "devices": [cpu], "versions": {"torch": "2.13"}}

    def said(cards: list[str], opencl: dict, torch: dict = torch) -> list[str]:
        return [item["command"] for item in diagnosis._about_opencl(cards, {"torch": torch, "opencl": opencl})]

    assert said(["amd"], {"state": "missing"}) == ["pip install 'tenfold[opencl]'"]
    assert "mesa-opencl-icd" in said(["amd"], {"state": "ok", "devices": [cpu]})[0]
    assert "--engine opencl" in said(["amd"], {"state": "ok", "devices": [card, cpu]})[0]
    rocm = {**torch, "versions": {"torch": "2.13", "hip": "7.0"}}
    assert said(["amd"], {"state": "ok", "devices": [card, cpu]}, rocm) == []
    assert said([], {"state": "ok", "devices": [cpu]}) == []
    assert "pocl-opencl-icd" in said([], {"state": "ok", "devices": []})[0]


def test_an_engine_without_a_version_of_its_own_name(
    quick_probes: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"versions": {"tinygrad": "0.14"}, "devices": [], "seconds": 0.1}
    monkeypatch.setattr(diagnosis, "_ENGINE", f"print({json.dumps(answer)!r})")
    assert app.run(["doctor"]) == 0
    assert "  tinygrad 0.14, imported" in capsys.readouterr().out


def test_places_are_measured(
    quick_probes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    (cache / "a").mkdir(parents=True)
    (cache / "a" / "file").write_bytes(bytes(1000))
    monkeypatch.setenv("TENFOLD_CACHE", str(cache))
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "none"))
    found = doctor(capsys)
    assert (found["cache"]["size_bytes"], found["cache"]["files"]) == (1000, 1)
    assert found["cache"]["free_bytes"] == pytest.approx(shutil.disk_usage(cache).free, rel=0.2)
    assert found["data"]["folders"][0] == {"path": str(tmp_path / "none"), "exists": False}
    assert found["data"]["datasets"]["cifar10"] is None
    assert "tenfold show cifar10" in [item["command"] for item in found["advice"]]
