"""The API of a real server, as clients see it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_client import Server, b64, form, png, serving

import tenfold
from tenfold.bundle import store
from tenfold.predict import Model


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Model:
    return tenfold.load(tiny_bundle, threads=1)


def same(told: dict[str, Any], model: Model, picture: bytes, top: int = 3) -> None:
    """What a server says of a picture is what ``tenfold predict`` says of it."""
    wanted = model.predict(picture, top)
    assert [pair["class"] for pair in told["top"]] == [name for name, _ in wanted.top]
    np.testing.assert_allclose([pair["probability"] for pair in told["top"]], [p for _, p in wanted.top], atol=1e-5)
    assert told["probability"] == told["top"][0]["probability"]
    assert told["unknown"] == wanted.unknown
    assert told["class"] == ("unknown" if wanted.unknown else wanted.label)


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "image/png", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_the_body_is_a_picture(server: Server, model: Model, kind: str | None) -> None:
    for seed in range(6):
        reply = server.post("/predict", png(seed), {"Content-Type": kind} if kind else {})
        assert reply.status == 200 and reply.headers["content-type"] == "application/json"
        found = reply.json
        assert found["model"] == "tiny-run" and re.fullmatch("[0-9a-f]{12}", found["version"])
        assert found["request_id"] == reply.headers["x-request-id"] and found["threshold"] == 0.56
        assert set(found["ms"]) == {"decode", "wait", "compute", "total"} and min(found["ms"].values()) >= 0
        assert found["ms"]["total"] >= found["ms"]["decode"] + found["ms"]["compute"]
        [told] = found["predictions"]
        assert told["file"] is None
        same(told, model, png(seed))


def test_some_are_unknown_and_some_are_not(server: Server) -> None:
    told = [server.post("/predict", png(seed)).json["predictions"][0] for seed in range(12)]
    assert {t["unknown"] for t in told} == {True, False}
    assert all(t["unknown"] == (t["probability"] < 0.56) for t in told)


def test_a_form_of_one_or_several_files(server: Server, model: Model) -> None:
    names = ["cat.jpg", "ünï cödé.png", None, 'a "quoted".png'.replace('"', "")]
    body, headers = form(*[(name, png(i)) for i, name in enumerate(names)])
    found = server.post("/predict?top=2", body, headers).json["predictions"]
    assert [told["file"] for told in found] == names
    for i, told in enumerate(found):
        same(told, model, png(i), 2)


def test_json_of_one_or_several_pictures(server: Server, model: Model) -> None:
    one = server.post("/predict", json.dumps({"image": b64(png(1))}).encode(), {"Content-Type": "application/json"})
    same(one.json["predictions"][0], model, png(1))
    url = "data:image/png;base64," + b64(png(2))
    several = server.post("/predict", json.dumps({"images": [b64(png(1)), url]}).encode())  # told by its brace
    for told, seed in zip(several.json["predictions"], (1, 2), strict=True):
        same(told, model, png(seed))


def test_one_unreadable_picture_of_several_is_told_beside_the_others(server: Server, model: Model) -> None:
    body, headers = form(("a.png", png(1)), ("b.png", png(2)[:60]), ("c.png", png(3)))
    reply = server.post("/predict", body, headers)
    first, broken, last = reply.json["predictions"]
    assert reply.status == 200 and broken["file"] == "b.png" and "class" not in broken
    assert broken["error"]["code"] == "bad_picture" and "cut short" in broken["error"]["message"]
    same(first, model, png(1))
    same(last, model, png(3))
    body, headers = form(("a", b"x"), ("b", b""))
    reply = server.post("/predict", body, headers)
    assert reply.status == 422 and reply.code == "bad_picture"


def test_top(server: Server) -> None:
    for top, count in (("1", 1), ("2", 2), ("999", 3)):
        told = server.post(f"/predict?top={top}", png()).json["predictions"][0]
        assert len(told["top"]) == count
    for odd in ("0", "-1", "1.5", "x", "1001", "99999999999999", "٣", ""):
        from urllib.parse import quote

        reply = server.post(f"/predict?top={quote(odd)}", png())
        assert (reply.status, reply.code) == (400, "bad_request"), odd


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", {}, 400, "no_picture"),
        (b"hello", {}, 422, "bad_picture"),
        (b"{", {}, 400, "bad_json"),
        (b'{"pictures": []}', {}, 400, "bad_json"),
        (b'{"images": []}', {}, 400, "no_picture"),
        (b'{"images": "x"}', {}, 400, "bad_json"),
        (b'{"image": "?"}', {}, 400, "bad_base64"),
        (b'{"image": 5}', {}, 400, "bad_base64"),
        (b"[]", {"Content-Type": "application/json"}, 400, "bad_json"),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "bad_multipart"),
        (b"--a\r\n", {"Content-Type": "multipart/form-data; boundary=a"}, 400, "bad_multipart"),
        (b"x", {"Content-Encoding": "gzip"}, 415, "encoded"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(
    server: Server, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    reply = server.post("/predict", body, headers)
    assert (reply.status, reply.code) == (status, code)
    error = reply.json["error"]
    assert error["message"][0].isupper() or error["message"][0] == '"', error
    assert error["message"].endswith(".") and error["request_id"] == reply.headers["x-request-id"]


def test_a_form_without_files_says_how_it_is_done(server: Server) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="picture"\r\n\r\nhello\r\n--b--\r\n'
    reply = server.post("/predict", body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert reply.code == "no_picture" and "curl -F file=@cat.jpg" in reply.json["error"]["message"]


def test_too_many_pictures(server: Server) -> None:
    body, headers = form(*[(f"{i}.png", png()) for i in range(65)])
    reply = server.post("/predict", body, headers)
    assert (reply.status, reply.code) == (413, "too_many_pictures")


def test_a_client_names_its_request(server: Server) -> None:
    reply = server.post("/predict", png(), {"X-Request-ID": "mine-1.2_3"})
    assert reply.headers["x-request-id"] == reply.json["request_id"] == "mine-1.2_3"
    for odd in ("a b", "x" * 65, "<script>", "ä"):
        reply = server.post("/predict", png(), {"X-Request-ID": odd.encode().decode("latin-1")})
        assert re.fullmatch("[0-9a-f]{16}", reply.headers["x-request-id"])


# ---- what there is --------------------------------------------------------------------------------------------------


def test_the_models_card(server: Server, tiny_bundle: Path) -> None:
    [card] = server.get("/models").json["models"]
    assert server.get("/models/tiny-run").json == card
    manifest = store.open(tiny_bundle).manifest
    assert (card["name"], card["default"], card["report"]) == ("tiny-run", True, True)
    assert card["classes"] == list(manifest.classes) and card["threshold"] == manifest.threshold
    assert card["parameters"] == manifest.parameters and card["metrics"] == manifest.metrics
    assert str(tiny_bundle.parent) not in json.dumps(card)
    report = server.get("/models/tiny-run/report")
    assert report.status == 200 and b"report" in report.body and "sandbox" in report.headers["content-security-policy"]
    assert server.get("/models/other").code == "unknown_model"
    assert server.post("/predict?model=other", png()).code == "unknown_model"


def test_health_and_ping(server: Server) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/v2/models/tiny-run/ready"):
        assert server.get(path).status == 200, path
        assert server.ask("HEAD", path).body == b""


def test_metrics_count_what_was_asked(server: Server) -> None:
    before = server.figure("tenfold_requests_total", route="/predict", status="200", model="tiny-run")
    pictures = server.figure("tenfold_pictures_total")
    timed = server.figure("tenfold_stage_seconds_count", stage="compute")
    for seed in range(5):
        assert server.post("/predict", png(seed)).status == 200
    body, headers = form(("a", png()), ("b", b"broken"))
    assert server.post("/predict", body, headers).status == 200
    assert server.figure("tenfold_requests_total", route="/predict", status="200", model="tiny-run") == before + 6
    assert server.figure("tenfold_pictures_total") == pictures + 7
    assert server.figure("tenfold_pictures_total", outcome="unreadable") >= 1
    assert server.figure("tenfold_stage_seconds_count", stage="compute") == timed + 6
    assert server.figure("tenfold_workers") == 2 and server.figure("tenfold_queue_depth") == 0
    assert server.figure("tenfold_queue_bytes") == 0 and server.figure("tenfold_connections") >= 1
    version = server.models["tiny-run"]
    assert server.figure("tenfold_model_info", model="tiny-run", version=version) == 1
    parsed = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families(
        server.get("/metrics").body.decode()
    )
    assert {"tenfold_requests", "tenfold_request_seconds", "process_resident_memory_bytes"} <= {f.name for f in parsed}


# ---- the Open Inference Protocol ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (4, 8, 8, 3), np.uint8)


def test_inference_protocol_by_hand(server: Server, model: Model, pixels: np.ndarray) -> None:
    assert server.get("/v2").json == {
        "name": "tenfold",
        "version": tenfold.__version__,
        "extensions": ["binary_tensor_data"],
    }
    version = server.models["tiny-run"]
    for path in ("/v2/models/tiny-run", f"/v2/models/tiny-run/versions/{version}"):
        told = server.get(path).json
        assert told["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}]
        assert told["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}]
        for data in (pixels.tolist(), pixels.ravel().tolist()):
            tensor = {"name": "pixels", "shape": [4, 8, 8, 3], "datatype": "UINT8", "data": data}
            reply = server.post(f"{path}/infer", json.dumps({"id": "7", "inputs": [tensor]}).encode())
            found = reply.json
            assert (found["model_name"], found["model_version"], found["id"]) == ("tiny-run", version, "7")
            [output] = found["outputs"]
            assert (output["name"], output["datatype"], output["shape"]) == ("probabilities", "FP32", [4, 3])
            np.testing.assert_allclose(output["data"], model.probabilities(pixels).ravel(), atol=1e-5)
    other = server.get("/v2/models/tiny-run/versions/1")
    assert other.status == 404 and isinstance(other.json["error"], str)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_somebody_elses_client_of_the_inference_protocol(
    server: Server, model: Model, pixels: np.ndarray, binary_in: bool, binary_out: bool
) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
    try:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny-run")
        assert client.get_server_metadata()["name"] == "tenfold"
        assert client.get_model_metadata("tiny-run")["inputs"][0]["shape"] == [-1, 8, 8, 3]
        given = triton.InferInput("pixels", list(pixels.shape), "UINT8")
        given.set_data_from_numpy(pixels, binary_data=binary_in)
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
        answer = client.infer("tiny-run", [given], outputs=wanted, request_id="abc")
        np.testing.assert_allclose(answer.as_numpy("probabilities"), model.probabilities(pixels), atol=1e-5)
        assert answer.get_response()["id"] == "abc"
        with pytest.raises(triton.InferenceServerException, match="No model is called 'other'"):
            client.get_model_metadata("other")
    finally:
        client.close()


# ---- the clouds -----------------------------------------------------------------------------------------------------


def test_sagemakers_contract(server: Server, model: Model) -> None:
    assert server.get("/ping").status == 200
    for kind in ("application/x-image", "image/png"):
        reply = server.post("/invocations", png(3), {"Content-Type": kind})
        same(reply.json["predictions"][0], model, png(3))


@pytest.fixture(scope="module")
def vertex(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {"AIP_HEALTH_ROUTE": "/alive", "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict"}
    with serving(tiny_bundle, "--workers", "1", folder=tmp_path_factory.mktemp("vertex"), **env) as running:
        yield running


def test_vertex_ais_contract(vertex: Server, model: Model) -> None:
    assert vertex.get("/alive").status == 200
    path = "/v1/endpoints/1/deployedModels/2:predict"
    body = {"instances": [{"b64": b64(png(1))}, {"b64": b64(png(2))}], "parameters": {"top": 2}}
    reply = vertex.post(path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert list(reply.json) == ["predictions"]
    for told, seed in zip(reply.json["predictions"], (1, 2), strict=True):
        same(told, model, png(seed), 2)
    for odd in ({}, {"instances": []}, {"instances": [5]}, {"instances": [{}]}, {"instances": "x"}):
        assert vertex.post(path, json.dumps(odd).encode()).status == 400
    odd = {"instances": [{"b64": b64(png(1))}], "parameters": {"top": 0}}
    assert vertex.post(path, json.dumps(odd).encode()).code == "bad_json"


# ---- an engine -----------------------------------------------------------------------------------------------------


def test_an_engine_computes_what_others_decode(tiny_bundle: Path, model: Model, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    with serving(tiny_bundle, "--runtime", "torch", "--workers", "2", folder=tmp_path) as running:
        assert len(running.workers()) == 3, "two decode, one computes"
        body, headers = form(*[(f"{i}", png(i)) for i in range(5)])
        found = running.post("/predict", body, headers).json
        for i, told in enumerate(found["predictions"]):
            same(told, model, png(i))
        assert set(found["ms"]) == {"decode", "wait", "compute", "total"}
        assert running.post("/predict", b"broken").code == "bad_picture"


# ---- several models, keys, origins ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(
    tiny_bundle: Path, bundle_content: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("guarded")
    other = store.write(folder / "b" / "model", bundle_content(classes=5, seed=8)).path.parent
    keys = folder / "keys"
    keys.write_text("# ours\nfirst-key-of-sixteen\nsecond-key-of-sixteen\n")
    options = ("--api-key-file", keys, "--cors", "https://example.org", "--workers", "1", "--threshold", "0")
    with serving(f"A={tiny_bundle}", f"B={other}", *options, folder=folder) as running:
        yield running, other


def test_several_models(guarded: tuple[Server, Path], model: Model) -> None:
    server, other = guarded
    key = {"X-API-Key": "first-key-of-sixteen"}
    assert list(server.models) == ["A", "B"]
    second = tenfold.load(other, threads=1)
    for name, one in (("A", model), ("B", second), (None, model)):
        found = server.post("/predict" + (f"?model={name}" if name else ""), png(2), key).json
        assert found["model"] == (name or "A")
        wanted = one.predict(png(2))
        assert [pair["class"] for pair in found["predictions"][0]["top"]] == [n for n, _ in wanted.top]
        assert not found["predictions"][0]["unknown"], "--threshold 0 leaves nothing unknown"
    cards = server.ask("GET", "/models", headers=key).json["models"]
    assert [(c["name"], c["default"], len(c["classes"]), c["threshold"]) for c in cards] == [
        ("A", True, 3, 0.0),
        ("B", False, 5, 0.0),
    ]
    assert cards[0]["version"] != cards[1]["version"]


def test_a_key_is_asked_for(guarded: tuple[Server, Path]) -> None:
    server, _ = guarded
    for headers in (
        {},
        {"X-API-Key": "wrong"},
        {"Authorization": "Bearer x"},
        {"Authorization": "first-key-of-sixteen"},
    ):
        reply = server.post("/predict", png(), headers)
        assert (reply.status, reply.code) == (401, "no_key") and reply.headers["www-authenticate"] == "Bearer"
    for headers in ({"X-API-Key": "second-key-of-sixteen"}, {"Authorization": "Bearer first-key-of-sixteen"}):
        assert server.post("/predict", png(), headers).status == 200
    for path in ("/models", "/metrics", "/v2", "/v2/models/A", "/models/A/report", "/nowhere"):
        assert server.get(path).status == 401, path
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/openapi.json"):
        assert server.get(path).status == 200, path


def test_pages_elsewhere_may_ask_where_they_are_listed(guarded: tuple[Server, Path], server: Server) -> None:
    guarded_server, _ = guarded
    ours, theirs = {"Origin": "https://example.org"}, {"Origin": "https://evil.example"}
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    allowed = guarded_server.ask("OPTIONS", "/predict", headers={**ours, **asking})
    assert allowed.status == 200 and allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert (
        "access-control-allow-origin"
        not in guarded_server.ask("OPTIONS", "/predict", headers={**theirs, **asking}).headers
    )
    key = {"X-API-Key": "first-key-of-sixteen"}
    reply = guarded_server.post("/predict", png(), {**ours, **key})
    assert reply.headers["access-control-allow-origin"] == "https://example.org"
    refused = guarded_server.post("/predict", png(), ours)  # a refusal is told to the page, too
    assert refused.status == 401 and refused.headers["access-control-allow-origin"] == "https://example.org"
    assert "access-control-allow-origin" not in server.post("/predict", png(), ours).headers
