"""How one operation is written down in OpenAPI, and the commands beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tenfold.serving.schemas import REFUSALS, ref

JSON = "application/json"
ORIGIN = "{origin}"  # in commands: the server's address, which whoever shows them knows

Part = dict[str, Any]


def operation(
    name: str, tag: str, summary: str, about: str = "", *, answer: Part, samples: Sequence[Part],
    parameters: Sequence[Part] = (), body: Mapping[str, Part] | None = None, refusals: Iterable[str] = (),
    unready: Part | None = None, flat: bool = False,
) -> Part:  # fmt: skip
    """``body`` by content type, ``refusals`` as codes, ``unready`` the answer 503 where it is no refusal, ``flat``
    whether refusals are as the Open Inference Protocol has them."""
    told: Part = {"operationId": name, "tags": [tag], "summary": summary}
    if about:
        told["description"] = about
    if parameters:
        told["parameters"] = list(parameters)
    if body:
        told["requestBody"] = {"required": True, "content": dict(body)}
    told["responses"] = {"200": answer, **refused(refusals, flat)}
    if unready is not None:
        told["responses"]["503"] = unready
    told["x-codeSamples"] = list(samples)
    return told


def refused(codes: Iterable[str], flat: bool = False) -> dict[str, Part]:
    """Responses by status, with an example for each code."""
    found: dict[str, Part] = {}
    for code in codes:
        status, when = REFUSALS[code]
        told = found.setdefault(str(status), response("", schema=ref("FlatError" if flat else "Error")))
        told["description"] = f"{told['description']} `{code}`: {when}".strip()
        if status == 503:
            told["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        own = {"code": code, "request_id": "5f0c6f5a1b2c3d4e"}
        value = {"error": when, **own} if flat else {"error": {"message": when, **own}}
        told["content"][JSON].setdefault("examples", {})[code] = {"summary": when, "value": value}
    return found


def response(about: str, kind: str = JSON, *, schema: Part, example: Any = None, **examples: Any) -> Part:
    """One ``example``, or several by their names."""
    content: Part = {"schema": schema}
    if example is not None:
        content["example"] = example
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"description": about, "content": {kind: content}}


# ---- parameters ------------------------------------------------------------------------------------------------------


def query(name: str, about: str, **schema: Any) -> Part:
    return {"name": name, "in": "query", "description": about, "schema": schema}


def path(name: str, example: str, about: str) -> Part:
    told = {"name": name, "in": "path", "required": True, "description": about}
    return {**told, "schema": {"type": "string"}, "example": example}


# ---- commands --------------------------------------------------------------------------------------------------------


def curl(address: str, *options: str, label: str = "") -> Part:
    """``address`` is quoted for an URL already, and ``options`` for a shell."""
    return _sample(label, " ".join(["curl", *options, f'"{ORIGIN}{address}"']))


def piped(address: str, command: str, *options: str, label: str = "") -> Part:
    """What ``command`` writes is the request's body."""
    return _sample(label, " ".join([command, "|\n  curl", *options, f'--data-binary @- "{ORIGIN}{address}"']))


def base64(template: str) -> str:
    """The command that writes JSON with the picture's base64 in the place of ``%s``."""
    return f"""printf '{template}' "$(base64 < photo.jpg | tr -d '\\n')\""""


def header(name: str, value: object) -> str:
    return f'-H "{name}: {value}"'


def _sample(label: str, source: str) -> Part:
    return {"lang": "Shell", "label": label, "source": source}
