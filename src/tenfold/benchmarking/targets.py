"""What is measured: runs, bundles, artifacts and model.onnx files, and the configurations that come of them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.benchmarking.records import Configuration, Subject
from tenfold.bundle import manifest as manifests
from tenfold.bundle import store
from tenfold.bundle.manifest import ARTIFACT, MODEL, WEIGHTS, Manifest
from tenfold.engines.base import ENGINES
from tenfold.errors import CallError, MissingExtraError, UnknownNameError
from tenfold.export import artifact
from tenfold.runtimes.base import ARTIFACTS, RUNTIMES

EXPORTS = "exports"
BUNDLE = "bundle"
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
# Whatever its weights are stored in, a format that is not here computes in float32.
_PRECISION = {"onnx-fp16": "fp16", "onnx-int8": "int8", "litert-int8": "int8", "tensorrt-fp16": "fp16"}
# Engines made for cards: on a processor their first answers take minutes, and are the slowest.
SLOW_ON_CPU = ("opencl",)


@dataclass(frozen=True)
class Target:
    """One thing that can be opened.

    subject   the name of the model
    path      a bundle's folder, an artifact's, or a model.onnx
    format    ``bundle``, ``model.onnx``, or an artifact's
    runtime   the only one that opens it; None where several do
    bytes     by ``onnx`` and ``weights``: of what a runtime reads and of what an engine reads
    golden    the bundle with the golden images; None where there is none
    """

    subject: str
    path: Path
    format: str
    runtime: str | None
    bytes: dict[str, int]
    golden: Path | None

    @property
    def precision(self) -> str | None:
        """What it computes in; None where that can be chosen."""
        return None if self.format in (BUNDLE, MODEL) else _PRECISION.get(self.format, "fp32")

    def size(self, runtime: str) -> int:
        """Bytes on disk of what the runtime reads."""
        return self.bytes["weights" if runtime in ENGINES else "onnx"]


@dataclass(frozen=True)
class Found:
    """Targets with their subjects; the manifest of each subject's bundle, where there is one; and what must be told."""

    subjects: tuple[Subject, ...]
    targets: tuple[Target, ...]
    manifests: dict[str, Manifest]
    geometries: dict[str, tuple[int, int]]
    notes: tuple[str, ...]


def find(paths: Sequence[Path | str]) -> Found:
    """Everything that ``paths`` name: a run or a bundle with its exports, an artifact alone, a model.onnx.

    Raises CallError for a path that is none of these or named twice, BundleError for a damaged one.
    """
    if not paths:
        raise CallError("No run is named.", "Name one: tenfold bench RUN.")
    seen = _Seen()
    resolved = [Path(p).resolve() for p in paths]
    for given, path in zip(paths, resolved, strict=True):
        if resolved.count(path) > 1:
            raise CallError(f"{given} is named twice.")
        seen.take(Path(given))
    return seen.found()


class _Seen:
    def __init__(self) -> None:
        self.subjects: list[Subject] = []
        self.targets: dict[Path, Target] = {}
        self.manifests: dict[str, Manifest] = {}
        self.geometries: dict[str, tuple[int, int]] = {}
        self.bundles: dict[str, Path] = {}
        self.notes: list[str] = []

    def found(self) -> Found:
        return Found(
            tuple(self.subjects), tuple(self.targets.values()), self.manifests, self.geometries, tuple(self.notes)
        )

    def take(self, path: Path) -> None:
        if path.suffix.lower() == ".onnx" and not path.is_dir():
            self._alone(path)
        elif (path / ARTIFACT).is_file() or path.name == ARTIFACT:
            self._artifact(path.parent if path.name == ARTIFACT else path)
        else:
            self._bundle(path)

    def _bundle(self, path: Path) -> None:
        bundle = store.open(path)
        name = self._subject(bundle.manifest, path)
        files = bundle.manifest.files
        sizes = {"onnx": files[MODEL].bytes, "weights": files[WEIGHTS].bytes}
        self.bundles[name] = bundle.path
        self._put(Target(name, bundle.path, BUNDLE, None, sizes, bundle.path))
        exports = bundle.path.absolute().parent / EXPORTS
        same = []
        for folder in sorted(exports.iterdir()) if exports.is_dir() else ():
            if not (folder / ARTIFACT).is_file():
                continue
            found = artifact.read(folder)
            if any(entry.sha256 == files[MODEL].sha256 for entry in found.files.values()):
                same.append(found.kind)
            else:
                self._artifact(folder)
        if same:
            self.notes.append(
                f"{' and '.join(same)} of {name}: the same model.onnx as the run's, so not measured twice."
            )

    def _artifact(self, folder: Path) -> None:
        found = artifact.read(folder)
        try:
            made_from = manifests.parse((folder / artifact.BUNDLE).read_bytes())
        except OSError as error:
            raise CallError(f"{folder} can't be opened: {error.strerror}.") from None
        name = self._subject(made_from, folder)
        self._put(Target(name, folder, found.kind, found.runtime, {"onnx": found.size}, self.bundles.get(name)))

    def _alone(self, path: Path) -> None:
        from tenfold.runtimes import graph, onnxruntime

        if not path.exists():
            raise CallError(f"There is no run, bundle or model at {path}.")
        data = onnxruntime.read(path)
        said = graph.describe(graph.inspect(data, str(path)), str(path))
        digest = hashlib.sha256(data).hexdigest()
        image = f"{said.geometry.width}×{said.geometry.height}"
        subject = Subject(self._free(said.name, digest, path), MODEL, digest, None, image, None, str(path))
        self.subjects.append(subject)
        self.geometries[subject.name] = (said.geometry.height, said.geometry.width)
        self._put(Target(subject.name, path, MODEL, None, {"onnx": len(data)}, None))

    def _put(self, target: Target) -> None:
        self.targets.setdefault(target.path.resolve(), target)

    def _subject(self, manifest: Manifest, path: Path) -> str:
        """The name of the subject that the manifest is of, which is added where it is new."""
        digest = manifest.weights_sha256
        if known := next((s for s in self.subjects if s.digest == digest), None):
            return known.name
        name = self._free(manifest.name, digest, path)
        facts = manifest.provenance.get("dataset")
        source = facts.get("source") if isinstance(facts, Mapping) else None
        size = manifest.geometry
        self.subjects.append(
            Subject(
                name,
                manifest.architecture.name,
                digest,
                source if isinstance(source, str) else None,
                f"{size.width}×{size.height}",
                manifest.parameters,
                str(path),
            )
        )
        self.manifests[name] = manifest
        self.geometries[name] = (size.height, size.width)
        return name

    def _free(self, name: str, digest: str, path: Path) -> str:
        """``name``, or where another model has it, with the path."""
        return f"{name} ({path})" if any(s.name == name and s.digest != digest for s in self.subjects) else name


# ---- configurations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """The axes asked for; None is whatever is here."""

    runtimes: tuple[str, ...] | None
    devices: tuple[str, ...] | None
    precisions: tuple[str, ...] | None
    threads: tuple[int | None, ...]


def check(wanted: Wanted) -> None:
    """Refuses names that are not known, and runtimes that are not installed, before anything is read."""
    known = {name: (package, extra) for name, (package, extra) in {**ARTIFACTS, **RUNTIMES}.items()}
    for name in wanted.runtimes or ():
        if name in ENGINES:
            entry = ENGINES[name]
            if (package := entry.missing()) is not None:
                raise MissingExtraError(package, entry.extra, f"The {name} engine")
        elif name not in known:
            raise UnknownNameError("runtime", name, [*known, *ENGINES])
        elif (extra := known[name][1]) is not None and importlib.util.find_spec(known[name][0]) is None:
            raise MissingExtraError(known[name][0], extra, f"The runtime {name}")
    for name in wanted.precisions or ():
        if name not in PRECISIONS:
            raise UnknownNameError("precision", name, PRECISIONS)
    for count in wanted.threads:
        if count is not None and count < 1:
            raise CallError(f"threads must be 1 or more, not {count}.")
    for kind, given in (("runtime", wanted.runtimes), ("device", wanted.devices), ("precision", wanted.precisions)):
        if given is not None and (not given or not all(given)):
            raise CallError(f"No {kind} is named.")


@dataclass(frozen=True)
class Plan:
    """``first``: the configurations to measure, in order; ``asked``: those that are not measured themselves, but whose
    runtime is asked what else it has; ``notes``: a sentence for what is left out."""

    first: list[tuple[Target, Configuration]]
    asked: list[tuple[Target, Configuration]]
    notes: list[str]


def plan(found: Found, wanted: Wanted) -> Plan:
    """Where devices or precisions are not named, only ``cpu`` and ``fp32``: what else a runtime has, its first process
    tells (see :func:`more`)."""
    made: dict[Configuration, Target] = {}
    for target in found.targets:
        for runtime in _runtimes(target, wanted):
            for device in wanted.devices or ("cuda" if runtime == "tensorrt" else "cpu",):
                for precision in _precisions(target, wanted):
                    for threads in wanted.threads:
                        if not _possible(target, runtime, device, precision):
                            continue
                        one = Configuration(target.subject, runtime, device, precision, target.format, threads)
                        made.setdefault(one, target)
    missing = sorted(
        {r for t in found.targets for r in _able(t) if not _installed(r)} if wanted.runtimes is None else set()
    )
    notes = [f"Not installed, so not measured: {', '.join(missing)}."] if missing else []
    if not made:
        raise CallError(
            "Nothing is left to measure: no target has this runtime, device and precision.",
            "Leave out --runtimes, --devices or --precisions.",
        )
    asked = {}
    if wanted.runtimes is None and wanted.devices is None:
        asked = {one: made.pop(one) for one in list(made) if one.runtime in SLOW_ON_CPU}
        notes += [f"Left out: {name} on the processor, where it compiles for minutes; --runtimes {name} measures it."
                  for name in dict.fromkeys(one.runtime for one in asked)]  # fmt: skip
    return Plan(
        [(target, one) for one, target in made.items()], [(target, one) for one, target in asked.items()], notes
    )


def more(
    target: Target, configuration: Configuration, told: Mapping[str, Sequence[str]], wanted: Wanted
) -> list[Configuration]:
    """What a runtime that told of its devices, each with its native precisions, can be measured on beside
    ``configuration``, as far as devices and precisions were not named."""
    found = []
    for device, native in told.items():
        if wanted.devices is not None and device != configuration.device:
            continue
        if device != "cpu" and configuration.threads is not None:
            continue
        for precision in _precisions(target, wanted) if target.precision or wanted.precisions else native:
            if _possible(target, configuration.runtime, device, precision):
                found.append(dataclasses.replace(configuration, device=device, precision=precision))
    return [one for one in dict.fromkeys(found) if one != configuration]


def _able(target: Target) -> list[str]:
    """The runtimes that can open the target, installed or not."""
    if target.runtime is not None:
        return [target.runtime]
    return [*RUNTIMES, *ENGINES] if target.format == BUNDLE else list(RUNTIMES)


def _runtimes(target: Target, wanted: Wanted) -> list[str]:
    return [r for r in _able(target) if (_installed(r) if wanted.runtimes is None else r in wanted.runtimes)]


def _installed(runtime: str) -> bool:
    if runtime in ENGINES:
        return ENGINES[runtime].missing() is None
    return importlib.util.find_spec({**ARTIFACTS, **RUNTIMES}[runtime][0]) is not None


def _precisions(target: Target, wanted: Wanted) -> Sequence[str]:
    if target.precision is None:
        return wanted.precisions or ("fp32",)
    return (target.precision,) if wanted.precisions is None or target.precision in wanted.precisions else ()


def _possible(target: Target, runtime: str, device: str, precision: str) -> bool:
    """False where it is plain, without asking, that there is no such thing; a runtime's own refusal is told later."""
    kind = re.split("[:.]", device)[0]
    if target.precision is None and precision == "int8":
        return False
    if runtime == "onnxruntime" and target.precision is None and precision != "fp32":
        return False
    if runtime == "tensorrt":
        return device == "cuda"
    if kind == "cpu":
        return True
    if runtime == "onnxruntime":
        return kind == "cuda"
    if runtime == "openvino":
        return target.precision is None and kind in ("gpu", "npu")
    return runtime in ENGINES and kind != "npu"
