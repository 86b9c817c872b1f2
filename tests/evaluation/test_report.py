"""The page is whole, needs nothing else, and shows strangers' text as text; plots beside it."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.data.dataset import Dataset, Geometry, Skipped, Split
from tenfold.engines.base import EpochEnd
from tenfold.evaluation import content as parts
from tenfold.evaluation import plots, report
from tenfold.evaluation.content import ReportContent
from tenfold.evaluation.metrics import measure

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> & $x_1$"
PLOTS = ["classes", "confusion", "curves", "mistakes", "reliability", "samples"]


class _Page(HTMLParser):
    """Collects tags, and complains about ones that are not closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _split(n: int, k: int, size: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return Split(images, rng.integers(0, k, n), [f"{HOSTILE}/{i}.png" for i in range(n)])


def _epoch(i: int, val: bool = True) -> EpochEnd:
    return EpochEnd(i, 10 * i, 2.0 / i, 1 - 0.5 / i, 1.9 / i if val else None, 0.5 if val else None, 0.1, 100.0, i, 0)


@pytest.fixture
def make() -> Callable[..., ReportContent]:
    """(k=3, n=60, size=16, train=80, val=True, names=None, **fields) → a report's content on noise."""

    def content(
        k: int = 3, n: int = 60, size: int = 16, train: int = 80, val: bool = True, name: str = "class", **fields: Any
    ) -> ReportContent:
        names = tuple(f"{name} {i}" for i in range(k))
        splits = {"train": _split(train, k, size, 0), "val": _split(20 if val else 0, k, size, 1)}
        splits["test"] = _split(n, k, size, 2)
        dataset = Dataset("noise", "/data/noise", names, splits, Geometry(size, size), fingerprint="ab" * 32)
        rng = np.random.default_rng(3)
        p = rng.random((n, k)) + 0.6 * np.eye(k)[splits["test"].labels]
        p = (p / p.sum(1, keepdims=True)).astype(np.float32)
        values: dict[str, Any] = {
            "title": "noise-quick-1",
            "dataset": dataset,
            "evaluation": dataclasses.replace(measure(p, splits["test"].labels, names), split="test"),
            "probabilities": p,
            "measured": splits["test"],
            "history": [_epoch(i, val) for i in range(1, 4)],
            "recipe": "name: quick\nepochs: 3\n",
            "command": "tenfold train /data/noise",
            "seconds": {"import": 1.0, "data": 0.5, "train": 60.0, "total": 62.0},
            "hardware": {"cpu": "A processor", "cores": 2, "memory_bytes": 8_000_000_000, "system": "Linux"},
            "versions": {"tenfold": "0.1.0", "python": "3.11"},
            "parameters": 12345,
            "engine": "torch",
            "device": "cpu",
        }
        return ReportContent(**{**values, **fields})

    return content


def _check(text: str) -> _Page:
    """Well-formed, with nothing from elsewhere and nothing that runs."""
    page = _Page(text)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "form"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    assert "http:" not in text and "https:" not in text and "@import" not in text and "url(" not in text
    return page


@pytest.mark.parametrize("k", [2, 3, 10, 25, 100, 150])
def test_page_for_few_and_many_classes(make: Callable[..., ReportContent], k: int) -> None:
    page = _check(report.html(make(k=k, n=max(60, 4 * k), train=max(80, 2 * k))))
    assert "noise-quick-1" in page.text and "95 % interval" in page.text and "12,345" in page.text
    assert f"class {k - 1}" in page.text
    assert "epochs: 3" in page.text and "tenfold train /data/noise" in page.text


def test_strangers_text_is_shown_as_text(make: Callable[..., ReportContent]) -> None:
    content = make(name=HOSTILE, title=HOSTILE, recipe=HOSTILE, command=HOSTILE, notes=[HOSTILE])
    content = dataclasses.replace(
        content,
        dataset=dataclasses.replace(
            content.dataset, name=HOSTILE, source=HOSTILE, skipped=(Skipped(HOSTILE, HOSTILE),), notes=(HOSTILE,)
        ),
        facts={HOSTILE: HOSTILE},
        hardware={"cpu": HOSTILE},
    )
    page = _check(report.html(content))
    assert page.text.count("<script>alert(1)</script>") >= 15


def test_headline_figures_are_those_measured(make: Callable[..., ReportContent]) -> None:
    content = make()
    assert content.evaluation is not None
    page = _check(report.html(content))
    assert f"{100 * content.evaluation.accuracy:.1f} %" in page.text
    low, high = content.evaluation.interval
    assert f"{100 * low:.1f} % to {100 * high:.1f} %" in page.text
    wrong = content.evaluation.n - int(content.evaluation.confusion.trace())
    assert f"of {wrong} mistakes" in page.text


@pytest.mark.parametrize(
    "fields",
    [
        {"history": ()},
        {"val": True, "history": [{"event": "step", "step": 1, "epoch": 0.1}]},
        {"evaluation": None, "probabilities": None, "measured": None},
        {"seconds": {}, "hardware": {}, "versions": {}, "engine": "", "device": "", "parameters": None},
        {"recipe": "", "command": ""},
        {"n": 1},
        {"n": 3, "k": 10, "train": 4},
        {"train": 0},
    ],
)
def test_what_is_not_there_is_left_out(
    make: Callable[..., ReportContent], fields: dict[str, Any], tmp_path: Path
) -> None:
    content = make(**{"val": False, **fields})
    page = _check(report.write(tmp_path, content).read_text(encoding="utf-8"))
    assert "None" not in page.text and "nan" not in page.text
    assert ("learning rate" in page.text) == bool(parts.epochs(content))


def test_only_a_validation_split_is_called_so(make: Callable[..., ReportContent]) -> None:
    content = make()
    assert content.evaluation is not None
    val = dataclasses.replace(content.evaluation, split="")
    page = _check(report.html(dataclasses.replace(content, evaluation=val, val=val)))
    assert "validation accuracy" in page.text and "test accuracy" not in page.text


def test_no_mistakes(make: Callable[..., ReportContent]) -> None:
    content = make()
    assert content.measured is not None
    p = np.eye(3, dtype=np.float32)[content.measured.labels]
    done = dataclasses.replace(
        content, probabilities=p, evaluation=measure(p, content.measured.labels, content.dataset.classes)
    )
    assert "every image was classified correctly" in _check(report.html(done)).text


def test_large_noisy_pictures_stay_near_two_megabytes(make: Callable[..., ReportContent]) -> None:
    assert len(report.html(make(k=100, size=224, n=150, train=150))) < 2_300_000


def test_write_leaves_page_and_plots(make: Callable[..., ReportContent], tmp_path: Path) -> None:
    page = report.write(tmp_path / "run", make(val=True))
    assert page == tmp_path / "run" / "report.html"
    assert sorted(p.stem for p in (page.parent / "plots").iterdir()) == PLOTS
    assert sorted(p.name for p in page.parent.iterdir()) == ["plots", "report.html"]
    for file in (page.parent / "plots").iterdir():
        with Image.open(file) as picture:
            assert picture.width > 250 and picture.height > 150
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 20


def test_a_failed_write_keeps_the_old_page(
    make: Callable[..., ReportContent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = report.write(tmp_path, make())
    before = page.read_bytes(), (tmp_path / "plots" / "curves.png").read_bytes()

    def broken(content: ReportContent) -> dict[str, bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plots, "draw", broken)
    with pytest.raises(OSError, match="No space"):
        report.write(tmp_path, make(k=5))
    assert (page.read_bytes(), (tmp_path / "plots" / "curves.png").read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plots", "report.html"]


def test_without_matplotlib_the_page_says_so(
    make: Callable[..., ReportContent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "matplotlib" else real(n, *a))
    page = report.write(tmp_path, make())
    assert "matplotlib is not installed" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "plots").exists()


@pytest.mark.filterwarnings("error")
def test_plots_for_many_classes_and_odd_names(make: Callable[..., ReportContent]) -> None:
    for content in (make(k=2, n=5, name=r"$\frac{a}{ 猫 ⵣ"), make(k=60, n=200, train=120, name="x" * 300)):
        for data in plots.draw(content).values():
            with Image.open(io.BytesIO(data)) as picture:
                assert max(picture.size) < 4000


def test_worst_mistakes_come_surest_first(make: Callable[..., ReportContent]) -> None:
    content = make()
    found = parts.worst_mistakes(content)
    assert content.probabilities is not None and content.measured is not None
    wrong = content.probabilities.argmax(1) != content.measured.labels
    assert len(found) == min(parts.MISTAKES, wrong.sum())
    assert [m.sure for m in found] == sorted((m.sure for m in found), reverse=True)
    assert found[0].sure == content.probabilities[wrong].max()
    at = content.measured.origins.index(found[0].origin)
    assert np.array_equal(found[0].image, content.measured.images[at])
    assert found[0].true == content.dataset.classes[content.measured.labels[at]] != found[0].predicted


def test_samples_are_of_their_class_and_spread(make: Callable[..., ReportContent]) -> None:
    dataset = make(train=300).dataset
    groups = parts.samples(dataset)
    assert [name for name, _ in groups] == list(dataset.classes)
    for label, (_, group) in enumerate(groups):
        at = [dataset["train"].origins.index(s.origin) for s in group]
        assert len(group) == parts.EACH and len(set(at)) == parts.EACH
        assert (dataset["train"].labels[at] == label).all()
        assert max(at) > 250 and min(at) < 50
    assert len(parts.samples(make(k=300, n=301, train=900).dataset)) == parts.SAMPLES


def test_history_may_be_rows_of_a_metrics_file(make: Callable[..., ReportContent]) -> None:
    rows = [{"event": "step", "epoch": 0.5}, {"event": "epoch", **dataclasses.asdict(_epoch(1))}]
    assert [r["epoch"] for r in parts.epochs(make(history=rows))] == [1]
    assert re.search(r"epoch 1: 50", report.html(make(history=rows)))


def test_a_last_epoch_that_was_not_whole_stands_where_it_ended(make: Callable[..., ReportContent]) -> None:
    rows = [{"event": "epoch", "epoch": i, "step": s} for i, s in ((1, 98), (2, 196), (3, 245))]
    assert [r["at"] for r in parts.epochs(make(history=rows))] == [1.0, 2.0, 2.5]
    assert [r["at"] for r in parts.epochs(make(history=rows[1:]))] == [2.0, 2.5]
    assert [r["at"] for r in parts.epochs(make(history=[{"epoch": 1}, {"epoch": 2}]))] == [1.0, 2.0]


def test_seconds_are_asked_after_the_plots(
    make: Callable[..., ReportContent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(plots, "draw", lambda content: done.append("plots") or {})

    def clock() -> dict[str, float]:
        assert done == ["plots"]
        return {"train": 30.0, "total": 42.0}

    assert "42.0 s" in _check(report.write(tmp_path, make(seconds=clock)).read_text(encoding="utf-8")).text
