"""A sheet of samples: a row for each class with pictures of it, and beside them how many there are in each split."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.data.dataset import SPLITS, Dataset
from tenfold.errors import MissingExtraError
from tenfold.png import thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 64  # pixels of a sample's place
GAP = 4
CLASSES = 200  # rows at most
COLORS = {"train": "#0072b2", "val": "#00795a", "test": "#d55e00"}

_DPI = 100
_BARS, _SPACE, _HEAD, _FOOT = 300, 24, 84, 16  # pixels
_NAME = 22  # characters of a class's name
_INK, _SOFT, _PAPER = "#1d2126", "#5c6670", "#ffffff"


def draw(dataset: Dataset, *, split: str = "train", per_class: int = 10) -> bytes:
    """The sheet as a PNG file. Raises MissingExtraError without Matplotlib, UnknownNameError for the split."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "torch", "Drawing the sheet of samples") from None
    classes = min(len(dataset.classes), CLASSES)
    pictures = mosaic(dataset, split, per_class)[: classes * (CELL + GAP)]
    high, wide = pictures.shape[:2]
    labels = 28 + 9 * min(_NAME, max(8, *map(len, dataset.classes), 0))
    width, height = labels + wide + _SPACE + _BARS, _HEAD + high + _FOOT
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_PAPER)
    FigureCanvasAgg(figure)

    def axes(left: float, across: float) -> Any:
        return figure.add_axes((left / width, _FOOT / height, across / width, high / height))

    _samples(axes(labels, wide), pictures, dataset.classes[:classes])
    _bars(axes(labels + wide + _SPACE, _BARS - 70), dataset, classes)
    _head(figure, dataset, split, width, height)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # scripts that the font lacks
        figure.savefig(file, format="png", dpi=_DPI, facecolor=_PAPER, metadata={"Software": None})
    return file.getvalue()


def mosaic(dataset: Dataset, split: str, per_class: int) -> np.ndarray:
    """uint8 rows×columns×3: for each class a line of ``per_class`` samples, the same ones each time; white is empty."""
    part = dataset[split]
    step = CELL + GAP
    paper = np.full((len(dataset.classes) * step, per_class * step, 3), 255, np.uint8)
    for label in range(len(dataset.classes)):
        members = np.flatnonzero(part.labels == label)
        chosen = np.random.default_rng(label).permutation(len(members))[:per_class]
        for column, index in enumerate(np.sort(members[chosen])):
            small = _fitted(np.asarray(part.images[index]))
            top = label * step + (step - small.shape[0]) // 2
            left = column * step + (step - small.shape[1]) // 2
            paper[top : top + small.shape[0], left : left + small.shape[1]] = small
    return paper


def _fitted(image: np.ndarray) -> np.ndarray:
    """A picture within a cell: reduced, or enlarged by a whole number so that its pixels stay what they are."""
    small = thumbnail(image, CELL)
    times = max(1, CELL // max(small.shape[:2]))
    return small.repeat(times, 0).repeat(times, 1)


def _samples(axes: Any, pictures: np.ndarray, classes: tuple[str, ...]) -> None:
    axes.imshow(pictures, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([(i + 0.5) * (CELL + GAP) for i in range(len(classes))])
    axes.set_yticklabels([shortened(name, _NAME) for name in classes], fontsize=11, color=_INK, parse_math=False)
    axes.tick_params(length=0, pad=8)
    axes.spines[:].set_visible(False)


def _bars(axes: Any, dataset: Dataset, classes: int) -> None:
    left = np.zeros(classes)
    for name in SPLITS:
        if name in dataset.splits and len(dataset[name]):
            counts = dataset.counts(name)[:classes]
            axes.barh(np.arange(classes), counts, left=left, height=0.42, color=COLORS[name], label=name)
            left += counts
    most = max(left.max(initial=0), 1)
    for row, total in enumerate(left):
        axes.text(total + most * 0.02, row, f"{int(total):,}", va="center", fontsize=10.5, color=_SOFT)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.set_xlim(0, most)
    axes.axis("off")


def _head(figure: Figure, dataset: Dataset, split: str, width: float, height: float) -> None:
    def text(x: float, y: float, said: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, said, va="center", parse_math=False, **style)

    text(12, 26, shortened(dataset.name, 60), fontsize=17, weight="bold", color=_INK)
    text(12, 56, f"samples from {split}", fontsize=11, color=_SOFT)
    sizes = [(name, len(dataset[name])) for name in SPLITS if name in dataset.splits and len(dataset[name])]
    x = width - _BARS
    for name, size in sizes:
        said = f"{name} {size:,}"
        text(x, 56, said, fontsize=11, weight="bold", color=COLORS[name])
        x += 8.2 * len(said) + 14


def shortened(text: str, limit: int) -> str:
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
