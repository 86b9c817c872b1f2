"""What a worker does with a job: the models, a request's pictures, and the JSON that answers it.

A job's ``op`` is ``classify`` (pictures in any form of body), ``vertex`` (Vertex AI's JSON), ``infer`` (tensors),
``explain`` (a picture), or, where decoding and computing are two kinds of workers, ``decode`` (the first half of any of
them) and ``compute`` (the second). Jobs that come together share one call of the model.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold import explanation
from tenfold.bundle.manifest import ARTIFACT
from tenfold.data import decode
from tenfold.errors import ImageError, UnsupportedError
from tenfold.predict import Model, load
from tenfold.serving import bodies, oip
from tenfold.serving.refusal import Refusal

VERSION = 12  # digits of the SHA-256 that tells one bundle from another


@dataclass
class Task:
    """A job after its first half: what is to be computed, and all that the answer needs beside it.

    items    a mapping for each picture: its ``file``, and ``error`` where it could not be read
    oip      of a request in the Open Inference Protocol: its ``id``, and whether it wants ``binary``
    explain  of a heat map: its class, None for the most probable one, and the part of the picture that it covers
    """

    form: str
    model: str
    pixels: np.ndarray
    items: list[dict[str, Any]]
    top: int = 3
    oip: dict[str, Any] | None = None
    explain: tuple[str | None, tuple[float, float, float, float]] | None = None

    def to_head(self) -> dict[str, Any]:
        told = {"form": self.form, "items": self.items, "top": self.top, "oip": self.oip}
        return {**told, "shape": self.pixels.shape}


class Handler:
    """Holds the models. ``versions`` tell one bundle from another; ``cards`` say what they are (see :func:`card`)."""

    def __init__(self, models: dict[str, Model], versions: dict[str, str], spec: Mapping[str, Any]) -> None:
        self.models, self.versions = models, versions
        self.max_pixels, self.max_parts = spec["max_pixels"], spec["max_parts"]
        self.computes = spec["role"] != "decode"

    @property
    def cards(self) -> dict[str, dict[str, Any]]:
        return {name: card(model, self.versions[name], self.computes) for name, model in self.models.items()}

    @classmethod
    def start(cls, spec: dict[str, Any]) -> Handler:
        """With the models of a front's first frame, loaded, verified and warm."""
        computes = spec["role"] != "decode"
        models, versions = {}, {}
        for name, path in spec["paths"].items():
            model = load(
                path, runtime=spec["runtime"], device=spec["device"], threads=spec["threads"], quick=not computes
            )
            if spec["threshold"] is not None:
                model.threshold = spec["threshold"]
            decode.warm_up(model.geometry)
            if computes:
                model.probabilities(np.zeros((1, model.geometry.height, model.geometry.width, 3), np.uint8))
            models[name], versions[name] = model, _version(model, Path(path))
        return cls(models, versions, spec)

    def answer(self, head: dict[str, Any], body: memoryview) -> tuple[list[dict[str, Any]], list[bytes]]:
        """Heads and bodies of the answers to a frame's jobs, in their order. A head has ``size``, and ``ms`` or
        ``error``."""
        began, at = time.monotonic(), 0
        tasks: list[Task | Refusal] = []
        spent: list[float] = []
        for job in head["jobs"]:
            start = time.perf_counter()
            data, at = body[at : at + job["size"]], at + job["size"]
            tasks.append(self._guarded(job, data))
            spent.append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        answers = self._answers(head["jobs"], tasks)
        computed = 1000 * (time.perf_counter() - start)
        heads, parts = [], []
        for (told, part), decoded in zip(answers, spent, strict=True):
            times = {"decode": round(decoded, 3), "compute": round(computed, 3)}
            heads.append({**told, "size": len(part), "ms": times, "began": began})
            parts.append(part)
        return heads, parts

    # ---- the first half ----------------------------------------------------------------------------------------------

    def _guarded(self, job: dict[str, Any], data: memoryview) -> Task | Refusal:
        try:
            return self._prepared(job, data)
        except Refusal as refusal:
            return refusal
        except MemoryError:
            return Refusal(422, "bad_picture", "The picture does not fit in memory.")

    def _prepared(self, job: dict[str, Any], data: memoryview) -> Task:
        model = self.models[job["model"]]
        match job["op"] if job["op"] != "decode" else job["form"]:
            case "classify":
                found = bodies.pictures(job["type"], bytes(data), self.max_parts)
                return self._decoded("classify", job["model"], found, job["top"])
            case "vertex":
                found, top = _instances(bytes(data), self.max_parts)
                return self._decoded("vertex", job["model"], found, top)
            case "explain":
                found = bodies.pictures(job["type"], bytes(data), 1)
                return self._explained(job, found[0])
            case "infer":
                shape = (model.geometry.height, model.geometry.width, 3)
                request = oip.parse(bytes(data), job["header"], shape)
                return Task("infer", job["model"], request.pixels, [], oip={"id": request.id, "binary": request.binary})
            case _:
                pixels = np.frombuffer(data, np.uint8).reshape(job["shape"])
                return Task(job["form"], job["model"], pixels, job["items"], job["top"], job["oip"])

    def _decoded(self, form: str, model: str, found: list[bodies.Picture], top: int) -> Task:
        geometry = self.models[model].geometry
        items: list[dict[str, Any]] = []
        pixels, reasons = [], []
        for picture in found:
            try:
                pixels.append(decode.decode(picture.data, geometry, self.max_pixels))
                items.append({"file": picture.name})
            except ImageError as error:
                reasons.append(error.reason)
                items.append({"file": picture.name, "error": {"code": "bad_picture", "message": error.reason}})
        if not pixels:
            said = (
                reasons[0] if len(found) == 1 else f"none of {len(found)} pictures can be read. The first: {reasons[0]}"
            )
            raise Refusal(422, "bad_picture", _sentence(said))
        return Task(form, model, np.stack(pixels), items, top)

    def _explained(self, job: dict[str, Any], picture: bodies.Picture) -> Task:
        model = self.models[job["model"]]
        try:
            model.explainer  # noqa: B018 - asked for before the picture is decoded
            pixels, size = decode.decode_sized(picture.data, model.geometry, self.max_pixels)
        except UnsupportedError as error:
            raise Refusal(501, "no_heat_map", error.message) from None
        except ImageError as error:
            raise Refusal(422, "bad_picture", _sentence(error.reason)) from None
        task = Task("explain", job["model"], pixels[None], [{"file": picture.name}], job["top"])
        task.explain = job["class"], decode.covered(size, model.geometry)
        return task

    # ---- the second half ---------------------------------------------------------------------------------------------

    def _answers(self, jobs: list[dict[str, Any]], tasks: list[Task | Refusal]) -> list[tuple[dict[str, Any], bytes]]:
        rows = self._rows([task for task, job in zip(tasks, jobs, strict=True) if job["op"] != "decode"])
        return [self._answer(job, task, rows) for job, task in zip(jobs, tasks, strict=True)]

    def _rows(self, tasks: list[Task | Refusal]) -> dict[int, np.ndarray]:
        """Probabilities by the task's ``id``: one call for all tasks of a model."""
        rows: dict[int, np.ndarray] = {}
        for name, model in self.models.items():
            own = [task for task in tasks if isinstance(task, Task) and task.model == name]
            if not own:
                continue
            found = model.probabilities(np.concatenate([task.pixels for task in own]))
            at = 0
            for task in own:
                rows[id(task)] = found[at : at + len(task.pixels)]
                at += len(task.pixels)
        return rows

    def _answer(
        self, job: dict[str, Any], task: Task | Refusal, rows: dict[int, np.ndarray]
    ) -> tuple[dict[str, Any], bytes]:
        if isinstance(task, Refusal):
            return {"error": {"status": task.status, "code": task.code, "message": task.message}}, b""
        version = self.versions[task.model]
        if job["op"] == "decode":
            return {"version": version, "task": task.to_head()}, task.pixels.tobytes()
        found = rows[id(task)]
        head: dict[str, Any] = {"version": version, "pictures": len(found)}
        if task.oip is not None:
            body, head["header"] = oip.answer(found, task.model, version, task.oip["id"], task.oip["binary"])
            return head, body
        model = self.models[task.model]
        left = iter(found)
        told = [item if "error" in item else _told(model, item, next(left), task.top) for item in task.items]
        head["unknown"] = sum(item.get("unknown", False) for item in told)
        head["failed"] = len(told) - len(found)
        value: Any = {"predictions": told} if task.form == "vertex" else told
        if task.explain is not None:
            label, box = task.explain
            chosen = model.classes.index(label) if label is not None else int(found[0].argmax())
            drawn = explanation.of(model.explainer, task.pixels[0], model.classes, model.classes[chosen], "", box)
            value = {**told[0], "of": drawn.label, **{k: drawn.to_dict()[k] for k in ("map", "scale", "box")}}
        return head, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _told(model: Model, item: dict[str, Any], row: np.ndarray, top: int) -> dict[str, Any]:
    best = model.best("", row, top)
    return {
        **item,
        "class": "unknown" if best.unknown else best.label,
        "probability": best.probability,
        "unknown": best.unknown,
        "top": best.to_dict()["top"],
    }


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]


def _instances(body: bytes, most: int) -> tuple[list[bodies.Picture], int]:
    """The pictures of a request to Vertex AI, and how many classes it asks for."""
    value = bodies.json(body)
    instances, parameters = value.get("instances"), value.get("parameters") or {}
    if not isinstance(instances, list) or not instances:
        raise Refusal(400, "bad_json", '"instances" is not a list of pictures: {"instances": [{"b64": "…"}]}.')
    bodies.bounded(len(instances), most)
    found = []
    for i, instance in enumerate(instances):
        text = instance.get("b64", instance.get("image")) if isinstance(instance, dict) else instance
        found.append(bodies.Picture(None, bodies.decoded(text, f'"instances"[{i}]')))
    top = parameters.get("top", 3) if isinstance(parameters, dict) else None
    if type(top) is not int or not 1 <= top <= 1000:
        raise Refusal(400, "bad_json", '"parameters": {"top": …} is not a whole number from 1 to 1000.')
    return found, top


def _version(model: Model, path: Path) -> str:
    """The start of a SHA-256: of the manifest or artifact.json, which hold those of all else, or of a model.onnx."""
    if (path / ARTIFACT).is_file():
        data = (path / ARTIFACT).read_bytes()
    else:
        data = model.manifest.to_json().encode() if model.manifest else path.read_bytes()
    return hashlib.sha256(data).hexdigest()[:VERSION]


def card(model: Model, version: str, computes: bool) -> dict[str, Any]:
    """What a model is, in plain JSON: for its page, and for the front, which holds no model itself. Whether it has heat
    maps is known where it ``computes``."""
    manifest = model.manifest
    told: dict[str, Any] = {
        "name": model.name,
        "classes": list(model.classes),
        "geometry": model.geometry.to_dict(),
        "threshold": model.threshold,
        "explains": computes and model.explains,
        "version": version,
        "created": None,
        "network": None,
        "parameters": None,
        "metrics": {},
        "engine": None,
        "dataset": {},
        "recipe": {},
    }
    if manifest is None:
        return told
    origin = manifest.provenance
    dataset = origin.get("dataset")
    return {
        **told,
        "created": manifest.created,
        "network": manifest.network.get("name"),
        "parameters": manifest.parameters,
        "metrics": dict(manifest.metrics),
        "engine": origin.get("engine"),
        "dataset": {k: dataset.get(k) for k in ("name", "counts")} if isinstance(dataset, dict) else {},
        "recipe": _public(origin.get("recipe")),
    }


def _public(recipe: Any) -> dict[str, Any]:
    """A recipe without the path of a file on the machine that trained."""
    if not isinstance(recipe, dict):
        return {}
    network = recipe.get("model")
    if isinstance(network, dict):
        recipe = {**recipe, "model": {k: v for k, v in network.items() if k != "pretrained_file"}}
    return recipe
