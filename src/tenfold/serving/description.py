"""The API's description in OpenAPI 3.1: what /docs shows and programs read.

Each operation has ``x-codeSamples``: commands for a shell that work as they stand once ``{origin}`` is the server's
address. They and the examples speak of the model that is served, where that may be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tenfold import __version__
from tenfold.serving import oip
from tenfold.serving.gate import OPEN
from tenfold.serving.operation import Part, base64, curl, header, operation, path, piped, query, refused, response
from tenfold.serving.schemas import REFUSALS, SCHEMAS, ref
from tenfold.serving.settings import MIB, Settings

KEY = "$TENFOLD_KEY"  # what the commands name where the server asks for a key

PICTURES, MODELS, PROTOCOL, CLOUDS = "Pictures", "Models", "Open Inference Protocol", "Clouds"
WATCHING, PAGES = "Watching", "Pages"
_TAGS = {
    PICTURES: "What is it, and what says so?",
    MODELS: "What is served.",
    PROTOCOL: "Version 2, as KServe and Triton speak it: pixels of the model's own size in, probabilities out.",
    CLOUDS: "The addresses that SageMaker and Vertex AI ask.",
    WATCHING: "For whoever looks after the server.",
    PAGES: "For people, and this description.",
}

# Codes that a request with a body may get, that with one picture or several, and that for a model by its name.
_BODY = ("too_slow", "too_large", "encoded", "failed", "queue_full", "no_memory", "not_ready", "stopping",
         "worker_lost", "deadline")  # fmt: skip
_PICTURE = ("bad_json", "bad_multipart", "bad_base64", "no_picture", "too_many_pictures", "bad_picture", *_BODY)
_NAMED = ("unknown_model", "not_ready")

_ABOUT = """\
Send a picture, get its class with a calibrated probability. One picture has {pixels} megapixels at most; one request \
{body} MiB, and {parts} pictures.

What is not answered as asked is answered with a status, a code for programs and a sentence for people. Whatever the \
address, that may be `bad_http`, `too_many_pieces`, `not_found`, `wrong_method`, `too_many_headers` or `failed`. A \
request may name itself in the header `X-Request-Id` (letters, digits, `.`, `_` and `-`); each answer has one."""

_MS = {"decode": 0.8, "wait": 0.3, "compute": 0.5, "total": 1.9}
_MAP = {"height": 2, "width": 3, "values": [[0, 0.2, 0.1], [0.1, 1, 0.4]]}
_BOX = {"left": 0, "top": 0, "width": 1, "height": 1}
_TOP = query("top", "How many classes to give; more than there are gives all.",
             type="integer", minimum=1, maximum=1000, default=3)  # fmt: skip
_MODEL = query("model", "A model's name; the first that is served where it is left out.", type="string")
_BYTES = {
    "schema": {"description": "A picture's bytes. JPEG, PNG, GIF, BMP, WebP, AVIF, TIFF and portable maps are read."}
}


def openapi(settings: Settings, cards: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``cards`` are those of the models that may be told of: none where the server asks for a key and got none."""
    known, keyed = _Known.of(cards), settings.key_file is not None
    paths: dict[str, dict[str, Any]] = {}
    for method, address, told in _operations(settings, known):
        if keyed:
            _lock(told, address, settings)
        told["responses"] = dict(sorted(told["responses"].items()))
        paths.setdefault(address, {})[method.lower()] = told
    models = settings.models
    about = _ABOUT.format(
        pixels=f"{models.max_pixels / 1e6:g}", body=f"{settings.max_body / MIB:g}", parts=models.max_parts
    )
    value: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "tenfold serve", "version": __version__, "description": about},
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
        "x-refusals": {code: {"status": status, "when": when} for code, (status, when) in REFUSALS.items()},
    }
    if keyed:
        value["security"] = [{"bearer": []}, {"header": []}]
        value["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    return value


def _lock(told: Part, address: str, settings: Settings) -> None:
    """An operation of a server that asks for a key."""
    if address in OPEN or address.startswith("/static/") or address == settings.routes.get("health"):
        told["security"] = []
        return
    told["responses"].update(refused(["no_key"], flat=address.startswith("/v2")))
    for sample in told["x-codeSamples"]:
        sample["source"] = sample["source"].replace("curl ", f"curl {header('Authorization', f'Bearer {KEY}')} ")


@dataclass(frozen=True)
class _Known:
    """The model that commands and examples speak of."""

    name: str = "cifar10-quick-1"
    version: str = "3f2a91c0d4e1"
    classes: tuple[str, ...] = ("airplane", "automobile", "bird")
    height: int = 32
    width: int = 32
    threshold: float | None = 0.41

    @classmethod
    def of(cls, cards: Mapping[str, Mapping[str, Any]]) -> _Known:
        for name, card in cards.items():
            size = card["geometry"]
            return cls(name, card["version"], tuple(card["classes"]), size["height"], size["width"], card["threshold"])
        return cls()

    def prediction(self, file: str | None = None) -> dict[str, Any]:
        shares = (0.93, 0.04, 0.01)
        top = [{"class": name, "probability": share} for name, share in zip(self.classes, shares, strict=False)]
        return {"file": file, **top[0], "unknown": False, "top": top}

    def card(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "run": self.name,
            "version": self.version,
            "default": True,
            "classes": list(self.classes),
            "geometry": {"height": self.height, "width": self.width, "resize": "squash", "background": [0, 0, 0]},
            "threshold": self.threshold,
            "explains": True,
            "report": True,
            "created": "2026-11-28T02:46:32+00:00",
            "network": "sprint",
            "parameters": 201672,
            "engine": "torch",
            "dataset": {"name": "cifar10", "counts": {"train": 49000, "val": 1000, "test": 10000}},
            "recipe": {"name": "quick", "epochs": 2.5, "batch_size": 500},
            "metrics": {"test": {"accuracy": 0.8362, "n": 10000, "loss": 0.491, "ece": 0.0111, "tta": "none"}},
        }

    def opening(self) -> dict[str, Any]:
        return {"model": self.name, "version": self.version, "request_id": "5f0c6f5a1b2c3d4e"}


_Told = Iterator[tuple[str, str, Part]]


def _operations(settings: Settings, known: _Known) -> _Told:
    """(method, address, operation) of every route."""
    yield from _of_pictures(known)
    yield from _of_models(known)
    yield from _of_protocol(known)
    yield from _of_clouds(settings, known)
    yield "GET", "/metrics", operation(
        "metrics", WATCHING, "Figures for Prometheus",
        "Requests, refusals, times by stage, the queue, memory, workers, connections.",
        answer=response("In Prometheus's text format.", "text/plain", schema={"type": "string"}),
        samples=[curl("/metrics")],
    )  # fmt: skip
    yield from _of_pages()


# ---- pictures and models --------------------------------------------------------------------------------------------


def _of_pictures(known: _Known) -> _Told:
    yield "POST", "/predict", _predict(known, "predict", PICTURES, "/predict")
    explained = {"of": known.classes[0], "map": _MAP, "scale": 0.57, "box": _BOX}
    yield "POST", "/explain", operation(
        "explain", PICTURES, "What the network looked at",
        "A heat map for one class: what in the picture speaks for it. The body is one picture, as for `/predict`.",
        parameters=[
            query("class", "The class to explain; the most probable one where it is left out.", type="string"),
            _TOP,
            _MODEL,
        ],
        body=_bodies("Form", "Picture"),
        answer=response(
            "The picture's classes, the map, and where it lies.",
            schema=ref("Explained"),
            example={**known.opening(), "ms": _MS, "explanation": {**known.prediction(), **explained}},
        ),
        refusals=("bad_request", "unknown_model", "no_heat_map", *_PICTURE),
        samples=[
            curl("/explain", "--data-binary @photo.jpg"),
            curl(f"/explain?class={quote(known.classes[0], safe='')}", "--data-binary @photo.jpg", label="For a class"),
        ],
    )  # fmt: skip


def _predict(known: _Known, name: str, tag: str, address: str) -> Part:
    opening = {**known.opening(), "threshold": known.threshold, "ms": _MS}
    error = {"code": "bad_picture", "message": "the file is cut short (image file is truncated)."}
    of_several = [known.prediction("photo.jpg"), {"file": "scan.png", "error": error}]
    return operation(
        name, tag, "What is in a picture",
        "The body is the picture's bytes, whatever its content type says; or a form with one or several files; or JSON "
        "with base64. Of several pictures, one that can't be read has an `error` in its place; where none can be, the "
        "answer is 422.",
        parameters=[_TOP, _MODEL],
        body=_bodies("Form", "Picture", "Pictures"),
        answer=response(
            "An answer for each picture.",
            schema=ref("Answer"),
            one={**opening, "predictions": [known.prediction()]},
            several={**opening, "predictions": of_several},
        ),
        refusals=("bad_request", "unknown_model", *_PICTURE),
        samples=[
            curl(address, "--data-binary @photo.jpg", label="A picture"),
            curl(f"{address}?top=2&model={quote(known.name)}", "--data-binary @photo.jpg", label="Two classes"),
            curl(address, "-F file=@photo.jpg", "-F 'file=@photo.jpg;filename=again.jpg'", label="Several, as a form"),
            piped(address, base64('{"image": "%s"}'), header("Content-Type", "application/json"), label="JSON"),
        ],
    )  # fmt: skip


def _bodies(form: str, *values: str) -> dict[str, Part]:
    return {
        "application/octet-stream": _BYTES,
        "image/*": _BYTES,
        "multipart/form-data": {"schema": ref(form)},
        "application/json": {"schema": ref(values[0]) if len(values) == 1 else {"oneOf": [*map(ref, values)]}},
    }


def _of_models(known: _Known) -> _Told:
    named, about = path("name", known.name, "The model's name."), f"/models/{quote(known.name)}"
    yield "GET", "/models", operation(
        "models", MODELS, "The models that are served", "The first answers requests that name none.",
        answer=response("Their cards.", schema=ref("Models"), example={"models": [known.card()]}),
        refusals=["not_ready"],
        samples=[curl("/models")],
    )  # fmt: skip
    yield "GET", "/models/{name}", operation(
        "model", MODELS, "A model's card", "Its classes, how good it is, where it comes from.",
        parameters=[named],
        answer=response("The card.", schema=ref("Model"), example=known.card()),
        refusals=_NAMED,
        samples=[curl(about)],
    )  # fmt: skip
    yield "GET", "/models/{name}/report", operation(
        "report", MODELS, "The report of a model's training", "One HTML file that needs nothing else.",
        parameters=[named],
        answer=response("The run's report.html.", "text/html", schema={"type": "string"}),
        refusals=("not_found", *_NAMED),
        samples=[curl(f"{about}/report", "-o report.html")],
    )  # fmt: skip


# ---- what others ask ------------------------------------------------------------------------------------------------


def _of_protocol(known: _Known) -> _Told:
    about = {"name": "tenfold", "version": __version__, "extensions": [oip.EXTENSION]}
    yield "GET", "/v2", operation(
        "server", PROTOCOL, "The server",
        answer=response("Its name and extensions.", schema=ref("Server"), example=about),
        samples=[curl("/v2")],
        flat=True,
    )  # fmt: skip
    yield "GET", "/v2/health/live", operation(
        "live", PROTOCOL, "Whether the process runs",
        answer=response("It does.", schema={"type": "object"}, example={"live": True}),
        samples=[curl("/v2/health/live")],
    )  # fmt: skip
    yield "GET", "/v2/health/ready", _probe("ready", PROTOCOL, "/v2/health/ready")
    named = path("name", known.name, "The model's name.")
    version = path("version", known.version, "The version that is served; another is not there.")
    yield from _of_protocols_model(known, "/v2/models/{name}", "", [named])
    yield from _of_protocols_model(known, "/v2/models/{name}/versions/{version}", "OfVersion", [named, version])


def _of_protocols_model(known: _Known, start: str, suffix: str, parameters: Sequence[Part]) -> _Told:
    filled = start.format(name=quote(known.name), version=known.version)
    state = {"name": known.name, "ready": True}
    yield "GET", start, operation(
        f"metadata{suffix}", PROTOCOL, "A model's metadata",
        parameters=parameters,
        answer=response("Its tensors.", schema=ref("Metadata"), example=oip.metadata(known.name, known.card())),
        refusals=_NAMED,
        samples=[curl(filled)],
        flat=True,
    )  # fmt: skip
    yield "GET", f"{start}/ready", operation(
        f"modelReady{suffix}", PROTOCOL, "Whether a model would answer now",
        parameters=parameters,
        answer=response("It would.", schema=ref("ModelReady"), example=state),
        refusals=["unknown_model"],
        unready=response("It would not.", schema={"oneOf": [ref("ModelReady"), ref("FlatError")]},
                         example={**state, "ready": False}),
        samples=[curl(f"{filled}/ready")],
        flat=True,
    )  # fmt: skip
    yield "POST", f"{start}/infer", _infer(known, f"infer{suffix}", f"{filled}/infer", parameters)


def _infer(known: _Known, name: str, address: str, parameters: Sequence[Part]) -> Part:
    size = known.height * known.width * 3
    opening = f'{{"inputs": [{{"name": "pixels", "datatype": "UINT8", "shape": [1, {known.height}, {known.width}, 3], '
    numbers = f"""printf '{opening}"data": [%s]}}]}}' "$(yes 0 | head -n {size} | paste -sd , -)\""""
    before = f'{opening}"parameters": {{"binary_data_size": {size}}}}}]}}'
    count = len(known.classes)
    row = [0.93, *[round(0.07 / max(1, count - 1), 4)] * (count - 1)]
    output = {"name": "probabilities", "datatype": "FP32", "shape": [1, count], "data": row}
    answer = response(
        "Probabilities: JSON, or JSON and bytes where the request asked for bytes.",
        schema=ref("InferAnswer"),
        example={"model_name": known.name, "model_version": known.version, "outputs": [output]},
    )
    answer["content"]["application/octet-stream"] = {
        "schema": {"description": "JSON, and the numbers' bytes behind it."}
    }
    length: Part = {"name": "Inference-Header-Content-Length", "in": "header", "schema": {"type": "integer"},
              "description": "The JSON's length in bytes, where the pixels' bytes follow it."}  # fmt: skip
    return operation(
        name, PROTOCOL, "Probabilities of pixels",
        f"Pixels as the model takes them, {known.height} × {known.width} RGB; nothing is resized. The commands send a "
        "black picture in the place of yours.",
        parameters=[*parameters, length],
        body={
            "application/json": {"schema": ref("InferRequest")},
            "application/octet-stream": {"schema": {"description": "JSON, and the pixels' bytes behind it."}},
        },
        answer=answer,
        refusals=("bad_tensor", "bad_json", "unknown_model", *_BODY),
        samples=[
            piped(address, numbers, label="JSON"),
            piped(address, f"{{ printf '{before}'; head -c {size} /dev/zero; }}", header(length["name"], len(before)),
                  label="Bytes"),
        ],
        flat=True,
    )  # fmt: skip


def _of_clouds(settings: Settings, known: _Known) -> _Told:
    yield "GET", "/ping", _probe("ping", CLOUDS, "/ping")
    yield "POST", "/invocations", _predict(known, "invocations", CLOUDS, "/invocations")
    routes = settings.routes
    if "health" in routes:
        yield "GET", routes["health"], _probe("vertexHealth", CLOUDS, routes["health"])
    if "predict" in routes:
        command = base64('{"instances": [{"b64": "%s"}], "parameters": {"top": 2}}')
        yield "POST", routes["predict"], operation(
            "vertexPredict", CLOUDS, "What is in pictures, as Vertex AI asks", "The first model answers.",
            body={"application/json": {"schema": ref("VertexRequest")}},
            answer=response("An answer for each picture.", schema=ref("VertexAnswer"),
                            example={"predictions": [known.prediction()]}),
            refusals=("bad_json", "bad_base64", "too_many_pictures", "bad_picture", *_BODY),
            samples=[piped(routes["predict"], command, header("Content-Type", "application/json"))],
        )  # fmt: skip


def _probe(name: str, tag: str, address: str) -> Part:
    return operation(
        name, tag, "Whether a request would be answered now",
        answer=response("It would.", schema={"type": "object"}, example={}),
        unready=response("Not yet, or not any more.", schema={"type": "object"}, example={"ready": False}),
        samples=[curl(address)],
    )  # fmt: skip


def _of_pages() -> _Told:
    pages = {
        "/": ("page", "The page that takes pictures", "text/html"),
        "/docs": ("docs", "The API, for people", "text/html"),
        "/openapi.json": ("openapi", "The API, for programs: OpenAPI 3.1", "application/json"),
        "/favicon.ico": ("icon", "The pages' icon", "image/svg+xml"),
    }
    for address, (name, summary, kind) in pages.items():
        answer = response("It.", kind, schema={"type": "object" if kind == "application/json" else "string"})
        yield "GET", address, operation(name, PAGES, summary, answer=answer, samples=[curl(address)])
    yield "GET", "/static/{name}", operation(
        "static", PAGES, "A part of the pages",
        parameters=[path("name", "icon.svg", "The file's name.")],
        answer=response("The file.", "*/*", schema={}),
        refusals=["not_found"],
        samples=[curl("/static/icon.svg")],
    )  # fmt: skip
