"""What a report is made of, and which pictures of it are worth showing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.data.dataset import Dataset, Split
from tenfold.evaluation.metrics import Evaluation
from tenfold.png import thumbnail

if TYPE_CHECKING:
    from tenfold.engines.base import EpochEnd

MISTAKES = 24
FEW_EPOCHS = 8  # a curve through fewer points than this tells nothing
SAMPLES = 120
EACH = 12  # samples of a class at most
PIXEL_BYTES = 700_000  # of a report's mistakes, and of its samples, before compression
LARGEST = 96  # pixels of a thumbnail's longer side at most


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows. What is None or empty is left out of it.

    title          heading, such as the run's name
    dataset        facts and samples come from it
    evaluation     figures of the images in ``measured``; None where the data has no such split
    probabilities  float32 N×K, the model's answers for ``measured``
    measured       the images behind ``evaluation``, labels being indices into its classes
    val            figures on the validation split
    history        the run's epochs: ``EpochEnd`` or mappings with its fields; or all the rows of a metrics.jsonl
    recipe         the resolved recipe as YAML
    command        how to do it again
    seconds        wall-clock seconds by phase, and ``total``, of the whole command; as a callable it is asked when the
                   plots are drawn and only the page is left to be written
    hardware       ``hardware.describe()``; versions: ``hardware.versions(...)``
    facts          further lines for the table of facts: label to text
    notes          sentences the reader must be told
    """

    title: str
    dataset: Dataset
    evaluation: Evaluation | None = None
    probabilities: np.ndarray | None = None
    measured: Split | None = None
    val: Evaluation | None = None
    history: Sequence[EpochEnd | Mapping[str, Any]] = ()
    recipe: str = ""
    command: str = ""
    created: str = ""
    seconds: Mapping[str, float] | Callable[[], Mapping[str, float]] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    parameters: int | None = None
    engine: str = ""
    device: str = ""
    precision: str = ""
    images_per_second: float | None = None
    peak_memory_bytes: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Mistake:
    """A picture taken for another class: ``sure`` is the probability given to that class, ``true_probability`` the
    one left for the true class."""

    image: np.ndarray
    origin: str
    true: str
    predicted: str
    sure: float
    true_probability: float


@dataclass(frozen=True)
class Sample:
    image: np.ndarray
    label: str
    origin: str


def epochs(content: ReportContent) -> list[dict[str, Any]]:
    """The history's epochs as mappings, in order; other rows of a metrics.jsonl are left out.

    ``at`` is added: the passes over the data until then. It is ``epoch``, but for a last one that was not whole.
    """
    rows = [r for r in _rows(content) if r.get("event", "epoch") == "epoch" and r.get("epoch") is not None]
    for row in rows:
        first, step = rows[0], row.get("step")
        whole = first["epoch"] * step / first["step"] if step and first.get("step") else row["epoch"]
        row["at"] = min(float(row["epoch"]), whole)
    return rows


def moments(content: ReportContent) -> list[dict[str, Any]]:
    """Where the training figures are drawn: the epochs, or in a run of few epochs the moments between them too."""
    ends = epochs(content)
    steps = [{**r, "at": float(r["epoch"])} for r in _rows(content) if r.get("event") == "step" and r.get("epoch")]
    return steps if len(ends) < FEW_EPOCHS and len(steps) > len(ends) else ends


def _rows(content: ReportContent) -> list[dict[str, Any]]:
    return [dict(e) if isinstance(e, Mapping) else dataclasses.asdict(e) for e in content.history]


def worst_mistakes(content: ReportContent, limit: int = MISTAKES) -> list[Mistake]:
    """The mistakes the model was most sure of, the surest first."""
    split, probabilities, evaluation = content.measured, content.probabilities, content.evaluation
    if split is None or probabilities is None or evaluation is None:
        return []
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != split.labels)
    sure = probabilities[wrong, predicted[wrong]]
    wrong = wrong[np.argsort(-sure, kind="stable")][:limit]
    side = _side(limit)
    return [
        Mistake(
            image=_small(split.images[i], side),
            origin=split.origins[i],
            true=evaluation.classes[split.labels[i]],
            predicted=evaluation.classes[predicted[i]],
            sure=float(probabilities[i, predicted[i]]),
            true_probability=float(probabilities[i, split.labels[i]]),
        )
        for i in map(int, wrong)
    ]


def samples(dataset: Dataset, limit: int = SAMPLES) -> list[tuple[str, list[Sample]]]:
    """(class, some of its training images) for each class, spread evenly over its images, ``limit`` in all.

    With more classes than ``limit``, some of the classes. The first split with images stands in for an empty one.
    """
    split = next((s for n in ("train", "val", "test") if n in dataset.splits and len(s := dataset[n])), None)
    if split is None:
        return []
    k = len(dataset.classes)
    shown = np.arange(k) if k <= limit else np.linspace(0, k - 1, limit).astype(int)
    each = max(1, min(EACH, limit // k))
    side = _side(each * len(shown))
    found = []
    for label in map(int, shown):
        where = np.flatnonzero(split.labels == label)
        picks = where[np.linspace(0, len(where) - 1, min(each, len(where))).astype(int)] if len(where) else where
        name = dataset.classes[label]
        found.append((name, [Sample(_small(split.images[i], side), name, split.origins[i]) for i in map(int, picks)]))
    return found


def _side(pictures: int) -> int:
    """Pixels of a thumbnail's longer side, so that so many stay within PIXEL_BYTES."""
    return min(LARGEST, int((PIXEL_BYTES / (3 * max(1, pictures))) ** 0.5))


def _small(image: np.ndarray, side: int) -> np.ndarray:
    return thumbnail(np.asarray(image), side)
