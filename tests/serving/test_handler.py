"""What a worker makes of jobs, without a process: by itself, and parted into decoding and computing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_client import b64, form, png

import tenfold
from tenfold.serving.handler import Handler


def handler(path: Path, role: str = "both", **changes: Any) -> Handler:
    spec = {
        "role": role,
        "paths": {"m": str(path)},
        "runtime": "onnxruntime",
        "device": "auto",
        "threads": 1,
        "threshold": None,
        "max_pixels": 10**6,
        "max_parts": 8,
    }
    return Handler.start({**spec, **changes})


def ask(one: Handler, *jobs: tuple[dict[str, Any], bytes]) -> list[tuple[dict[str, Any], bytes]]:
    heads = [{"model": "m", "top": 3, "type": "", "header": None, **head, "size": len(body)} for head, body in jobs]
    told, parts = one.answer({"id": 1, "jobs": heads}, memoryview(b"".join(body for _, body in jobs)))
    assert [head["size"] for head in told] == [len(part) for part in parts]
    return list(zip(told, parts, strict=True))


def jobs() -> list[tuple[dict[str, Any], bytes]]:
    body, headers = form(("a", png(1)), ("b", b"broken"), (None, png(2)))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    tensor = {"name": "pixels", "shape": [3, 8, 8, 3], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    return [
        ({"op": "classify"}, png(0)),
        ({"op": "classify", "type": headers["Content-Type"], "top": 2}, body),
        ({"op": "classify"}, b"no picture"),
        ({"op": "vertex"}, json.dumps({"instances": [b64(png(3))], "parameters": {"top": 1}}).encode()),
        ({"op": "infer"}, json.dumps({"inputs": [tensor], "id": "9"}).encode()),
        ({"op": "infer"}, b"{}"),
    ]


def test_jobs_that_come_together_are_answered_as_if_alone(tiny_bundle: Path) -> None:
    one = handler(tiny_bundle)
    together = ask(one, *jobs())
    for job, (head, body) in zip(jobs(), together, strict=True):
        [(alone, answer)] = ask(one, job)
        assert {k: v for k, v in alone.items() if k not in ("ms", "began")} == {
            k: v for k, v in head.items() if k not in ("ms", "began")
        }
        _close(answer, body)
    model = tenfold.load(tiny_bundle, threads=1)
    first = json.loads(together[0][1])
    assert first[0]["top"][0]["probability"] == pytest.approx(model.predict(png(0)).probability, abs=1e-6)
    assert [head.get("pictures") for head, _ in together] == [1, 2, None, 1, 3, None]
    assert together[1][0]["failed"] == 1
    assert [head["error"]["code"] for head, _ in together if "error" in head] == ["bad_picture", "bad_tensor"]


def test_parted_into_decoding_and_computing_the_answers_are_the_same(tiny_bundle: Path) -> None:
    whole, decoder, computer = (handler(tiny_bundle, role) for role in ("both", "decode", "compute"))
    assert "runtime" not in decoder.models["m"].__dict__, "nothing to compute with was started"
    for job, (wanted, answer) in zip(jobs(), ask(whole, *jobs()), strict=True):
        [(first, pixels)] = ask(decoder, ({**job[0], "op": "decode", "form": job[0]["op"]}, job[1]))
        if "error" in wanted:
            assert first["error"] == wanted["error"]
            continue
        [(second, body)] = ask(computer, ({**first["task"], "op": "compute"}, pixels))
        assert {k: second.get(k) for k in ("version", "pictures", "unknown", "failed")} == {
            k: wanted.get(k) for k in ("version", "pictures", "unknown", "failed")
        }
        _close(body, answer)


def _close(one: bytes, other: bytes) -> None:
    """Equal JSON, its probabilities but for the last digits: a batch of another size sums in another order."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 5)
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        return [rounded(v) for v in value] if isinstance(value, list) else value

    assert rounded(json.loads(one or b"null")) == rounded(json.loads(other or b"null"))


def test_limits_are_a_jobs_refusal_and_nobody_elses(tiny_bundle: Path) -> None:
    one = handler(tiny_bundle, max_pixels=100)
    (head, _), (other, _) = ask(one, ({"op": "classify"}, png(0, (11, 10))), ({"op": "classify"}, png(0, (10, 10))))
    assert head["error"]["status"] == 422 and "0.0001 megapixels" in head["error"]["message"]
    assert "error" not in other


def test_a_card_tells_no_path(tiny_bundle: Path, bundle_content: Any, tmp_path: Path) -> None:
    from tenfold.bundle import store

    recipe = {"model": {"name": "x", "pretrained_file": "/home/me/w.safetensors"}, "epochs": 1}
    dataset = {"name": "pictures", "source": "/home/me/pictures", "counts": {"train": 3}}
    path = store.write(tmp_path / "model", bundle_content(provenance={"recipe": recipe, "dataset": dataset})).path
    card = handler(path).cards["m"]
    assert "/home" not in json.dumps(card)
    assert card["recipe"] == {"model": {"name": "x"}, "epochs": 1} and card["dataset"]["name"] == "pictures"


def test_a_model_alone_is_served_with_what_it_says_of_itself(tiny_bundle: Path) -> None:
    one = handler(tiny_bundle / "model" / "model.onnx")
    card = one.cards["m"]
    assert card["name"] == "tiny-run" and len(card["version"]) == 12 and card["metrics"] == {}
    [(head, body)] = ask(one, ({"op": "classify"}, png(0)))
    assert head["version"] == card["version"] and json.loads(body)[0]["class"]


def test_a_heat_map_is_what_the_model_explains(tiny_bundle: Path) -> None:
    one = handler(tiny_bundle)
    model = tenfold.load(tiny_bundle, threads=1)
    assert one.cards["m"]["explains"] is True
    for cls in (None, "class 2"):
        [(head, body)] = ask(one, ({"op": "explain", "class": cls}, png(4)))
        found, wanted = json.loads(body), model.explain(png(4), cls)
        assert head["pictures"] == 1 and found["of"] == wanted.label == (cls or model.predict(png(4)).label)
        told = wanted.to_dict()
        np.testing.assert_allclose(found["map"].pop("values"), told["map"].pop("values"), atol=1e-4)
        assert found["map"] == told["map"] and found["box"] == told["box"]
        assert [pair["class"] for pair in found["top"]] == [name for name, _ in model.predict(png(4)).top]
    body, headers = form(("a", png(1)), ("b", png(2)))
    (broken, _), (two, _) = ask(
        one,
        ({"op": "explain", "class": None}, b"x"),
        ({"op": "explain", "class": None, "type": headers["Content-Type"]}, body),
    )
    assert (broken["error"]["code"], two["error"]["code"]) == ("bad_picture", "too_many_pictures")
