"""Pictures for a notebook: PNG files, drawn as the report draws them."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tenfold import words
from tenfold.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tenfold.data.dataset import Dataset
    from tenfold.evaluation.metrics import Evaluation
    from tenfold.predict import Model, Prediction, Source

LONGER = 300  # pixels of a photo's longer side in its picture


class Picture:
    """A PNG file that a notebook shows. ``scale`` is its pixels to one of the page."""

    def __init__(self, png: bytes, scale: float = 1.0) -> None:
        self.png = png
        self.scale = scale

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, as the file's header says."""
        width, height = struct.unpack(">II", self.png[16:24])
        return int(width), int(height)

    def save(self, path: str | Path) -> Path:
        """Writes the file, whole or not at all."""
        from tenfold.paths import write_whole

        write_whole(Path(path), self.png)
        return Path(path)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = self.size
        return self.png, {"width": round(width / self.scale), "height": round(height / self.scale)}

    def __repr__(self) -> str:
        width, height = self.size
        return f"<picture of {width}×{height} pixels>"


def samples(dataset: Dataset, split: str = "train", per_class: int = 8) -> Picture:
    """Samples of each class as training gets them, and how many there are in each split: the sheet of ``tenfold show``.

    Raises MissingExtraError without matplotlib, UnknownNameError for the split.
    """
    from tenfold.data import sheet

    return Picture(sheet.draw(dataset, split=split, per_class=per_class))


def confusion(evaluation: Evaluation) -> Picture:
    """What was taken for what: rows are true classes, columns the predicted. Raises MissingExtraError without
    matplotlib."""
    require_matplotlib("Drawing a confusion matrix")
    from tenfold.evaluation import plots

    with plots.style():
        return of(plots.confusion(evaluation))


def prediction(model: Model, source: Source, top: int = 5) -> Picture:
    """A photo, what the network looked at in it (where it has heat maps), and the ``top`` most probable classes.

    ``source`` is a path, the bytes of a file, or uint8 pixels H×W×3. The second picture is what the network gets: the
    photo at its size, brighter where more speaks for the first class. Raises ImageError for what can't be read,
    MissingExtraError without matplotlib.
    """
    require_matplotlib("Drawing a prediction")
    from tenfold.evaluation import plots

    answer = model.predict(source, top=top)
    with plots.style():
        return of(_prediction(model, source, answer))


def _prediction(model: Model, source: Source, answer: Prediction) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from tenfold.evaluation import plots
    from tenfold.evaluation.svg import shorten

    pictures: list[tuple[str, np.ndarray, np.ndarray | None]] = [("the picture", _photo(source), None)]
    if model.explains:
        pictures.append(("what it looked at", _seen(model, source), model.explain(source, answer.label).map))
    side, gap, bars = 2.1, 0.2, 2.6
    names = [shorten(name, 24) for name, _ in answer.top]
    left = 0.35 + 0.085 * max(map(len, names))
    width, height = gap + len(pictures) * (side + gap) + left + bars + 0.75, side + 0.75
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    for at, (title, pixels, heat) in enumerate(pictures):
        axis = figure.add_axes(((gap + at * (side + gap)) / width, 0.25 / height, side / width, side / height))
        axis.imshow(pixels, interpolation="nearest" if max(pixels.shape) <= 64 else "antialiased")
        if heat is not None:
            extent = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
            # as much of the heat as there is: where nothing speaks for the class the picture is left as it is
            axis.imshow(heat, cmap="inferno", alpha=0.8 * heat, extent=extent, interpolation="bilinear", vmin=0, vmax=1)
        axis.axis("off")
        axis.set_title(title, fontsize=9, fontweight="normal", color=plots.SOFT)
    axis = figure.add_axes(((width - bars - 0.75) / width, 0.35 / height, bars / width, (side - 0.1) / height))
    shares = [share for _, share in answer.top]
    colors = [plots.GREY if answer.unknown else plots.BLUE, *[plots.GREY] * (len(shares) - 1)]
    axis.barh(range(len(shares)), shares, 0.6, color=colors)
    for at, share in enumerate(shares):
        axis.text(share + 0.02, at, words.percent(share, 1), va="center", fontsize=8.5)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlim=(0, 1), ylim=(len(shares) - 0.4, -0.6))
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axis.grid(axis="y", visible=False)
    axis.set_title("unknown: below the model's threshold" if answer.unknown else f"answer: {names[0]}", x=0)
    return figure


def _photo(source: Source) -> np.ndarray:
    """The upright picture, in its own proportions and at most ``LONGER`` pixels; a smaller one is left as it is."""
    from tenfold.data import decode
    from tenfold.data.dataset import Geometry
    from tenfold.png import thumbnail

    if isinstance(source, np.ndarray):
        return thumbnail(source, LONGER)
    file = Path(source) if isinstance(source, str) else source
    found = decode.probe(file)
    scale = min(1.0, LONGER / max(found.width, found.height))
    height, width = max(1, round(found.height * scale)), max(1, round(found.width * scale))
    return decode.decode(file, Geometry(height, width, "squash"))


def _seen(model: Model, source: Source) -> np.ndarray:
    """The picture as the network gets it."""
    from tenfold.data import decode

    if isinstance(source, np.ndarray):
        return decode.resize(source, model.geometry)
    return decode.decode(Path(source) if isinstance(source, str) else source, model.geometry)


def require_matplotlib(purpose: str) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "notebook", purpose)


def of(figure: Figure) -> Picture:
    """The figure, shown at matplotlib's usual 100 pixels an inch."""
    from tenfold.evaluation import plots

    file = io.BytesIO()
    with plots.style():
        figure.savefig(file, format="png", dpi=plots.DPI)
    return Picture(file.getvalue(), plots.DPI / 100)
