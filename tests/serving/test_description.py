"""The API's description: every route and nothing else, every code of a refusal, and examples that are true."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_client import Server, form, png
from starlette.routing import Route

from tenfold.serving import description
from tenfold.serving.app import build
from tenfold.serving.schemas import REFUSALS
from tenfold.serving.service import Service
from tenfold.serving.settings import Models, Settings

SOURCE = Path(description.__file__).parent
CARDS: dict[str, dict[str, Any]] = {
    "it's": {
        "version": "0123456789ab",
        "classes": ['a "b" $(c)', "é/ü"],
        "geometry": {"height": 8, "width": 9},
        "threshold": None,
    }
}


def settings(tmp_path: Path, keyed: bool = False) -> Settings:
    """With addresses of a cloud's own."""
    (tmp_path / "keys").write_text("0123456789abcdef\n")
    clouds = {"health": "/health", "predict": "/cloud/predict"}
    return Settings(Models({"it": tmp_path}), key_file=tmp_path / "keys" if keyed else None, routes=clouds)


def described(tmp_path: Path, keyed: bool = False) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(description.openapi(settings(tmp_path, keyed), CARDS)))
    return value


def operations(api: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in api["paths"].items():
        for method, operation in found.items():
            yield method.upper(), path, operation


def routes(tmp_path: Path) -> set[tuple[str, str]]:
    router = build(Service(settings(tmp_path))).app
    found = set()
    for route in router.routes:
        assert isinstance(route, Route)
        found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    return found


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    told = {(method, path) for method, path, _ in operations(described(tmp_path))}
    assert told == routes(tmp_path)


def test_every_refusal_is_described_with_its_status() -> None:
    """Wherever the server refuses: ``Refusal(503, "queue_full", …)``, and the connection's own ``_refuse``."""
    found = set()
    for file in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            status, code = node.args[:2]
            if isinstance(status, ast.Constant) and isinstance(code, ast.Constant) and isinstance(status.value, int):
                found.add((status.value, code.value))
    found = {(status, code) for status, code in found if 400 <= status < 600 and isinstance(code, str)}
    assert {(400, "bad_request"), (401, "no_key"), (405, "wrong_method"), (431, "too_many_headers")} <= found
    assert found - {(499, "client_gone")} <= {(status, code) for code, (status, _) in REFUSALS.items()}
    listed = set(re.findall(r"\b[a-z]+_[a-z_0-9]+\b|\bencoded|\bfailed|\bdeadline|\bstopping", _table()))
    assert set(REFUSALS) == listed - {"client_gone", "too_many_connections", "too_many_requests"}


def _table() -> str:
    """The codes in the docstring of ``refusal``."""
    text = ast.get_docstring(ast.parse((SOURCE / "refusal.py").read_text(encoding="utf-8")))
    assert text
    return text.partition("\n\n")[2]


@pytest.mark.parametrize("keyed", [False, True])
def test_it_is_whole(tmp_path: Path, keyed: bool) -> None:
    api = described(tmp_path, keyed)
    assert api["openapi"] == "3.1.0" and set(api) <= {
        "openapi", "info", "tags", "paths", "components", "security", "x-refusals",
    }  # fmt: skip
    schemas = api["components"]["schemas"]
    assert set(_references(api)) == {f"#/components/schemas/{name}" for name in schemas}
    names = [operation["operationId"] for _, _, operation in operations(api)]
    assert len(names) == len(set(names))
    tags = [tag["name"] for tag in api["tags"]]
    assert {tag for _, _, operation in operations(api) for tag in operation["tags"]} == set(tags)
    for method, path, operation in operations(api):
        named = [own["name"] for own in operation.get("parameters", []) if own["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", path)
        assert all(own["required"] for own in operation.get("parameters", []) if own["in"] == "path")
        assert ("requestBody" in operation) == (method == "POST")
        assert operation["summary"] and operation["x-codeSamples"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status) and response["description"] and response["content"]
            for code in response["content"].get("application/json", {}).get("examples", {}):
                assert code not in REFUSALS or REFUSALS[code][0] == int(status)


def test_a_key_is_asked_where_the_gate_asks_for_one(tmp_path: Path) -> None:
    api = described(tmp_path, keyed=True)
    service = Service(settings(tmp_path, keyed=True))
    gate = build(service)
    for _, path, operation in operations(api):
        is_open = path in gate.open or path.startswith("/static/")
        assert ("401" not in operation["responses"]) == is_open == (operation.get("security") == [])
        [text] = {description.KEY in sample["source"] for sample in operation["x-codeSamples"]}
        assert text != is_open
    assert "401" not in json.dumps(described(tmp_path)["paths"])


def test_examples_are_what_the_schemas_say(tmp_path: Path) -> None:
    api = described(tmp_path)
    count = 0
    for _, _, operation in operations(api):
        for response in operation["responses"].values():
            for content in response["content"].values():
                several = [own["value"] for own in content.get("examples", {}).values()]
                for value in [content["example"]] if "example" in content else several:
                    conform(content["schema"], value, api)
                    count += 1
    assert count > 60


def test_real_answers_are_what_the_schemas_say(server: Server) -> None:
    api = server.get("/openapi.json").json
    files, headers = form(("a.png", png()), ("b.png", b"none"))
    [name] = server.models
    infer = {"name": "pixels", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [7] * 192}
    asked: list[tuple[str, str, str, bytes | None, dict[str, str]]] = [
        ("POST", "/predict", "/predict", png(), {}),
        ("POST", "/predict", "/predict", files, headers),
        ("POST", "/predict", "/predict", b"none", {}),
        ("POST", "/predict", "/predict?top=none", png(), {}),
        ("POST", "/explain", "/explain", png(), {}),
        ("GET", "/models", "/models", None, {}),
        ("GET", "/models/{name}", f"/models/{name}", None, {}),
        ("GET", "/models/{name}", "/models/nobody", None, {}),
        ("GET", "/v2", "/v2", None, {}),
        ("GET", "/v2/models/{name}", f"/v2/models/{name}", None, {}),
        ("GET", "/v2/models/{name}", "/v2/models/nobody", None, {}),
        ("GET", "/v2/models/{name}/ready", f"/v2/models/{name}/ready", None, {}),
        ("POST", "/v2/models/{name}/infer", f"/v2/models/{name}/infer", json.dumps({"inputs": [infer]}).encode(), {}),
        ("POST", "/v2/models/{name}/infer", f"/v2/models/{name}/infer", b"{}", {}),
    ]
    for method, path, address, body, sent in asked:
        reply = server.ask(method, address, body, sent)
        response = api["paths"][path][method.lower()]["responses"][str(reply.status)]
        conform(response["content"]["application/json"]["schema"], reply.json, api)
        if reply.status >= 400:
            assert reply.code in response["content"]["application/json"]["examples"]


# ---- JSON Schema, as much of it as is used ---------------------------------------------------------------------------

_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip
_KEYS = {
    "type", "description", "properties", "required", "items", "oneOf", "enum", "minimum", "maximum", "minItems",
    "maxItems", "default", "contentMediaType",
}  # fmt: skip


def conform(schema: dict[str, Any], value: Any, api: dict[str, Any], where: str = "") -> None:
    """Stricter than JSON Schema: an object with properties has no others."""
    if "$ref" in schema:
        conform(api["components"]["schemas"][schema["$ref"].rpartition("/")[2]], value, api, where)
        return
    assert set(schema) <= _KEYS, where
    if "oneOf" in schema:
        assert sum(_fits(own, value, api) for own in schema["oneOf"]) == 1, where
        return
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    fits = [isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds]
    assert any(fits) or not kinds, f"{where}: {value!r} is not {kinds}"
    assert "enum" not in schema or value in schema["enum"], where
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), where
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema.get("required", ())) <= set(value) <= set(schema["properties"]), (where, set(value))
        for name, own in value.items():
            conform(schema["properties"][name], own, api, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), where
        for i, own in enumerate(value):
            conform(schema["items"], own, api, f"{where}[{i}]")


def _fits(schema: dict[str, Any], value: Any, api: dict[str, Any]) -> bool:
    try:
        conform(schema, value, api)
    except AssertionError:
        return False
    return True


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for own in value.values():
            yield from _references(own)
    elif isinstance(value, list):
        for own in value:
            yield from _references(own)


def test_commands_survive_names_of_any_kind(tmp_path: Path) -> None:
    """Classes and models are quoted for an URL in double quotes, in which a shell sees no sign of its own."""
    for _, _, operation in operations(described(tmp_path)):
        for sample in operation["x-codeSamples"]:
            address = re.findall(r'"{origin}([^"]*)"', sample["source"])
            assert len(address) == 1 and not set(address[0]) & set("$`\\'\" é"), sample["source"]
