"""``Model.explain``: a map that points at what decides, and where on the picture it lies."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tenfold
from tenfold.architecture import layers as l
from tenfold.bundle import store
from tenfold.data.dataset import Geometry
from tenfold.errors import BundleError, CallError, ImageError, UnknownNameError, UnsupportedError

pytest.importorskip("onnx", reason="needs tenfold[torch]")

SIZE = 32
COLOURS = ("red", "green", "blue")
ENDS = {
    "mean": (l.GlobalPool(), l.Dense(3)),
    "maximum": (l.GlobalPool("max"), l.Dense(3)),
    "flattened": (l.Flatten(), l.Dense(3)),
    "last stage": (l.Conv(3, 3, stride=2, padding=1), l.Activation(), l.GlobalPool(), l.Dense(3)),
}


def colours(network: Any, *end: l.Layer) -> Any:
    """A network with 8×8 features, each the mean of a colour, of which a class each is made."""
    mean = l.Conv(3, 4, stride=4)
    architecture, weights = network(mean, *end, size=SIZE)
    weights = {n: np.zeros_like(v) for n, v in weights.items()}
    weights["00_normalize.std"] += 1
    for name, value in weights.items():
        if name.endswith("_conv.kernel"):
            value[[0, 1, 2], [0, 1, 2]] = 1 / value[0, 0].size
        elif name.endswith("_dense.kernel"):
            value.reshape(3, 3, -1)[[0, 1, 2], [0, 1, 2]] = 1
    return architecture, weights


def pictured(colour: int, row: int, column: int, height: int = SIZE, width: int = SIZE, patch: int = 8) -> np.ndarray:
    """A dim noise with a bright patch of one colour."""
    pixels = np.random.default_rng(0).integers(0, 30, (height, width, 3), np.uint8)
    pixels[row : row + patch, column : column + patch, colour] = 255
    return pixels


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("row, column", [(0, 0), (0, 24), (24, 0), (24, 24)])
def test_the_map_points_at_the_corner_that_decides(
    end: Any, row: int, column: int, network: Any, explainer: Any
) -> None:
    made = explainer(*colours(network, *end))
    for colour in range(3):
        _, cells = made.explain(pictured(colour, row, column), colour)
        assert cells.shape == (8, 8) and cells.dtype == np.float32
        assert cells.max() == 1 and cells.min() >= 0
        corner = np.s_[row // 4 : row // 4 + 2, column // 4 : column // 4 + 2]
        assert cells[corner].max() == 1
        _, other = made.explain(pictured(colour, row, column), (colour + 1) % 3)
        shares = [part[corner].sum() / part.sum() for part in (cells, other)]
        assert shares[0] > 0.35 and shares[1] < 0.15  # the corner is a sixteenth, 0.06


def test_cells_that_do_not_cover_the_picture_are_spread_over_it(network: Any, explainer: Any) -> None:
    """Without padding 6×6 cells lie between the pixels 4 and 28, four each; the map's are 5⅓, from 0 to 32."""
    architecture, weights = colours(network, l.Conv(3, 3), l.GlobalPool(), l.Dense(3))
    weights["02_conv.kernel"][:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    made, pixels = explainer(architecture, weights), np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[20:24, 8:12, 0] = 255  # centred at 22 and 10
    _, cells = made.contributions(pixels, 0)
    assert np.argwhere(cells > 0).tolist() == [[4, 1]]
    _, found = made.explain(pixels, 0)
    wanted = np.zeros((6, 6))  # the centres of rows 3 and 4 are 18⅔ and 24, of columns 1 and 2 they are 8 and 13⅓
    wanted[3:5, 1:3] = np.outer([1 / 3, 1], [1, 1 / 3])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_nothing_that_speaks_for_a_class_gives_zeros(network: Any, explainer: Any) -> None:
    architecture, weights = colours(network, *ENDS["mean"])
    weights["03_dense.kernel"][1] = -1
    _, cells = explainer(architecture, weights).explain(pictured(1, 0, 0), 1)
    assert cells.shape == (8, 8) and not cells.any()


def test_what_cannot_be_explained(network: Any, explainer: Any) -> None:
    made = explainer(*colours(network, *ENDS["mean"]))
    for index in (-1, 3):
        with pytest.raises(CallError, match=f"no class {index}: they are 0 to 2"):
            made.explain(pictured(0, 0, 0), index)
    for pixels in (pictured(0, 0, 0)[:30], pictured(0, 0, 0).astype(np.float32)):
        with pytest.raises(CallError, match="uint8"):
            made.explain(pixels)


# ---- Model.explain ---------------------------------------------------------------------------------------------------


def bundle(folder: Path, network: Any, reference_logits: Any, geometry: Geometry, *end: l.Layer) -> Path:
    architecture, weights = colours(network, *(end or ENDS["flattened"]))
    images = np.stack([pictured(colour, 4, 4) for colour in range(3)])
    content = store.BundleContent(
        name="colours", classes=COLOURS, geometry=geometry, architecture=architecture, weights=weights,
        temperature=0.5, metrics={}, provenance={}, golden_images=images,
        golden_logits=reference_logits(architecture, weights, images),
    )  # fmt: skip
    return store.write(folder / "run" / "model", content).path


@pytest.fixture
def run(tmp_path: Path, network: Any, reference_logits: Any) -> Path:
    return bundle(tmp_path, network, reference_logits, Geometry(SIZE, SIZE)).parent


def test_a_picture_in_every_form(run: Path, tmp_path: Path) -> None:
    pixels = pictured(1, 8, 16)
    path = tmp_path / "green.png"
    Image.fromarray(pixels).save(path)
    model = tenfold.load(run)
    assert model.explains
    for source in (path, str(path), path.read_bytes(), pixels):
        found = model.explain(source)
        assert isinstance(found, tenfold.Explanation) and dataclasses.is_dataclass(found)
        assert (found.label, found.box) == ("green", (0, 0, 1, 1))
        assert found.probability == pytest.approx(model.predict(source).probability, abs=1e-6)
        assert found.path == (str(source) if isinstance(source, str | Path) else "[0]")
        assert np.argwhere(found.map == 1).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
        assert found.scale == pytest.approx(1 / 0.5)  # a whole patch's mean, over the temperature
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.scale = 1.0  # type: ignore[misc]
    other = model.explain(pixels, cls="red")
    assert other.label == "red" and other.probability < found.probability
    assert other.scale < 0.3


def test_it_is_plain_json(run: Path) -> None:
    found = tenfold.load(run).explain(pictured(2, 0, 0))
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["class"], told["box"]) == ("blue", {"left": 0, "top": 0, "width": 1, "height": 1})
    assert (told["map"]["height"], told["map"]["width"]) == found.map.shape
    np.testing.assert_allclose(told["map"]["values"], found.map, atol=5e-5)
    assert (told["path"], told["probability"], told["scale"]) == ("[0]", found.probability, found.scale)


def test_a_model_alone_and_other_runtimes_explain_too(run: Path) -> None:
    pixels = pictured(0, 16, 0)
    wanted = tenfold.load(run).explain(pixels)
    for model in (
        tenfold.load(run / "model" / "model.onnx", threads=1),
        tenfold.load(run, quick=True),
        *([tenfold.load(run, runtime="torch")] if _has("torch") else []),
    ):
        np.testing.assert_allclose(model.explain(pixels).map, wanted.map, atol=1e-5)
        assert model.explainer is model.explainer


def _has(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    model = tenfold.load(run)
    with pytest.raises(UnknownNameError, match="Did you mean green"):
        model.explain(pictured(0, 0, 0), cls="gren")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"broken\.png"):
        model.explain(tmp_path / "broken.png")
    with pytest.raises(CallError, match="uint8 height×width×3"):
        model.explain(np.zeros((4, 4), np.uint8))
    with pytest.raises(CallError, match="threads must be 1 or more"):
        tenfold.load(run, threads=0)


def test_a_network_without_rows_and_columns_left(tmp_path: Path, network: Any, reference_logits: Any) -> None:
    ends = (l.Activation("relu"), l.Conv(3, 8), l.Flatten(), l.Dense(3))
    # The one cell that the second convolution leaves is no map; what enters it is.
    path = bundle(tmp_path / "a", network, reference_logits, Geometry(SIZE, SIZE), *ends)
    assert tenfold.load(path).explain(pictured(0, 0, 0)).map.shape == (8, 8)
    pooled = (l.Pool("average", 8, 8), l.Flatten(), l.Dense(3))
    model = tenfold.load(bundle(tmp_path / "b", network, reference_logits, Geometry(SIZE, SIZE), *pooled))
    assert not model.explains
    with pytest.raises(UnsupportedError, match=r"of 32×32 pixels its features are 1×1\. Train it on larger"):
        model.explain(pictured(0, 0, 0))


def test_only_a_verified_bundle_explains(run: Path) -> None:
    with (run / "model" / "golden.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(BundleError, match=r"golden\.safetensors"):
        tenfold.load(run, quick=True).explain(pictured(0, 0, 0))


def test_nothing_of_it_is_imported_before_it_is_asked_for(run: Path) -> None:
    code = (
        "import sys, numpy, tenfold\n"
        f"model = tenfold.load({str(run)!r})\n"
        "pixels = numpy.zeros((32, 32, 3), 'u1')\n"
        "model.predict(pixels)\n"
        "print([m for m in sys.modules if 'explanation' in m or m == 'tenfold.runtimes.nodes'])\n"
        "model.explain(pixels)\n"
        "print([m for m in ('torch', 'onnx', 'safetensors', 'tenfold.architecture.layers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


# ---- where the map lies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("turned", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("height, width", [(64, 128), (128, 64)])
def test_the_box_lays_the_map_on_the_upright_picture(
    resize: Any, turned: bool, height: int, width: int, tmp_path: Path, network: Any, reference_logits: Any
) -> None:
    """A patch in the middle of the picture's lower right quarter of its central square."""
    row, column = height // 2 + 12, width // 2 + 4
    picture = Image.fromarray(pictured(0, row, column, height, width, patch=16))
    if turned:  # kept lying, as a phone does, and upright by its EXIF orientation
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "it.png", exif=exif)
    else:
        picture.save(tmp_path / "it.png")
    path = bundle(tmp_path, network, reference_logits, Geometry(SIZE, SIZE, resize))
    found = tenfold.load(path).explain(tmp_path / "it.png", "red")
    left, top, wide, high = found.box
    wanted = {
        "squash": (0, 0, 1, 1),
        "crop": (0.25, 0, 0.5, 1) if width > height else (0, 0.25, 1, 0.5),
        "pad": (0, -0.5, 1, 2) if width > height else (-0.5, 0, 2, 1),
    }[resize]
    np.testing.assert_allclose(found.box, wanted)
    y, x = (np.argwhere(found.map > 0.5).mean(0) + 0.5) / 8
    assert abs((top + high * y) * height - (row + 8)) <= 8  # half a cell at most
    assert abs((left + wide * x) * width - (column + 8)) <= 8


def test_the_golden_pictures_are_answered_as_expected(run: Path) -> None:
    """The session with more outputs gives the same probabilities."""
    opened = store.open(run)
    images, probabilities = opened.golden()
    made = tenfold.load(run).explainer
    for image, wanted in zip(images, probabilities, strict=True):
        np.testing.assert_allclose(made.explain(image)[0], wanted, atol=1e-5)
