from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.benchmarking import targets
from tenfold.benchmarking.records import Configuration
from tenfold.benchmarking.targets import Wanted
from tenfold.bundle import store
from tenfold.engines.base import Entry
from tenfold.errors import CallError, MissingExtraError, UnknownNameError
from tenfold.export import artifact
from tenfold.export.artifact import Artifact

ANY = Wanted(None, None, None, (None,))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runtimes and two engines that look installed, an engine and a runtime of artifacts that don't."""
    engines = {"torch": Entry("torch", ("json",), "torch"), "opencl": Entry("tinygrad", ("json",), "opencl"),
               "jax": Entry("keras", ("no_such_package",), "jax")}  # fmt: skip
    monkeypatch.setattr(targets, "ENGINES", engines)
    monkeypatch.setattr(targets, "RUNTIMES", {"onnxruntime": ("json", None), "openvino": ("json", "openvino")})
    monkeypatch.setattr(targets, "ARTIFACTS", {"litert": ("json", "litert"), "savedmodel": ("no_such_package", "tf")})


@pytest.fixture
def export(bundle_folder: Path) -> Callable[..., Path]:
    """(format, runtime, content) → an artifact of the bundle in its run's exports."""

    def make(kind: str, runtime: str, content: bytes = b"a model") -> Path:
        folder = bundle_folder.parent / "exports" / kind
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(content)
        (folder / "bundle.json").write_bytes((bundle_folder / "manifest.json").read_bytes())
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        artifact.seal(folder, Artifact(kind, runtime, "model.bin", now, "0.1.0", {}, {"passed": True}, {}))
        return folder

    return make


def names(plan: targets.Plan) -> list[str]:
    return [str(one) for _, one in plan.first]


def test_a_run_is_measured_with_its_exports(bundle_folder: Path, export: Callable[..., Path]) -> None:
    export("litert-int8", "litert")
    export("onnx-fp16", "onnxruntime")
    export("saved-model", "savedmodel")
    export("onnx", "onnxruntime", (bundle_folder / "model.onnx").read_bytes())
    found = targets.find([bundle_folder.parent])
    assert [s.name for s in found.subjects] == ["tiny-run"] and found.subjects[0].image == "8×8"
    assert [t.format for t in found.targets] == ["bundle", "litert-int8", "onnx-fp16", "saved-model"]
    assert "onnx of tiny-run: the same model.onnx" in found.notes[0]
    plan = targets.plan(found, ANY)
    assert names(plan) == [
        "onnxruntime cpu fp32", "openvino cpu fp32", "torch cpu fp32", "litert-int8 export cpu", "onnx-fp16 export cpu"
    ]  # fmt: skip
    assert [one.precision for _, one in plan.first][-2:] == ["int8", "fp16"]
    assert [str(one) for _, one in plan.asked] == ["opencl cpu fp32"]
    assert plan.notes[0] == "Not installed, so not measured: jax, savedmodel."
    assert plan.notes[1].startswith("Left out: opencl on the processor")


def test_what_is_named_alone_is_measured(bundle_folder: Path, export: Callable[..., Path]) -> None:
    export("litert-int8", "litert")
    found = targets.find([bundle_folder])
    asked = Wanted(("onnxruntime", "opencl", "litert"), ("cpu", "cuda"), ("fp32", "bf16"), (1, 2))
    engines = [f"opencl {device} {precision}" for device in ("cpu", "cuda") for precision in ("fp32", "bf16")]
    assert set(names(targets.plan(found, asked))) == {
        f"{name} {threads}"
        for name in ("onnxruntime cpu fp32", "onnxruntime cuda fp32", *engines)  # int8 is not among those named
        for threads in ("1 thread", "2 threads")
    }
    with pytest.raises(CallError, match="Nothing is left"):
        targets.plan(found, Wanted(("litert",), ("cuda",), None, (None,)))


def test_a_runtime_tells_of_more(bundle_folder: Path, export: Callable[..., Path]) -> None:
    export("onnx-fp16", "onnxruntime")
    bundle, fp16 = targets.find([bundle_folder]).targets
    told = {"cuda:0": ["fp32", "bf16"], "cpu": ["fp32", "bf16"]}
    first = Configuration("tiny-run", "torch", "cpu", "fp32", "bundle")
    assert [str(c) for c in targets.more(bundle, first, told, ANY)] == [
        "torch cuda:0 fp32", "torch cuda:0 bf16", "torch cpu bf16"
    ]  # fmt: skip
    named = Wanted(None, ("cpu",), None, (None,))
    assert [str(c) for c in targets.more(bundle, first, told, named)] == ["torch cpu bf16"]
    exact = Wanted(None, None, ("fp16",), (None,))
    assert [c.precision for c in targets.more(bundle, first, told, exact)] == ["fp16", "fp16"]
    own = Configuration("tiny-run", "onnxruntime", "cpu", "fp16", "onnx-fp16")
    cards = {"cuda": ["fp32"], "cpu": ["fp32"]}
    assert [(c.device, c.precision) for c in targets.more(fp16, own, cards, ANY)] == [("cuda", "fp16")]


def test_two_runs_and_an_artifact_alone(bundle_content: Any, bundle_folder: Path, tmp_path: Path, export: Any) -> None:
    other = store.write(tmp_path / "other" / "model", bundle_content(seed=5)).path
    lone = export("onnx-int8", "onnxruntime").rename(tmp_path / "lone")
    found = targets.find([other, bundle_folder, lone, bundle_folder / "model.onnx"])
    again = [f"tiny-run ({path})" for path in (bundle_folder, bundle_folder / "model.onnx")]
    assert [s.name for s in found.subjects] == ["tiny-run", *again]
    assert [t.golden is None for t in found.targets] == [False, False, False, True]
    assert found.targets[2].golden == bundle_folder  # its weights are that bundle's
    sizes = (bundle_folder / "weights.safetensors").stat().st_size, (bundle_folder / "model.onnx").stat().st_size
    assert (found.targets[1].size("torch"), found.targets[1].size("onnxruntime")) == sizes


def test_what_is_not_there_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CallError, match="no run, bundle or model"):
        targets.find([tmp_path / "none"])
    with pytest.raises(CallError, match="no run, bundle or model"):
        targets.find([tmp_path / "none.onnx"])
    with pytest.raises(CallError, match="named twice"):
        targets.find([bundle_folder, bundle_folder])


def test_names_are_checked_before_anything_is_read() -> None:
    with pytest.raises(UnknownNameError, match="onnxruntme"):
        targets.check(Wanted(("onnxruntme",), None, None, (None,)))
    with pytest.raises(MissingExtraError, match="no_such_package"):
        targets.check(Wanted(("jax",), None, None, (None,)))
    with pytest.raises(MissingExtraError, match="no_such_package"):
        targets.check(Wanted(("savedmodel",), None, None, (None,)))
    with pytest.raises(UnknownNameError, match="fp8"):
        targets.check(Wanted(None, None, ("fp8",), (None,)))
    with pytest.raises(CallError, match="No device"):
        targets.check(Wanted(None, (), None, (None,)))
