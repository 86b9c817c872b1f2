"""What passes over HTTP, in JSON Schema, and every code of a refusal: the parts that ``description`` puts together."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

# Codes of refusals: the status, and when. ``client_gone`` is left out, for nobody is there to read it, and
# ``too_many_connections`` and ``too_many_requests``, whose connections are closed without an answer.
REFUSALS: dict[str, tuple[int, str]] = {
    "bad_request": (400, "A parameter has a value that is not taken."),
    "bad_json": (400, "The body is no JSON, or not the object that is asked for."),
    "bad_multipart": (400, "The form is damaged."),
    "bad_base64": (400, "A picture in JSON is not base64."),
    "no_picture": (400, "There is no picture in the request."),
    "bad_tensor": (400, "The tensor is not what the model takes."),
    "bad_http": (400, "It is no HTTP that can be understood."),
    "too_many_pieces": (400, "The body comes in a great many tiny chunks."),
    "no_key": (401, "The server asks for a key, and the request names none that it knows."),
    "not_found": (404, "There is nothing at this address."),
    "unknown_model": (404, "No model of this name is served, or not in this version."),
    "wrong_method": (405, "The address answers another method; `Allow` says which."),
    "too_slow": (408, "The body did not arrive in time."),
    "too_large": (413, "The body is larger than the server takes."),
    "too_many_pictures": (413, "One request holds more pictures than the server takes."),
    "encoded": (415, "The body has a content encoding, such as gzip."),
    "bad_picture": (422, "The picture can't be read; the sentence says why."),
    "too_many_headers": (431, "The headers are too many, or too large."),
    "failed": (500, "The server failed, which is a bug; its log says where."),
    "no_heat_map": (501, "There are no heat maps for this model."),
    "queue_full": (503, "As many requests are waiting as the server lets wait. `Retry-After` says when to ask again."),
    "no_memory": (503, "The requests under way hold as many bytes as they may. Ask again."),
    "not_ready": (503, "The models are being loaded."),
    "stopping": (503, "The server is being stopped."),
    "worker_lost": (503, "The process that worked on the request ended, twice."),
    "deadline": (504, "There was no answer in time."),
}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _text(about: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": about} if about else {}), **more}


def _number(about: str, **more: Any) -> Schema:
    return {"type": "number", "description": about, **more}


def _whole(about: str, **more: Any) -> Schema:
    return {"type": "integer", "description": about, **more}


def _share(about: str) -> Schema:
    return _number(about, minimum=0, maximum=1)


def _list(of: Schema, about: str = "", **more: Any) -> Schema:
    return {"type": "array", "items": of, **({"description": about} if about else {}), **more}


def _object(about: str = "", optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    required = [name for name in properties if name not in optional]
    told = {"description": about} if about else {}
    return {"type": "object", **told, "properties": properties, "required": required}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


_CLASS = _text("The most probable class, or `unknown` where its probability is below the threshold.")
_UNKNOWN = {"type": "boolean", "description": "Whether the highest probability is below the threshold."}
_TOP = _list(ref("Place"), "The most probable classes, the most probable first; also where the answer is unknown.")
_FILE = _or_null(_text("What the request calls the file; null where it says nothing."))
_PROBABILITY = _share("Of the most probable class, calibrated: of answers with 0.8 about 80 % are right.")
_PREDICTED: dict[str, Schema] = {
    "file": _FILE, "class": _CLASS, "probability": _PROBABILITY, "unknown": _UNKNOWN, "top": _TOP,
}  # fmt: skip
_OPENING: dict[str, Schema] = {
    "model": _text("The model's name."),
    "version": _text("The start of a SHA-256 of the model: another model has another."),
    "request_id": _text("The request's id, also in the header `X-Request-Id` and in the server's log."),
}
_FIGURES = _object(
    "On one split.",
    ("loss", "ece", "tta"),
    accuracy=_share("Images whose most probable class is the true one."),
    n=_whole("Images."),
    loss=_number("Mean −log of the true class's probability."),
    ece=_share("Expected calibration error."),
    tta=_text("Views of an image that the figures are the mean of."),
)

SCHEMAS: dict[str, Schema] = {
    "Place": _object(**{"class": _text(), "probability": _share("Calibrated.")}),
    "Prediction": _object(**_PREDICTED),
    "Unreadable": _object(
        "A picture among several that can't be read.",
        file=_FILE,
        error=_object(code=_text("`bad_picture`"), message=_text("Why, in a sentence.")),
    ),
    "Milliseconds": _object(
        decode=_number("Reading the body and the pictures in it."),
        wait=_number("In the queue."),
        compute=_number("The network, for all requests that shared the call."),
        total=_number("From the request's headers to the answer."),
    ),
    "Answer": _object(
        **_OPENING,
        threshold=_or_null(_share("Below it an answer is unknown; null where the model has none.")),
        ms=ref("Milliseconds"),
        predictions=_list({"oneOf": [ref("Prediction"), ref("Unreadable")]}, "One for each picture, in their order."),
    ),
    "Map": _object(
        height=_whole("Rows."),
        width=_whole("Columns."),
        values=_list(
            _list(_share("")),
            "Rows from the top: 1 is where most speaks for the class, 0 where nothing does.",
        ),
    ),
    "Box": _object(
        "The part of the upright picture that the map covers, as shares of its width and height; beyond 0 to 1 where "
        "the picture was padded.",
        left=_number(""),
        top=_number(""),
        width=_number(""),
        height=_number(""),
    ),
    "Explained": _object(
        **_OPENING,
        ms=ref("Milliseconds"),
        explanation=_object(
            **_PREDICTED,
            of=_text("The class that the map is for."),
            map=ref("Map"),
            scale=_number("What 1 in the map stands for: how much that cell adds to the class's logit."),
            box=ref("Box"),
        ),
    ),
    "Geometry": _object(
        "How a picture becomes the model's pixels.",
        ("interpolation",),
        height=_whole(""),
        width=_whole(""),
        resize=_text("", enum=["squash", "crop", "pad"]),
        background=_list(_whole("", minimum=0, maximum=255), "RGB, laid under transparent pictures."),
        interpolation=_text("`bilinear` where it is not said."),
    ),
    "Model": _object(
        name=_text("What requests call it."),
        run=_text("The name of the run that trained it."),
        version=_OPENING["version"],
        default={"type": "boolean", "description": "Whether it answers requests that name none."},
        classes=_list(_text(), "In the order of the probabilities."),
        geometry=ref("Geometry"),
        threshold=_or_null(_share("Below it an answer is unknown.")),
        explains={"type": "boolean", "description": "Whether there are heat maps for it."},
        report={"type": "boolean", "description": "Whether there is a report of its training."},
        created=_or_null(_text("ISO 8601, in UTC.")),
        network=_or_null(_text()),
        parameters=_or_null(_whole("Of the network.")),
        engine=_or_null(_text("What trained it.")),
        dataset={"type": "object", "description": "`name` and `counts` of what it was trained on."},
        recipe={"type": "object", "description": "Every decision of its training."},
        metrics=_object("Measured when it was trained.", ("test", "val"), test=_FIGURES, val=_FIGURES),
    ),
    "Models": _object(models=_list(ref("Model"))),
    "Picture": _object(image=_text("Base64, also as a data URL.")),
    "Pictures": _object(images=_list(_text("Base64, also as a data URL."), minItems=1)),
    "Form": _object(file=_list({"type": "string", "contentMediaType": "application/octet-stream"})),
    "Error": _object(
        error=_object(
            code=_text("For programs.", enum=list(REFUSALS)),
            message=_text("For people: one sentence."),
            request_id=_OPENING["request_id"],
        )
    ),
    "FlatError": _object(
        "As the Open Inference Protocol has it.",
        error=_text("For people: one sentence."),
        code=_text("For programs.", enum=list(REFUSALS)),
        request_id=_OPENING["request_id"],
    ),
    "VertexRequest": _object(
        "",
        ("parameters",),
        instances=_list(_object(b64=_text("Base64.")), minItems=1),
        parameters=_object(top=_whole("How many classes to give.", minimum=1, maximum=1000, default=3)),
    ),
    "VertexAnswer": _object(predictions=_list({"oneOf": [ref("Prediction"), ref("Unreadable")]})),
    "Server": _object(name=_text(), version=_text("Of tenfold."), extensions=_list(_text())),
    "Tensor": _object(name=_text(), datatype=_text(), shape=_list(_whole("−1 is any."))),
    "Metadata": _object(
        name=_text(),
        versions=_list(_text()),
        platform=_text(),
        inputs=_list(ref("Tensor")),
        outputs=_list(ref("Tensor")),
        parameters=_object(classes=_list(_text(), "In the order of the probabilities.")),
    ),
    "ModelReady": _object(name=_text(), ready={"type": "boolean"}),
    "InferRequest": _object(
        "",
        ("id", "outputs", "parameters"),
        id=_text("Given back."),
        inputs=_list(
            _object(
                "",
                ("data", "parameters"),
                name=_text("`pixels`", enum=["pixels"]),
                datatype=_text("", enum=["UINT8"]),
                shape=_list(_whole(""), "n, height, width, 3.", minItems=4, maxItems=4),
                data=_list({}, "RGB from 0 to 255, rows from the top; flat, or nested as the shape is."),
                parameters=_object(
                    "Of the extension for binary tensors.",
                    binary_data_size=_whole("Bytes that follow the JSON in the place of `data`."),
                ),
            ),
            minItems=1,
            maxItems=1,
        ),
        outputs=_list({"type": "object"}, "`probabilities`, with its `parameters`."),
        parameters={"type": "object", "description": "`binary_data_output`: true asks for bytes."},
    ),
    "InferAnswer": _object(
        "",
        ("id",),
        model_name=_text(),
        model_version=_text(),
        id=_text("The request's."),
        outputs=_list(
            _object(
                "",
                ("data", "parameters"),
                name=_text("`probabilities`"),
                datatype=_text("`FP32`"),
                shape=_list(_whole(""), "n, classes."),
                data=_list({"type": "number"}, "Probabilities, image after image."),
                parameters=_object("Where bytes were asked for.", binary_data_size=_whole("Bytes after the JSON.")),
            )
        ),
    ),
}
