"""What a verification finds: right answers, wrong ones, and engines and runtimes that give none."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.bundle import store, tensors
from tenfold.data.dataset import Dataset, Geometry, Split
from tenfold.engines.base import ENGINES, Entry
from tenfold.errors import BundleError, CallError, MissingExtraError, UnknownNameError
from tenfold.verification import Row, Verification, backends, verify

ORT = ["onnxruntime"]


def pictures(count: int = 40) -> Dataset:
    """Pictures that fit the tiny bundle's size; their classes are none of its."""
    images = np.random.default_rng(3).integers(0, 256, (count, 8, 8, 3), np.uint8)
    split = Split(images, np.zeros(count, np.int64), [str(i) for i in range(count)])
    empty = Split(images[:0], np.zeros(0, np.int64), [])
    return Dataset("noise", "noise", ("any",), {"train": empty, "val": empty, "test": split}, Geometry(8, 8))


def row(found: Verification, name: str, part: str | None = "golden") -> Row:
    return next(r for r in found.rows if r.name == name and r.set == part)


@pytest.fixture
def changed(bundle_folder: Path, reseal: Callable[..., None]) -> Path:
    """A bundle whose weights were changed by hand, with every digest put right."""
    weights = store.open(bundle_folder).weights()
    last = [name for name in weights if name.endswith("dense.kernel")][-1]
    weights[last] = np.ascontiguousarray(weights[last][::-1])  # the classes change places
    (bundle_folder / "weights.safetensors").write_bytes(tensors.save(weights))
    digest = store.weights_sha256(weights)
    reseal(bundle_folder, lambda value: value.update(weights_sha256=digest))
    return bundle_folder


# ---- right and wrong answers ---------------------------------------------------------------------------------


def test_a_runtime_on_the_golden_images(bundle_folder: Path) -> None:
    found = verify(bundle_folder.parent, engines=[], runtimes=ORT, golden_only=True)
    assert found.passed and found.model == "tiny-run" and found.logits_reference is None and found.notes == ()
    assert [(s.name, s.data, s.images) for s in found.sets] == [("golden", None, 5)]
    (only,) = found.rows
    assert (only.kind, only.state, only.device, only.images, only.top1_agree) == ("runtime", "passed", "cpu", 5, 5)
    assert only.version is not None and only.version.startswith("onnxruntime ")
    assert only.probability_difference is not None and 0 <= only.probability_difference < 1e-5
    assert only.logit_difference is None
    assert 0 < (only.seconds or 0) < (only.process_seconds or 0) < found.seconds + 0.01


def test_an_environment_with_torch_alone(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other engines and runtimes are not there: the model is verified all the same, on a split too."""
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    monkeypatch.setattr(
        backends,
        "ENGINES",
        {"torch": ENGINES["torch"], "other": Entry("other", ("no_such_package_anywhere",), "other")},
    )
    monkeypatch.setattr(backends, "RUNTIMES", {"onnxruntime": ("onnxruntime", None)})
    found = verify(bundle_folder, pictures(), device="cpu")
    assert found.passed and found.logits_reference == "torch"
    for part, images in (("golden", 5), ("test", 40)):
        torch = row(found, "torch", part)
        assert (torch.state, torch.device, torch.images, torch.top1_agree) == ("passed", "cpu", images, images)
        assert torch.probability_difference is not None and torch.probability_difference < 1e-5
        assert torch.logit_difference is None  # it is the reference itself
    assert row(found, "onnxruntime").state == "passed"
    assert row(found, "onnxruntime", "test").state == "reference"
    missing = row(found, "other", None)
    assert (missing.state, missing.message) == ("not installed", "pip install 'tenfold[other]'")


def test_weights_changed_by_hand_are_found(changed: Path) -> None:
    """The digests are right, but the weights no longer are those that model.onnx and the golden answers came of."""
    pytest.importorskip("torch", reason="needs tenfold[torch]")
    found = verify(changed, engines=["torch"], runtimes=ORT, golden_only=True)
    assert not found.passed
    wrong = row(found, "torch")
    assert wrong.state == "failed" and wrong.probability_difference is not None
    assert wrong.probability_difference > 1e-3
    assert row(found, "onnxruntime").state == "passed"


def test_a_model_changed_by_hand_is_found(
    bundle_folder: Path, bundle_content: Any, reseal: Callable[..., None]
) -> None:
    from tenfold.export import onnx as export

    content = bundle_content(seed=7)
    export.write(
        content.architecture, content.weights, classes=content.classes, geometry=content.geometry, temperature=1.25,
        name="tiny-run", path=bundle_folder / "model.onnx",
    )  # fmt: skip
    reseal(bundle_folder)
    found = verify(bundle_folder, engines=[], runtimes=ORT, golden_only=True)
    assert not found.passed and found.rows[0].state == "failed"


def test_a_damaged_file_is_an_error_of_its_own(bundle_folder: Path) -> None:
    data = bytearray((bundle_folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (bundle_folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.safetensors .*another SHA-256"):
        verify(bundle_folder, engines=[], golden_only=True)


# ---- engines and runtimes that give no answers, or odd ones --------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise OSError('libtbb.so.2: cannot open\\nmore')", "OSError: libtbb.so.2: cannot open"),
        ("import os; os.kill(os.getpid(), 9)", "its process was ended by signal 9."),
        (
            "import sys; print('last words', file=sys.stderr); sys.exit(3)",
            "its process ended with status 3: last words",
        ),
    ],
)
def test_a_broken_child_is_a_row(bundle_folder: Path, fake_package: Any, code: str, said: str) -> None:
    fake_package("openvino", code)
    found = verify(bundle_folder, engines=[], runtimes=["openvino", "onnxruntime"], golden_only=True)
    assert not found.passed
    broken = row(found, "openvino", None)
    assert (broken.state, broken.message) == ("failed", said)
    assert row(found, "onnxruntime").state == "passed"


def test_an_engine_without_the_architecture_does_not_fail(bundle_folder: Path, fake_engine: Any) -> None:
    fake_engine("from tenfold.errors import UnsupportedError\nraise UnsupportedError('It has no such network.')")
    found = verify(bundle_folder, engines=["torch"], runtimes=ORT, golden_only=True)
    assert found.passed and found.logits_reference is None
    lacking = row(found, "torch", None)
    assert (lacking.state, lacking.message) == ("unavailable", "It has no such network.")


def test_an_engine_that_needs_another_package_is_not_installed(bundle_folder: Path, fake_engine: Any) -> None:
    fake_engine("from tenfold.errors import MissingExtraError\nraise MissingExtraError('keras', 'jax', 'It')")
    lacking = row(verify(bundle_folder, engines=["torch"], runtimes=ORT, golden_only=True), "torch", None)
    assert (lacking.state, lacking.message) == ("not installed", "pip install 'tenfold[jax]'")


def test_where_nothing_answers_nothing_has_passed(bundle_folder: Path, fake_engine: Any) -> None:
    fake_engine("from tenfold.errors import UnsupportedError\nraise UnsupportedError('No.')")
    assert not verify(bundle_folder, engines=["torch"], runtimes=[], golden_only=True).passed
    assert not verify(bundle_folder, engines=[], runtimes=[], golden_only=True).passed


def test_answers_of_another_kind_are_a_failure(bundle_folder: Path, fake_engine: Any) -> None:
    fake_engine("return np.zeros((len(images), 2))")
    found = verify(bundle_folder, engines=["torch"], runtimes=[], golden_only=True)
    assert row(found, "torch", None).message == "It gave float64 (5, 2), not float32 (5, 3)."
    assert not found.passed


def test_answers_that_are_not_finite_are_a_failure(bundle_folder: Path, fake_engine: Any) -> None:
    fake_engine("return np.full((len(images), 3), np.inf, np.float32)")
    found = verify(bundle_folder, engines=["torch"], runtimes=[], golden_only=True)
    torch = row(found, "torch")
    assert torch.state == "failed" and torch.probability_difference == float("inf") and torch.top1_agree == 0
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["rows"][0]["probability_difference"] is None


def test_images_come_as_a_read_only_memory_map(bundle_folder: Path, fake_engine: Any) -> None:
    fake_engine("raise TypeError(f'{type(images).__name__} {images.dtype} {images.flags.writeable}')")
    found = verify(bundle_folder, engines=["torch"], runtimes=[], golden_only=True)
    assert row(found, "torch", None).message == "TypeError: memmap uint8 False"


# ---- which are asked, and for what ---------------------------------------------------------------------------


def test_unknown_names_are_answered_with_the_nearest(bundle_folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"No engine is called 'troch'.*Did you mean torch"):
        verify(bundle_folder, engines=["troch"])
    with pytest.raises(UnknownNameError, match=r"No runtime is called 'openvno'.*Did you mean openvino"):
        verify(bundle_folder, runtimes=["openvno"])
    with pytest.raises(UnknownNameError, match="No split is called"):
        verify(bundle_folder, split="tset")


def test_a_named_one_that_is_not_installed_is_an_error(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "RUNTIMES", {"openvino": ("no_such_package_anywhere", "openvino")})
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfold\[openvino\]'"):
        verify(bundle_folder, engines=[], runtimes=["openvino"])


def test_golden_images_only_and_other_data_exclude_each_other(bundle_folder: Path) -> None:
    with pytest.raises(CallError, match="can't both"):
        verify(bundle_folder, pictures(), golden_only=True)


def test_own_data_that_is_not_there_is_a_note(bundle_folder: Path) -> None:
    found = verify(bundle_folder, engines=[], runtimes=ORT)
    assert found.passed and [s.name for s in found.sets] == ["golden"]
    (note,) = found.notes
    assert note.startswith("Only the golden images were replayed.") and "'generated'" in note


def test_own_data_is_not_downloaded_unasked(
    bundle_content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "empty"))
    content = bundle_content(provenance={"dataset": {"source": "cifar100"}})
    folder = store.write(tmp_path / "model", content).path
    (note,) = verify(folder, engines=[], runtimes=ORT).notes
    assert "cifar100" in note and "--data cifar100 downloads it" in note


def test_own_data_is_found_again(bundle_content: Any, tmp_path: Path) -> None:
    content = bundle_content(10, 16, provenance={"dataset": {"source": "digits"}})
    found = verify(store.write(tmp_path / "model", content).path, engines=[], runtimes=ORT)
    assert [(s.name, s.data, s.images) for s in found.sets] == [("golden", None, 5), ("test", "digits", 359)]
    assert found.notes == ()


def test_other_data_that_can_not_be_used_is_an_error(bundle_folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="No dataset is called 'digts'"):
        verify(bundle_folder, "digts", engines=[], runtimes=ORT)


def test_the_reference_runtime_is_asked_where_a_split_needs_it(bundle_folder: Path, fake_engine: Any) -> None:
    fake_engine("return np.zeros((len(images), 3), np.float32)")
    found = verify(bundle_folder, pictures(), engines=["torch"], runtimes=[])
    assert row(found, "onnxruntime", "test").state == "reference"
    assert "onnxruntime was asked too" in found.notes[0]
    assert row(found, "torch", "test").state == "failed"


def test_without_the_reference_a_split_is_not_compared(
    bundle_folder: Path, fake_package: Any, fake_engine: Any
) -> None:
    fake_package("onnxruntime", "raise ImportError('broken')")
    found = verify(bundle_folder, pictures(), engines=[], runtimes=ORT)
    assert not found.passed
    assert [(r.name, r.set, r.state) for r in found.rows] == [("onnxruntime", None, "failed")]
    assert found.notes == ("noise, test, was not compared: onnxruntime gave no answers.",)


def test_the_result_is_plain_json(bundle_folder: Path) -> None:
    found = verify(bundle_folder, pictures(), engines=[], runtimes=ORT)
    value = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(value) == ["model", "passed", "tolerance", "logits_reference", "sets", "rows", "notes", "seconds"]
    assert set(value["rows"][0]) == {f.name for f in dataclasses.fields(Row)}
    assert [r["state"] for r in value["rows"]] == ["passed", "reference"]


def test_no_framework_is_imported_in_this_process(bundle_folder: Path) -> None:
    code = (
        "import sys; from tenfold import verify; "
        f"assert verify({str(bundle_folder)!r}, engines=[], runtimes=['onnxruntime']).passed; "
        "bad = {'torch', 'tensorflow', 'jax', 'onnxruntime', 'openvino'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
