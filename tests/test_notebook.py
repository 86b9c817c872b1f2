"""What a notebook shows, and the quickstart run from top to bottom."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tenfold
from tenfold import notebook
from tenfold.bundle import store
from tenfold.clock import Phase
from tenfold.data.dataset import Dataset
from tenfold.data.progress import Progress
from tenfold.engines.base import Device, EpochEnd, Notice, Started, Step
from tenfold.errors import CallError, MissingExtraError
from tenfold.evaluation.metrics import measure
from tenfold.notebook import curves

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"
MOST = 500_000  # bytes of the notebook with its outputs


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


# ---- the quickstart ------------------------------------------------------------------------------------------------


def outputs(cells: list[Any], kind: str) -> list[Any]:
    """The data of all outputs that have this kind, in order."""
    found = [o["data"][kind] for cell in cells for o in cell.get("outputs", []) if kind in o.get("data", {})]
    return ["".join(lines) for lines in found]


def shapes(cells: list[Any]) -> list[list[tuple[str, list[str]]]]:
    """What kinds of output each cell has."""
    return [[(o["output_type"], sorted(o.get("data", {}))) for o in c.get("outputs", [])] for c in cells]


@pytest.fixture(scope="module")
def committed() -> list[Any]:
    cells: list[Any] = json.loads(QUICKSTART.read_text(encoding="utf-8"))["cells"]
    return cells


@pytest.fixture(scope="module")
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    """The cells after a run, and the folder that it ran in."""
    for package in ("torch", "nbclient", "ipykernel"):
        pytest.importorskip(package, reason="needs tenfold[dev]")
    spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("quickstart")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("TENFOLD_CACHE", str(folder / ".cache"))
    request.addfinalizer(monkeypatch.undo)
    return json.loads(script.nbformat.writes(script.execute(QUICKSTART, folder)))["cells"], folder


def test_the_quickstart_runs_and_its_figures_are_right(executed: tuple[list[Any], Path]) -> None:
    cells, folder = executed
    kinds = {o["output_type"] for cell in cells for o in cell.get("outputs", [])}
    assert kinds <= {"display_data", "execute_result"}, kinds  # no error, nothing printed or warned
    told = "\n".join(outputs(cells, "text/plain"))
    [accuracy] = re.findall(r"Test accuracy +([\d.]+) %", told)
    assert float(accuracy) > 95
    assert re.search(r"^Done after .*train", told, re.M)
    assert re.search(r"^onnx +exported ", told, re.M) and re.search(r"^onnx-int8 +exported ", told, re.M)
    assert re.search(r"^torch cpu +1 run ", told, re.M)
    data = tenfold.load_dataset("digits")
    true = data.classes[data["test"].labels[8]]
    answers = re.findall(r"\(\('(\d)', [\d.]+\)", told)
    assert answers == [true, true]  # the model, and the 8-bit one
    assert (folder / "runs" / "digits-quick-1" / "report.html").exists()


def test_the_quickstarts_pictures_show_something(executed: tuple[list[Any], Path]) -> None:
    import base64

    pictures = [pixels(base64.b64decode(png)) for png in outputs(executed[0], "image/png")]
    assert len(pictures) >= 4  # samples, curves, confusion, a prediction
    for picture in pictures:
        assert min(picture.shape[:2]) > 100 and picture.std() > 10


def test_what_is_committed_is_a_whole_run_of_these_cells(
    committed: list[Any], executed: tuple[list[Any], Path]
) -> None:
    assert [c["source"] for c in committed] == [c["source"] for c in executed[0]]
    ran = [c for c in committed if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in ran] == list(range(1, len(ran) + 1))
    varied = ("mistakes", "compare.png")  # there may be no mistake; with a GPU there is a picture of the two devices
    kept = [
        [c for c in cells if not any(word in str(c["source"]) for word in varied)] for cells in (executed[0], committed)
    ]
    assert shapes(kept[0]) == shapes(kept[1])


def test_what_is_committed_is_small_and_tells_nothing_of_a_machine() -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    assert len(text) < MOST
    words = re.sub(r'"image/png": "[^"]*"', "", text)
    assert len(words) < 60_000 and not re.search(r"/(tmp|home|root|work|usr|Users|mnt|opt)/", words)
    found = json.loads(text)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert found["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert all(cell["metadata"] == {} for cell in found["cells"])
    for target in re.findall(r"\]\((\.\./[^)]+)\)", words):
        assert (QUICKSTART.parent / target).exists(), target


# ---- live curves ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """(``new`` or ``change``, what) of everything displayed, as a kernel would."""
    ipython = pytest.importorskip("IPython", reason="needs tenfold[notebook]")
    import IPython.display

    found: list[tuple[str, Any]] = []

    class Handle:
        def update(self, what: Any, raw: bool = False) -> None:
            found.append(("change", what))

    def display(what: Any, raw: bool = False, display_id: bool = False) -> Handle:
        found.append(("new", what))
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(ipython, "get_ipython", lambda: type("Shell", (), {"kernel": None}))
    return found


def training(listen: Callable[[Any], None], epochs: int = 3) -> None:
    for name in ("import", "data"):
        listen(Phase(name))
    listen(Progress("download", 50, 100, "bytes"))
    listen(Notice("<b>something</b>"))
    listen(Phase("train"))
    listen(Started(10 * epochs, 10, 0, 1234, Device("cpu", "a processor"), "fp32", "device"))
    for step in range(1, 10 * epochs + 1):
        listen(Step(step, step / 10, 2 / step, 1 - 1 / step, 0.1, 1000.0, 0))
        if step % 10 == 0:
            listen(EpochEnd(step // 10, step, 2 / step, 0.9, 1 / step, 0.95, 0.1, 1000.0, 1.0, 0))
    listen(Phase("save"))


def test_live_draws_one_line_and_one_picture(shown: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "SAY_SECONDS", 0.0)
    with notebook.live() as listen:
        training(listen)
    lines = [what["text/plain"] for _, what in shown if isinstance(what, dict)]
    pictures = [what for _, what in shown if isinstance(what, notebook.Picture)]
    assert [how for how, _ in shown].count("new") == 2
    assert "download 50 B of 100 B" in lines
    assert any("epoch 1.5 of 3, loss " in line and "1,000 images/s" in line for line in lines)
    assert any("best validation accuracy 95.00 %" in line for line in lines)
    assert lines[-1].startswith("Done after ") and lines[-1].endswith("Note: <b>something</b>")
    assert pixels(pictures[-1].png).std() > 10
    assert len(pictures) < 10  # not one a step


def test_live_says_that_a_training_was_stopped(shown: list[tuple[str, Any]]) -> None:
    with pytest.raises(KeyboardInterrupt), notebook.live() as listen:
        listen(Phase("import"))
        raise KeyboardInterrupt
    assert shown[-1][1]["text/plain"].startswith("Stopped after ")


def test_live_is_refused_where_nothing_could_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython", reason="needs tenfold[notebook]")
    with pytest.raises(CallError, match="this is none"), notebook.live():
        pass
    find = importlib.util.find_spec
    for missing in ("IPython", "matplotlib"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, m=missing: None if name == m else find(name))
        with pytest.raises(MissingExtraError, match=r"tenfold\[notebook\]"), notebook.live():
            pass


# ---- pictures and tables -------------------------------------------------------------------------------------------


def test_samples_and_confusion(squares: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs tenfold[notebook]")
    assert pixels(notebook.samples(squares, per_class=3).png).std() > 10
    picture = notebook.confusion(measure(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 1]), ("a", "b", "$c$")))
    height, width = pixels(picture.png).shape[:2]
    assert picture.size == (width, height) and repr(picture) == f"<picture of {width}×{height} pixels>"
    png, page = picture._repr_png_()
    assert page == {"width": round(width / 1.4), "height": round(height / 1.4)}
    assert picture.save(tmp_path / "a.png").read_bytes() == png


@pytest.mark.parametrize("kind", ["path", "bytes", "pixels"])
def test_a_prediction_shows_the_photo_and_where_it_looked(bundle_content: Any, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib", reason="needs tenfold[notebook]")
    model = tenfold.load(store.write(tmp_path / "model", bundle_content()).path)
    assert model.explains
    grey = np.full((20, 40, 3), 90, np.uint8)
    grey[5:15, 10:30] = 200
    file = tmp_path / "photo.png"
    Image.fromarray(grey).save(file)
    source: Any = {"path": str(file), "bytes": file.read_bytes(), "pixels": grey}[kind]
    picture = pixels(notebook.prediction(model, source, top=2).png).astype(int)
    warm = (picture[:, :, 0] - picture[:, :, 2] > 60).any(0)  # the heat map is all that is warmer than grey
    left = picture.shape[1] // 3
    assert not warm[:left].any() and warm[left : 2 * left].any()


def test_tables_escape_what_strangers_named() -> None:
    evaluation = measure(np.eye(2)[[0, 1, 1]], np.array([0, 1, 0]), ("<img src=x>", "b"))
    found = notebook.table(dataclasses.replace(evaluation, notes=("<script>",)))
    page = found._repr_html_()
    assert "<img" not in page and "<script" not in page and "&lt;img src=x&gt;" in page
    assert page.count("<tr>") == 3
    lines = repr(found).splitlines()
    assert lines[0].split() == ["class", "images", "recall", "95", "%", "interval", "precision"]
    assert lines[1].startswith("<img src=x>  2       50.0 %") and "66.67 % of 3 images right" in lines[3]
    assert "<img src=x> taken for b, 1." in lines[4] and lines[5] == "<script>"


def test_there_is_no_table_of_anything_else() -> None:
    with pytest.raises(CallError, match="no table of int"):
        notebook.table(3)  # type: ignore[arg-type]
