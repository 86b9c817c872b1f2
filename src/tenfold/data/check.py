"""What is wrong with a dataset: unreadable files, the same picture twice, leaks between splits, uneven classes.

``check`` looks and counts; it changes nothing. An *error* makes figures wrong: a test picture that was trained on, the
same picture under two labels, a file that couldn't be read. A *warning* is worth a look, a *note* worth knowing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tenfold.data.alike import Alike, Group, Pool, alike
from tenfold.data.dataset import SPLITS, Dataset
from tenfold.data.headers import Header, headers
from tenfold.data.progress import Progress, Report, silent

Severity = Literal["error", "warning", "note"]


def several(number: int, one: str, many: str | None = None) -> str:
    """``1 picture is``, ``2,000 pictures are``: ``one`` holds both words, ``many`` the plural ones."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


FEW = 10  # training pictures of a class below which it can hardly be learnt
UNEVEN = 3.0  # largest class over smallest, from which the imbalance is mentioned
BLANK = 3.0  # gray levels of standard deviation
DARK, BRIGHT = 12.0, 243.0  # mean gray levels
COMMON = 0.05  # a light that so many pictures share is how this data looks, and no oddity
STRETCHED = 2.0  # how far an aspect or a size may be from the median


@dataclass(frozen=True)
class Finding:
    """What was found: groups of like pictures, single pictures (indices into the pool), or rows for a table.

    ``text`` says what and how many, ``advice`` what to do; ``count`` is of the things that ``title`` names.
    """

    name: str
    severity: Severity
    title: str
    text: str
    advice: str = ""
    groups: tuple[Group, ...] = ()
    pictures: tuple[int, ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    count: int = 0


@dataclass(frozen=True)
class Checked:
    """What was found, the gravest first.

    headers  the files' own sizes; empty for an archive
    least    the score from which two pictures were taken for near duplicates
    """

    pool: Pool
    findings: tuple[Finding, ...]
    headers: Sequence[Header]
    least: float

    def count(self, severity: Severity) -> int:
        return sum(f.severity == severity for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: every finding with all its pictures."""
        dataset = self.pool.dataset
        return {
            "format": 1,
            "dataset": {
                "name": dataset.name,
                "source": dataset.source,
                "fingerprint": dataset.fingerprint,
                "classes": list(dataset.classes),
                "geometry": dataset.geometry.to_dict(),
                "split_rule": dict(dataset.split_rule) if dataset.split_rule else None,
                "counts": {name: dataset.counts(name).tolist() for name in self.pool.names},
                "notes": list(dataset.notes),
            },
            "near_duplicate_score": round(self.least, 4),
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "findings": [self._finding(f) for f in self.findings],
        }

    def _finding(self, finding: Finding) -> dict[str, Any]:
        return {
            "name": finding.name,
            "severity": finding.severity,
            "title": finding.title,
            "text": finding.text,
            "advice": finding.advice,
            "count": finding.count,
            "groups": [
                {
                    "exact": group.exact,
                    "score": round(group.score, 4),
                    "mirrored": group.mirrored,
                    "pictures": [self.pool.describe(i) for i in group.pictures],
                }
                for group in finding.groups
            ],
            "pictures": [self.pool.describe(i) for i in finding.pictures],
            "rows": list(finding.rows),
        }


def check(dataset: Dataset, report: Report = silent) -> Checked:
    """Look at every picture of every split once."""
    pool = Pool.of(dataset)
    like = alike(pool, report)
    files = headers(dataset, report)
    found = [*_unreadable(dataset), *_leaks(pool, like), *_labels(pool, like), *_repeats(pool, like)]
    found += [*_lights(pool, report), *_classes(dataset), *_shapes(files)]
    order = {"error": 0, "warning": 1, "note": 2}
    return Checked(pool, tuple(sorted(found, key=lambda f: order[f.severity])), files, like.least)


# ---- like pictures ----------------------------------------------------------------------------------------------


def _leaks(pool: Pool, like: Alike) -> Iterator[Finding]:
    cases: tuple[tuple[str, set[str], Severity], ...] = (
        ("test", {"train", "val"}, "error"),
        ("val", {"train"}, "warning"),
    )
    for held_out, others, severity in cases:
        spanning = [g for g in like.groups if pool.splits(g) & others and held_out in pool.splits(g)]
        if not spanning:
            continue
        touched = [i for g in spanning for i in g.pictures if pool.split(i) == held_out]
        trained = {int(like.same_as[i]) for g in spanning for i in g.pictures if pool.split(i) in others}
        exact = sum(int(like.same_as[i]) in trained for i in touched)
        total = len(pool.dataset[held_out])
        where = "training or validation" if held_out == "test" else "training"
        word = "Test" if held_out == "test" else "Validation"
        yield Finding(
            name=f"{held_out}-leak",
            severity=severity,
            title=f"{word} pictures that are also in {where}",
            text=f"{len(touched):,} of {total:,} {held_out} pictures ({100 * len(touched) / total:.2f} %): {exact:,} "
            f"exactly, {len(touched) - exact:,} as near duplicates. What is measured on them is memory, not skill.",
            advice=f"Take them out of {where}, or out of {held_out}.",
            groups=tuple(spanning),
            count=len(touched),
        )


def _labels(pool: Pool, like: Alike) -> Iterator[Finding]:
    near = [_without_copies(g, like) for g in like.groups if not g.exact]
    for exact, groups in ((True, like.exact), (False, near)):
        found = [g for g in groups if len(set(pool.labels[list(g.pictures)])) > 1]
        if not found:
            continue
        yield Finding(
            name="labels" if exact else "near-labels",
            severity="error" if exact else "warning",
            title=f"{'The same picture' if exact else 'Near duplicates'} under different labels",
            text=f"{several(len(found), 'group')} of pictures; at most one label of each can be right"
            f"{'' if exact else ', unless they only look alike'}.",
            advice="Look at them and correct the labels.",
            groups=tuple(found),
            count=len(found),
        )


def _without_copies(group: Group, like: Alike) -> Group:
    """Of pictures with the same pixels the first alone: what there is to say of the others is said elsewhere."""
    return replace(group, pictures=tuple(i for i in group.pictures if like.same_as[i] == i))


def _repeats(pool: Pool, like: Alike) -> Iterator[Finding]:
    near = [_without_copies(g, like) for g in like.groups if not g.exact]
    for exact, groups in ((True, like.exact), (False, near)):
        within = [g for g in groups if len(pool.splits(g)) < len(g.pictures)]
        if not within:
            continue
        surplus = sum(len(g.pictures) - len(pool.splits(g)) for g in within)
        how = "" if exact else " in other colors, mirrored, scaled or cut a little"
        yield Finding(
            name="duplicates" if exact else "near-duplicates",
            severity="warning",
            title=f"{'Exact' if exact else 'Near'} duplicates within a split",
            text=f"{several(surplus, 'picture repeats', 'pictures repeat')} another of the same split{how}, in "
            f"{several(len(within), 'group')}. Such pictures count more than once.",
            advice="Keep one of each group.",
            groups=tuple(within),
            count=surplus,
        )


# ---- single pictures --------------------------------------------------------------------------------------------


def _unreadable(dataset: Dataset) -> Iterator[Finding]:
    if dataset.skipped:
        yield Finding(
            name="unreadable",
            severity="error",
            title="Files that could not be used",
            text=f"{several(len(dataset.skipped), 'file was', 'files were')} left out.",
            advice="Replace or delete them.",
            rows=tuple({"file": s.path, "reason": s.reason} for s in sorted(dataset.skipped, key=lambda s: s.path)),
            count=len(dataset.skipped),
        )


def _lights(pool: Pool, report: Report) -> Iterator[Finding]:
    mean, spread = _moments(pool, report)
    blank = spread < BLANK
    kinds: tuple[tuple[str, Severity, str, np.ndarray], ...] = (
        ("blank", "warning", "one color all over", blank),
        ("dark", "note", "nearly black", (mean < DARK) & ~blank),
        ("bright", "note", "nearly white", (mean > BRIGHT) & ~blank),
    )
    for name, severity, text, where in kinds:
        found = np.flatnonzero(where)
        if not len(found) or (name != "blank" and len(found) > COMMON * len(pool)):
            continue
        yield Finding(
            name=name,
            severity=severity,
            title=f"{'Blank' if name == 'blank' else f'Very {name}'} pictures",
            text=f"{several(len(found), 'picture is', 'pictures are')} {text}.",
            advice="Look whether they belong to the data.",
            pictures=tuple(found[np.argsort(spread[found], kind="stable")].tolist()),
            count=len(found),
        )


def _moments(pool: Pool, report: Report) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each picture's values: float32 N, in gray levels."""
    mean, spread = np.empty(len(pool), np.float32), np.empty(len(pool), np.float32)
    done = 0
    for images in pool.parts:
        for start in range(0, len(images), 512):
            block = images[start : start + 512]
            values = block.reshape(len(block), -1).astype(np.float32)
            place = slice(done, done + len(values))
            mean[place], spread[place] = values.mean(1), values.std(1)
            done = place.stop
            report(Progress("light", done, len(pool), "images"))
    return mean, spread


def _shapes(files: Sequence[Header]) -> Iterator[Finding]:
    if len(files) < 2:
        return
    sides = np.array([(f.width, f.height) for f in files], np.float64)
    shape, scale = np.log(sides[:, 0] / sides[:, 1]), np.log(sides.prod(1)) / 2
    limit = np.log(STRETCHED)
    tests = (
        ("shape", "of an unusual shape", shape, np.abs(shape - np.median(shape)) > limit),
        ("size", "much smaller than most", scale, scale < np.median(scale) - 2 * limit),
    )
    for name, words, measure, where in tests:
        found = np.flatnonzero(where).tolist()
        if not found or len(found) > COMMON * len(files):
            continue
        usual = files[int(np.argsort(measure)[len(files) // 2])]
        yield Finding(
            name=name,
            severity="note",
            title=f"Pictures {words}",
            text=f"{several(len(found), 'file is', 'files are')} far from the usual {usual.size}.",
            advice="Look whether they were cut or scaled by mistake.",
            pictures=tuple(files[i].index for i in found),
            rows=tuple({"file": files[i].origin, "size": files[i].size} for i in found),
            count=len(found),
        )


# ---- classes ----------------------------------------------------------------------------------------------------


def _classes(dataset: Dataset) -> Iterator[Finding]:
    yield from _absent(dataset)
    train = dataset.counts("train") if "train" in dataset.splits else np.zeros(0, np.int64)
    if not train.sum():
        return
    few = [int(i) for i in np.flatnonzero(train < FEW)]
    if few:
        yield Finding(
            name="few",
            severity="warning",
            title="Classes with very few training pictures",
            text=f"{several(len(few), 'class has', 'classes have')} fewer than {FEW} training pictures.",
            advice="Collect more, or join them with another class.",
            rows=tuple({"class": dataset.classes[i], "training pictures": int(train[i])} for i in few),
            count=len(few),
        )
    largest, smallest = int(train.argmax()), int(train.argmin())
    if train[smallest] and train[largest] >= UNEVEN * train[smallest]:
        yield Finding(
            name="imbalance",
            severity="warning",
            title="Uneven classes",
            text=f"{dataset.classes[largest]} has {int(train[largest]):,} training pictures, "
            f"{dataset.classes[smallest]} has {int(train[smallest]):,}: {train[largest] / train[smallest]:.1f} to 1.",
            advice="Try --set class_weights=balanced, and read each class's figures, not the accuracy alone.",
            count=1,
        )


def _absent(dataset: Dataset) -> Iterator[Finding]:
    rows = []
    for name in SPLITS:
        if name in dataset.splits and len(dataset[name]):
            missing = np.flatnonzero(dataset.counts(name) == 0)
            rows += [{"split": name, "class": dataset.classes[i]} for i in missing]
    if rows:
        yield Finding(
            name="absent",
            severity="error" if any(row["split"] == "train" for row in rows) else "warning",
            title="Classes without a picture in a split",
            text=f"{several(len(rows), 'time')} a class has none: what is not in train can't be learnt, what is not in "
            "test is not measured.",
            advice="Add pictures, or make the splits anew.",
            rows=tuple(rows),
            count=len(rows),
        )
