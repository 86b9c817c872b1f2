"""From a trained model and pictures to classes: ``tenfold.load(run).predict("cat.jpg")``.

Needs the bundle (or its model.onnx alone) and ONNX Runtime; no training framework is imported.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tenfold import hardware
from tenfold.bundle import store
from tenfold.bundle.manifest import ARTIFACT, FILES, MODEL
from tenfold.data import decode
from tenfold.data.dataset import Skipped
from tenfold.errors import BundleError, CallError, ImageError, UnknownNameError, UnsupportedError
from tenfold.runtimes import base as runtimes
from tenfold.runtimes import graph, onnxruntime
from tenfold.runtimes.batches import Sizes

if TYPE_CHECKING:
    from concurrent.futures import Future

    from tenfold.bundle.manifest import Manifest
    from tenfold.explanation import Explainer, Explanation
    from tenfold.runtimes.base import Runtime

# A picture: a file's path, a file's bytes, or pixels as uint8 H×W×3 (RGB) of any size.
Source = str | Path | bytes | np.ndarray

BATCH = 64
DEFAULT = "onnxruntime"
_ENGINES = "For another device take an engine: --runtime torch --device cuda."


@dataclass(frozen=True)
class Prediction:
    """What a picture shows. ``top``: (class, probability) pairs, the most probable first.

    ``path`` is the picture's path as it was given; for bytes and pixels their place in the list, ``[0]``. ``unknown``:
    the highest probability is below the model's threshold, so this may be a picture of something else.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    unknown: bool = False

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """The most probable class's probability, 0 to 1."""
        return self.top[0][1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: ``{"path", "unknown", "top": [{"class", "probability"}, …]}``."""
        top = [{"class": c, "probability": p} for c, p in self.top]
        return {"path": self.path, "unknown": self.unknown, "top": top}


class Model:
    """A trained model. Made by :func:`load`.

    name      the run's name
    classes   class names, in the order of the probabilities
    geometry  how a picture becomes the model's pixels
    threshold an answer whose highest probability is below it counts as unknown; None where the model has none
    manifest  what the bundle says of itself, or the one an artifact was made from; None for a model.onnx alone
    notes     sentences the user must be told
    """

    def __init__(
        self,
        name: str,
        said: graph.Description,
        manifest: Manifest | None,
        start: Callable[[], Runtime],
        look: Callable[[], Explainer],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.classes = said.classes
        self.geometry = said.geometry
        self.threshold = said.threshold
        self.manifest = manifest
        self.notes = notes
        self._start = start
        self._look = look

    @functools.cached_property
    def runtime(self) -> Runtime:
        """What computes; started when it is first asked for."""
        return self._start()

    @functools.cached_property
    def explainer(self) -> Explainer:
        """What draws heat maps, whatever the runtime: ONNX Runtime and NumPy; made when it is first asked for. Raises
        UnsupportedError, saying why, where the network has none."""
        return self._look()

    @property
    def explains(self) -> bool:
        """Whether the network has heat maps."""
        try:
            self.explainer  # noqa: B018 - makes it
        except UnsupportedError:
            return False
        return True

    def __repr__(self) -> str:
        size = f"{self.geometry.height}×{self.geometry.width}"
        return f"<tenfold model {self.name!r}: {len(self.classes)} classes, {size}>"

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32 N×classes, for uint8 images N×H×W×3 of the model's size."""
        return self.runtime.probabilities(images)

    # A str is a sequence of str too, which mypy minds; the first signature that fits is the one meant.
    @overload
    def predict(self, source: Source, top: int = 3) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, source: Sequence[Source], top: int = 3) -> list[Prediction]: ...

    def predict(self, source: Source | Sequence[Source], top: int = 3) -> Prediction | list[Prediction]:
        """The ``top`` most probable classes of a picture, or of each in a list.

        Raises ImageError for the first picture that can't be read; :meth:`stream` goes on instead.
        """
        if isinstance(source, str | Path | bytes | np.ndarray):
            return self._all([source], top)[0]
        return self._all(source, top)

    def explain(self, source: Source, cls: str | None = None) -> Explanation:
        """What the network looks at in a picture for the class ``cls``, the most probable one where it is None.

        Raises ImageError for a picture that can't be read, UnknownNameError for a class that is none of the model's,
        UnsupportedError for a network that has no heat map.
        """
        from tenfold import explanation

        if cls is not None and cls not in self.classes:
            raise UnknownNameError("class", cls, self.classes)
        path = str(source) if isinstance(source, str | Path) else "[0]"
        if isinstance(source, np.ndarray):
            pixels, size = self._resized(source), (source.shape[1], source.shape[0])
        else:
            pixels, size = decode.decode_sized(Path(source) if isinstance(source, str) else source, self.geometry)
        box = decode.covered(size, self.geometry)
        return explanation.of(self.explainer, pixels, self.classes, cls, path, box)

    def _all(self, sources: Iterable[Source], top: int) -> list[Prediction]:
        out = []
        for answer in self.stream(sources, top):
            if isinstance(answer, Skipped):
                raise ImageError(answer.reason, path=answer.path)
            out.append(answer)
        return out

    def stream(self, sources: Iterable[Source], top: int = 3) -> Iterator[Prediction | Skipped]:
        """Predict one after another, in order and in bounded memory; Skipped, with the reason, for a picture that
        can't be read. Pictures are decoded by all cores while the model works."""
        if top < 1:
            raise CallError(f"top must be 1 or more, not {top}.")
        decoded = self._decoded(enumerate(sources))
        while batch := list(islice(decoded, BATCH)):
            pixels = [image for _, image in batch if isinstance(image, np.ndarray)]
            rows = iter(self.probabilities(np.stack(pixels)) if pixels else ())
            for path, image in batch:
                yield image if isinstance(image, Skipped) else self.best(path, next(rows), top)

    def best(self, path: str, probabilities: np.ndarray, top: int) -> Prediction:
        """What the probabilities (K) of the picture called ``path`` mean."""
        order = np.argsort(-probabilities, kind="stable")[:top]
        pairs = tuple((self.classes[i], float(probabilities[i])) for i in order)
        return Prediction(path, pairs, self.threshold is not None and pairs[0][1] < self.threshold)

    def _decoded(self, sources: Iterator[tuple[int, Source]]) -> Iterator[tuple[str, np.ndarray | Skipped]]:
        """(path, pixels or why there are none) of each source; all but a lone one are decoded ahead, in threads."""
        first = list(islice(sources, 2))
        if len(first) == 1:
            picture = _Beside(lambda: self._decode(*first[0]))
            self.runtime  # noqa: B018 - starts while the picture is being decoded
            yield picture.result()
        if len(first) < 2:
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(hardware.cores()) as pool:
            pending: deque[Future[tuple[str, np.ndarray | Skipped]]] = deque()
            pending.extend(pool.submit(self._decode, *item) for item in first)
            try:
                while pending:
                    room = 2 * BATCH - len(pending)
                    pending.extend(pool.submit(self._decode, *item) for item in islice(sources, room))
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _decode(self, index: int, source: Source) -> tuple[str, np.ndarray | Skipped]:
        path = str(source) if isinstance(source, str | Path) else f"[{index}]"
        try:
            if isinstance(source, np.ndarray):
                return path, self._resized(source)
            return path, decode.decode(Path(source) if isinstance(source, str) else source, self.geometry)
        except ImageError as error:
            return path, Skipped(path, error.reason)

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            shape = "×".join(map(str, pixels.shape))
            raise CallError(
                f"A picture's pixels must be uint8 height×width×3, not {pixels.dtype} {shape}.",
                "For a stack of images give list(images), or call probabilities(images).",
            )
        return decode.resize(pixels, self.geometry)


def load(
    path: str | Path,
    *,
    runtime: str = DEFAULT,
    device: str = "auto",
    threads: int | None = None,
    quick: bool = False,
) -> Model:
    """The model at ``path``: a run's folder, a bundle's folder, an exported artifact's, or a model.onnx alone.

    All files of a bundle and of an artifact are verified.

    runtime   what computes: ``onnxruntime``, ``openvino``, or an engine (``torch``, ``tensorflow``, ``jax``,
              ``opencl``), which takes a bundle. An artifact is computed by the runtime of its format
    device    an engine's, as for training: ``auto``, ``cpu``, ``cuda`` …; ONNX Runtime's ``cuda`` or ``cuda:1``, where
              it is built for that, and ``auto`` is the CPU; the others compute on the CPU
    threads   of ONNX Runtime or OpenVINO for a batch; None is every core this process may use
    quick     for a few pictures: ONNX Runtime computes on one thread without optimizing the graph first, and starts
              with the first picture, beside that picture's decoding

    Raises CallError where there is nothing at ``path`` or the device isn't the runtime's, BundleError for what is
    damaged or not a tenfold model, UnknownNameError and MissingExtraError for the runtime.
    """
    path = Path(path)
    try:
        alone = path.suffix.lower() == ".onnx" and not path.is_dir()
        exported = (path / ARTIFACT).exists() or (path.name == ARTIFACT and path.exists())
        if alone and not path.exists():
            raise CallError(f"There is no run, bundle or model at {path}.")
    except OSError as error:
        raise CallError(f"{path} can't be opened: {error.strerror}.") from None
    chosen = _Chosen(runtime, device, threads, quick)
    if exported:
        model = _load_artifact(path, chosen)
    else:
        chosen.check(alone)
        model = (_load_alone if alone else _load_bundle)(path, chosen)
    if not quick:
        model.runtime  # noqa: B018 - starts it
    return model


@dataclass(frozen=True)
class _Chosen:
    """What computes, and how."""

    name: str
    device: str
    threads: int | None
    quick: bool

    @property
    def engine(self) -> bool:
        return self.name not in runtimes.RUNTIMES

    def check(self, alone: bool) -> None:
        """Refuses what can be refused before a file is read."""
        if self.name == DEFAULT and self.device in ("auto", "cpu"):
            return
        if self.name == DEFAULT:
            onnxruntime.check_device(self.device)
            return
        if not self.engine:
            if self.device not in ("auto", "cpu"):
                raise CallError(f"The runtime {self.name} computes on the CPU, not on {self.device}.", _ENGINES)
            runtimes.load(self.name)
            return
        from tenfold.engines.base import ENGINES

        if self.name not in ENGINES:
            raise UnknownNameError("runtime", self.name, [*runtimes.RUNTIMES, *ENGINES])
        if alone:
            raise CallError(
                f"The engine {self.name} takes a run or a bundle, not a model.onnx alone.",
                "Leave --runtime out, or name the folder.",
            )

    def start(self, data: bytes, metadata: Any, where: str) -> Any:
        """The runtime of a model.onnx."""
        if self.name == DEFAULT:
            return onnxruntime.start(
                data, metadata, threads=self.threads, quick=self.quick, device=self.device, where=where
            )
        return runtimes.load(self.name).open(data, threads=self.threads, where=where)

    def explainer(self, data: bytes, said: graph.Description, where: str) -> Explainer:
        from tenfold.explanation import Explainer

        return Explainer(data, said, threads=self.threads, quick=self.quick, where=where)


def _load_bundle(path: Path, chosen: _Chosen) -> Model:
    bundle = store.open(path, verify=False)
    rest = _Beside(lambda: bundle.verify([name for name in FILES if name != MODEL]))
    data, manifest, where = bundle.model(), bundle.manifest, f"{bundle.path}: {MODEL}"
    metadata = graph.inspect(data, where)
    said = graph.describe(metadata, where)
    if (said.classes, said.geometry, said.threshold) != (manifest.classes, manifest.geometry, manifest.threshold):
        raise BundleError(f"{bundle.path}: {MODEL} and manifest.json differ in classes, geometry or threshold.")

    def start() -> Runtime:
        if chosen.engine:
            from tenfold.runtimes import engine

            rest.result()
            return engine.open(chosen.name, bundle, chosen.device)
        runtime = chosen.start(data, metadata, where)
        rest.result()
        return _fitting(runtime, said, where)

    def look() -> Explainer:
        rest.result()
        return chosen.explainer(data, said, where)

    return Model(manifest.name, said, manifest, start, look)


def _load_alone(path: Path, chosen: _Chosen) -> Model:
    data, where = onnxruntime.read(path), str(path)
    metadata = graph.inspect(data, where)
    said = graph.describe(metadata, where)

    def start() -> Runtime:
        return _fitting(chosen.start(data, metadata, where), said, where)

    return Model(said.name, said, None, start, lambda: chosen.explainer(data, said, where))


def _load_artifact(path: Path, chosen: _Chosen) -> Model:
    from tenfold.export import artifact

    if chosen.name != DEFAULT:
        raise CallError(
            f"{path} is an exported artifact, which the runtime of its format computes.",
            "Leave --runtime out, or name the run.",
        )
    found = artifact.open(path, threads=chosen.threads, quick=chosen.quick, device=chosen.device)
    said, notes = found.said, (found.note,) if found.note else ()
    return Model(said.name, said, found.manifest, lambda: _fitting(found.start(), said, str(path)), found.look, notes)


def _fitting(runtime: Any, said: graph.Description, where: str) -> Runtime:
    """The runtime, where the graph's own sizes are those of its metadata."""
    if runtime.sizes != Sizes(said.geometry.height, said.geometry.width, len(said.classes)):
        raise BundleError(f"{where} computes other sizes than its metadata say.")
    return runtime


class _Beside(threading.Thread):
    """A call that goes on beside this thread; ``result`` waits for it and gives its value or raises its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join()
        if self._error is not None:
            raise self._error
        return self._value
