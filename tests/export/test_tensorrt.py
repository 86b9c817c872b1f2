"""TensorRT's formats, as far as they can be told without a card: what is asked of it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tenfold
from tenfold.bundle import store
from tenfold.errors import BundleError, CallError, UnsupportedError
from tenfold.export import artifact, job, tensorrt
from tenfold.export.source import Source
from tenfold.runtimes import onnxruntime, providers
from tenfold.runtimes import tensorrt as runtime
from tenfold.runtimes.batches import Sizes

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
helper = onnx.helper

PLACE = runtime.Place("A Card", "9.0", "10.9.0", "1.22.0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")


def engine(*operators: str) -> bytes:
    """A graph of these operators, one after the other, as ONNX Runtime writes it around an engine."""
    nodes = [
        helper.make_node(op, [f"v{i}"], [f"v{i + 1}"], domain="com.microsoft" if op == "EPContext" else "")
        for i, op in enumerate(operators)
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()  # type: ignore[no-any-return]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A card that takes the operators in the list given; what it was asked for follows them."""
    told: list[Any] = ["EPContext"]

    def session(package: Any, model: Any, options: Any, wanted: Any, where: str) -> Any:
        provider, settings = wanted
        assert provider == providers.TENSORRT
        if path := settings.get("trt_ep_context_file_path"):
            Path(path).write_bytes(engine(*told))
        told.append(settings)
        return SimpleNamespace(run=lambda names, given: told.append(given["pixels"].shape))

    monkeypatch.setattr(providers, "session", session)
    monkeypatch.setattr(runtime, "missing", lambda package=None: None)
    monkeypatch.setattr(runtime, "here", lambda package=None: PLACE)
    return told


# ---- where there is none ---------------------------------------------------------------------------------------------


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"])
    assert runtime.missing(cpu) == "ONNX Runtime has no TensorRT here; it has CPU."
    built = SimpleNamespace(get_available_providers=lambda: [providers.TENSORRT, providers.CUDA, providers.CPU])
    monkeypatch.setattr(runtime, "card", lambda: None)
    assert "no NVIDIA card" in (runtime.missing(built) or "")
    monkeypatch.setattr(runtime, "card", lambda: ("A Card", "9.0"))
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(runtime.ctypes.util, "find_library", lambda name: None)
    assert runtime.missing(built) == "The package tensorrt is not installed."
    monkeypatch.setattr(runtime.ctypes.util, "find_library", lambda name: "libnvinfer.so.10")
    assert runtime.missing(built) is None


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-fp16"])
def test_it_is_refused_before_any_work(four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(runtime, "missing", lambda package=None: "ONNX Runtime has no TensorRT here; it has CPU.")
    with pytest.raises(UnsupportedError, match=rf"{name} can't be exported here\. .*has CPU\. .*onnxruntime-gpu") as e:
        job.export_model(tmp_path / "no run is looked for", name)
    assert e.value.exit_code == 2
    found = job._one(name, store.open(four), tmp_path / "out", None, False, lambda _: None)  # type: ignore[arg-type]
    assert found.state == "unavailable" and "onnxruntime-gpu" in (found.message or "")  # of --format all: no failure
    assert not (tmp_path / "out").exists()


# ---- what is asked of it ---------------------------------------------------------------------------------------------


def test_options_hold_the_batches_that_predict_asks_for() -> None:
    found = runtime.options(Sizes(32, 32, 10), half=True)
    assert found == {
        "device_id": "0",
        "trt_fp16_enable": "1",
        "trt_profile_min_shapes": "pixels:1x32x32x3",
        "trt_profile_opt_shapes": "pixels:256x32x32x3",
        "trt_profile_max_shapes": "pixels:256x32x32x3",
    }
    large = runtime.options(Sizes(224, 224, 10), half=False, engine=Path("e.onnx"))
    assert large["trt_profile_max_shapes"] == "pixels:20x224x224x3" and large["trt_fp16_enable"] == "0"
    assert (large["trt_dump_ep_context_model"], large["trt_ep_context_embed_mode"]) == ("1", "1")
    assert large["trt_ep_context_file_path"] == "e.onnx"


def test_pixels_cast_first_give_the_same_answers(four: Path) -> None:
    bundle = store.open(four)
    images, _ = bundle.golden()
    before = onnxruntime.open(bundle.model(), where="it").probabilities(images)
    model = onnx.load_from_string(bundle.model())
    tensorrt.cast_first(onnx, model.graph)
    takers = [node.op_type for node in model.graph.node if "pixels" in node.input]
    assert takers == ["Cast"]
    after = onnxruntime.open(model.SerializeToString(), where="it").probabilities(images)
    assert np.array_equal(before, after)


@pytest.mark.parametrize("half", [False, True])
def test_graph_engine_and_what_they_are_for(four: Path, tmp_path: Path, card: list[Any], half: bool) -> None:
    model, details = tensorrt.write(Source(store.open(four)), tmp_path, half=half)
    settings, shape = card[1:]
    assert settings["trt_fp16_enable"] == ("1" if half else "0") and shape == (256, 16, 16, 3)
    assert sorted(p.name for p in tmp_path.glob("*.onnx")) == ["engine.onnx", "model.onnx"]
    assert details["built_for"] == dataclasses.asdict(PLACE) and details["batch"] == [1, 256]
    said = runtime.metadata(tmp_path / model, "it")
    assert json.loads(said["tenfold.built_for"])["card"] == "A Card" and said["tenfold.threshold"] == "0.3"
    assert tmp_path.name not in (tmp_path / "model.onnx").read_text(errors="replace")


@pytest.mark.parametrize("operators", [("EPContext", "Softmax"), ("EPContext", "EPContext"), ()])
def test_a_network_that_is_not_all_in_the_engine_is_refused(
    four: Path, tmp_path: Path, card: list[Any], operators: tuple[str, ...]
) -> None:
    card[:] = operators
    with pytest.raises(UnsupportedError, match="can't hold the whole network") as error:
        tensorrt.write(Source(store.open(four)), tmp_path)
    assert ("Softmax" in str(error.value)) == ("Softmax" in operators)


@pytest.mark.usefixtures("in_process", "card")
def test_what_only_runs_elsewhere_is_no_artifact(four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, and then computed by another provider: ONNX Runtime's own, real session on the CPU."""

    def session(package: Any, model: Any, options: Any, wanted: Any, where: str) -> Any:
        providers.check(SimpleNamespace(get_providers=lambda: [providers.CUDA, providers.CPU]), wanted[0], where)

    bundle = store.open(four)
    with monkeypatch.context() as patch:
        before = providers.session

        def later(package: Any, model: Any, options: Any, wanted: Any, where: str) -> Any:
            return (before if "trt_ep_context_file_path" in wanted[1] else session)(
                package, model, options, wanted, where
            )

        patch.setattr(providers, "session", later)
        found = job.export_model(bundle.path, "tensorrt", out=tmp_path / "out")
    assert found.results[0].state == "failed"
    assert "was to be computed by TensorRT, and ONNX Runtime took CUDA, CPU" in (found.results[0].message or "")
    assert list((tmp_path / "out").iterdir()) == []


# ---- which are opened ------------------------------------------------------------------------------------------------


@pytest.fixture
def made(four: Path, tmp_path: Path, card: list[Any]) -> Path:
    """A folder with graph and engine, built here."""
    folder = tmp_path / "tensorrt"
    folder.mkdir()
    tensorrt.write(Source(store.open(four)), folder)
    return folder


def test_an_engine_built_here_is_admitted(made: Path) -> None:
    said = runtime.metadata(made / "model.onnx", "it")
    runtime.admit((made / "engine.onnx").read_bytes(), said, PLACE, "it")


@pytest.mark.parametrize("field", ["card", "capability", "tensorrt", "onnxruntime"])
def test_an_engine_for_another_place_is_refused(made: Path, field: str) -> None:
    said = runtime.metadata(made / "model.onnx", "it")
    other = dataclasses.replace(PLACE, **{field: "another"})
    with pytest.raises(
        UnsupportedError, match=r"for A Card \(compute capability 9\.0\), TensorRT 10.*; here is .*anoth"
    ):
        runtime.admit((made / "engine.onnx").read_bytes(), said, other, "it")


def test_an_engine_of_others_is_not_run(made: Path) -> None:
    said = runtime.metadata(made / "model.onnx", "it")
    with pytest.raises(UnsupportedError, match="was not built here"):
        runtime.admit((made / "engine.onnx").read_bytes() + b" ", said, PLACE, "it")
    with pytest.raises(BundleError, match="does not say which card"):
        runtime.admit(b"", {"tenfold.built_for": '{"card": "A Card"}'}, PLACE, "it")


def test_an_artifact_is_opened_on_the_card_alone(four: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (made / "bundle.json").write_bytes((four / "manifest.json").read_bytes())
    artifact.seal(made, artifact.Artifact("tensorrt", "tensorrt", "model.onnx", "now", "0", {}, {"passed": True}, {}))
    assert artifact.open(made).said.name == "tiny-run"
    with pytest.raises(CallError, match="computed on cuda alone, as every tensorrt, not on cpu"):
        tenfold.load(made, device="cpu", quick=True)
    monkeypatch.setattr(runtime, "missing", lambda package=None: "There is no NVIDIA card here.")
    with pytest.raises(UnsupportedError, match=r"model\.onnx is computed by TensorRT\. There is no NVIDIA card here\."):
        tenfold.load(made)
