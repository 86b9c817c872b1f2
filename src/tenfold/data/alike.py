"""All pictures of a dataset counted through, and which of them are the same shot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tenfold.data import similar
from tenfold.data.dataset import SPLITS, Dataset
from tenfold.data.fingerprint import image_digests
from tenfold.data.progress import Progress, Report, silent

Link = tuple[int, int, float, bool]  # two pictures, their score, and whether one is mirrored


@dataclass(frozen=True)
class Group:
    """Pictures (indices into the pool) that are one: ``exact``, or the same shot by ``score`` (the weakest link)."""

    pictures: tuple[int, ...]
    exact: bool
    score: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True)
class Pool:
    """All splits of a dataset counted through: train, then val, then test."""

    dataset: Dataset
    names: tuple[str, ...]
    starts: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, dataset: Dataset) -> Pool:
        names = tuple(name for name in SPLITS if name in dataset.splits)
        sizes = [len(dataset[name]) for name in names]
        labels = np.concatenate([dataset[name].labels for name in names]) if names else np.empty(0, np.int64)
        return cls(dataset, names, np.cumsum([0, *sizes]), labels)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def parts(self) -> list[np.ndarray]:
        return [self.dataset[name].images for name in self.names]

    def place(self, index: int) -> tuple[str, int]:
        """The split and the index in it."""
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.names[which], index - int(self.starts[which])

    def split(self, index: int) -> str:
        return self.place(index)[0]

    def image(self, index: int) -> np.ndarray:
        split, at = self.place(index)
        image: np.ndarray = self.dataset[split].images[at]
        return image

    def origin(self, index: int) -> str:
        split, at = self.place(index)
        return self.dataset[split].origins[at]

    def label(self, index: int) -> str:
        return self.dataset.classes[int(self.labels[index])]

    def splits(self, group: Group) -> set[str]:
        return {self.split(i) for i in group.pictures}

    def describe(self, index: int) -> dict[str, str]:
        return {"split": self.split(index), "class": self.label(index), "origin": self.origin(index)}


@dataclass(frozen=True)
class Alike:
    """Which pictures are the same.

    same_as  int64 N, of each picture the first that has exactly its pixels
    exact    groups of those with the same pixels
    groups   groups of those that are the same shot, exactly or nearly, directly or by way of others; the exact ones
             and the surest first
    least    the score from which two pictures were taken for near duplicates
    """

    same_as: np.ndarray
    exact: list[Group]
    groups: list[Group]
    least: float


def alike(pool: Pool, report: Report = silent) -> Alike:
    """Compare all pictures with all, whatever their split."""
    same_as = _same_as(pool)
    near = similar.find(
        pool.parts,
        mirror=pool.dataset.mirror,
        rows=np.unique(same_as),
        told=lambda stage, done, total, unit: report(Progress(stage, done, total, unit)),
    )
    copies = np.flatnonzero(same_as != np.arange(len(pool)))
    exact: list[Link] = [(int(same_as[i]), int(i), 1.0, False) for i in copies]
    columns = (near.first.tolist(), near.second.tolist(), near.score.tolist(), near.mirrored.tolist())
    groups = _groups(exact + list(zip(*columns, strict=True)), same_as)
    return Alike(same_as, _groups(exact, same_as), groups, near.least)


def _same_as(pool: Pool) -> np.ndarray:
    if not len(pool):
        return np.empty(0, np.int64)
    digests = np.concatenate([image_digests(part) for part in pool.parts])
    rows = digests.view(f"V{digests.shape[1]}").reshape(-1)
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    same: np.ndarray = first[inverse.reshape(-1)].astype(np.int64)
    return same


def _groups(links: list[Link], same_as: np.ndarray) -> list[Group]:
    groups = []
    for members, inside in _components(links):
        exact = bool((same_as[members] == same_as[members[0]]).all())
        groups.append(Group(tuple(members), exact, min(i[2] for i in inside), any(i[3] for i in inside)))
    return sorted(groups, key=lambda g: (not g.exact, -g.score, g.pictures))


def _components(links: list[Link]) -> Iterator[tuple[list[int], list[Link]]]:
    """Connected pictures, sorted, with the links between them."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            parent[i] = i = parent[parent[i]]
        return i

    for a, b, _, _ in links:
        parent[root(a)] = root(b)
    members: dict[int, list[int]] = {}
    for picture in sorted(parent):
        members.setdefault(root(picture), []).append(picture)
    inside: dict[int, list[Link]] = {}
    for link in links:
        inside.setdefault(root(link[0]), []).append(link)
    for key, pictures in members.items():
        yield pictures, inside[key]
