"""From a class's logit back to the last value that still has rows and columns: a network's tail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tenfold.errors import UnsupportedError
from tenfold.explanation import steps
from tenfold.explanation.places import Place, places
from tenfold.explanation.steps import Step
from tenfold.runtimes.graph import OUTPUT
from tenfold.runtimes.nodes import Node, Nodes

# Where the last value has fewer rows or columns than this, the one that enters the last stage is taken. Chosen by how
# maps agree with what covering each 8×8 pixels of CIFAR-10's test images does to the logit (correlation, mean of 400):
# sprint's last 3×3 cells 0.28, the 7×7 before them 0.54; resnet18's last 4×4 0.38, the 8×8 before them 0.41. On
# pictures enlarged so far that sprint has 5×5 to 7×7 at last these agreed better than those before.
LEAST = 5


@dataclass(frozen=True)
class Tail:
    """``steps`` lead from the value ``logits`` back to ``features``, N×channels×rows×columns, through which alone the
    pixels reach the classes. ``place`` says where its cells lie, where that is known, ``convolved`` whether a
    convolution takes it."""

    features: str
    logits: str
    steps: tuple[tuple[str, Step], ...]
    place: Place | None
    convolved: bool

    @property
    def values(self) -> tuple[str, ...]:
        """The names of all values that :meth:`contributions` needs."""
        named = dict.fromkeys([self.features, *(name for _, step in self.steps for name in step.values)])
        return tuple(named)

    def contributions(self, values: Mapping[str, np.ndarray], classes: int, index: int) -> np.ndarray:
        """What each cell adds to the logit of class ``index``: float32 rows × columns, the features times the logit's
        gradient, summed over channels. ``values`` are those of one picture."""
        first = np.zeros((classes, 1, 1), np.float32)
        first[index] = 1
        gradients = {self.logits: first}
        for name, step in self.steps:
            if isinstance(step, steps.Most) and step.given == self.features:
                step = steps.Everywhere(step.given)
            for given, gradient in step.back(gradients.pop(name), values):
                gradients[given] = gradients[given] + gradient if given in gradients else gradient
        found: np.ndarray = (values[self.features][0] * gradients[self.features]).sum(0)
        return found


def find(graph: Nodes, height: int, width: int) -> Tail:
    """The tail of the network in ``graph``, for pixels of ``height`` × ``width``.

    Raises UnsupportedError, saying why, where the classes do not come from a value with rows and columns through
    operators that ``steps`` knows.
    """
    placed = places(graph, height, width)
    logits, last = _logits(graph)
    flat = _flat(graph)
    cuts = _backwards(graph, logits, last, flat, placed) if logits in flat else iter(())
    found = next(cuts, None)
    if found and found.place and min(found.place.cells) < LEAST:
        found = _finer(found, cuts)
    if found is None:
        raise UnsupportedError(
            "This network has no heat map: its classes do not come straight from features with rows and columns.",
            "Networks that end in a global pool or a flattening and dense layers have one.",
        )
    if found.place and min(found.place.cells) < 2:
        rows, columns = found.place.cells
        raise UnsupportedError(
            f"This network has no heat map: of {height}×{width} pixels its features are {rows}×{columns}.",
            f"Train it on larger pictures, e.g. --set data.size={4 * max(height, width)}.",
        )
    return found


def _finer(last: Tail, earlier: Iterator[Tail]) -> Tail:
    """The last value with twice as many rows and columns or nearly, and of those with as many the last that a
    convolution takes: what enters the last stage. The ``last`` of all where the operators on the way are not known."""
    found, least = last, min(last.place.cells) if last.place else 0
    for tail in earlier:
        if tail.place is None or min(tail.place.cells) < max(least + 1, 2 * least - 1):
            continue
        if found is not last and found.place and tail.place.cells != found.place.cells:
            break
        if tail.convolved:
            return tail
        found = tail if found is last else found
    return found


def _logits(graph: Nodes) -> tuple[str, int]:
    """The value that the last softmax takes, and how many nodes there are before it."""
    for index, node in enumerate(graph.all):
        if OUTPUT in node.outputs and node.operator == "Softmax":
            return node.inputs[0], index
    raise UnsupportedError("This network has no heat map: its answer does not come from a softmax.")


def _flat(graph: Nodes) -> set[str]:
    """The values without rows and columns: pooled, or flattened, and what is made of them."""
    flat: set[str] = set()
    for node in graph.all:
        given = [name for name in node.inputs if not graph.constant(name)]
        from_flat = bool(given) and node.operator in steps.FLAT and all(name in flat for name in given)
        if from_flat or steps.pools(node) or steps.flattens(node, graph):
            flat.update(node.outputs)
    return flat


def _backwards(graph: Nodes, logits: str, last: int, flat: set[str], placed: Mapping[str, Place]) -> Iterator[Tail]:
    """For every value through which alone the pixels reach the logits, the last one first; as far back as the operators
    are known."""
    live, taken, convolved = {logits}, list[tuple[str, Step]](), set[str]()
    for node in reversed(graph.all[:last]):
        if not live & set(node.outputs):
            continue
        if len(live) == 1:
            (value,) = live
            place = placed.get(value)
            if value not in flat and not (place and (place.last or any(place.padding))):
                yield Tail(value, logits, tuple(taken), place, value in convolved)
        step = steps.step(node, graph, flat) if _alike(node, graph, flat, placed) else None
        if step is None or len(node.outputs) != 1:
            return
        given = {name for name in node.inputs if not graph.constant(name)}
        live = live - set(node.outputs) | given
        taken.append((node.outputs[0], step))
        if node.operator == "Conv" or (node.operator == "Pad" and node.outputs[0] in convolved):
            convolved |= given


def _alike(node: Node, graph: Nodes, flat: set[str], placed: Mapping[str, Place]) -> bool:
    """Whether values that are computed with each other have the same rows and columns."""
    given = [name for name in node.inputs if not graph.constant(name)]
    if len(given) < 2 or all(name in flat for name in given):
        return True
    return all(name in placed for name in given) and len({placed[name].cells for name in given}) == 1
