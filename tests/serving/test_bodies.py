from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_client import b64, form

from tenfold.serving import bodies
from tenfold.serving.refusal import Refusal

FORM = "multipart/form-data; boundary=frontier"


def test_raw() -> None:
    for kind in ("", "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "nonsense"):
        assert bodies.pictures(kind, b"\xff\xd8\xff", 4) == [bodies.Picture(None, b"\xff\xd8\xff")]


@given(st.lists(st.tuples(st.none() | st.text("abcä é.", min_size=1, max_size=9), st.binary(max_size=300)), min_size=1))
@settings(max_examples=60)
def test_a_form_gives_its_files_back(files: list[tuple[str | None, bytes]]) -> None:
    body, headers = form(*files)
    found = bodies.pictures(headers["Content-Type"], body, len(files))
    assert [(p.name, p.data) for p in found] == files


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_no_bytes_break_it(body: bytes) -> None:
    for kind in (FORM, "application/json", "image/png", "multipart/form-data; boundary=\x00", "application/x+json"):
        for data in (body, b"--frontier\r\n" + body, b"{" + body):
            try:
                found = bodies.pictures(kind, data, 4)
            except Refusal as refusal:
                assert 400 <= refusal.status < 500 and refusal.message.endswith(".")
            else:
                assert 1 <= len(found) <= 4


def test_parts_that_are_no_files_are_passed_over() -> None:
    body = (
        b'--frontier\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--frontier\r\nContent-Disposition: form-data; name="upload"; filename="a.png"\r\nContent-Type: image/png\r\n'
        b"\r\nDATA\r\n--frontier--\r\nepilogue"
    )
    assert bodies.pictures(FORM, body, 4) == [bodies.Picture("a.png", b"DATA")]


def test_names_are_cut_and_harmless() -> None:
    body, headers = form(("x" * 1000, b"1"))
    [found] = bodies.pictures(headers["Content-Type"], body, 1)
    assert found.name == "x" * bodies.MAX_NAME


def test_json_takes_base64_and_data_urls() -> None:
    urls = [b64(b"one"), f"data:image/png;base64,{b64(b'two')}"]
    found = bodies.pictures("application/json; charset=utf-8", json.dumps({"images": urls}).encode(), 2)
    assert [p.data for p in found] == [b"one", b"two"]
    with pytest.raises(Refusal, match="at most 1"):
        bodies.pictures("application/json", json.dumps({"images": urls}).encode(), 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"image": NaN}',
        '{"image": 1e999}',
        '{"a": {}, "a": {}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"image": "\\ud800"}',
    ],
)
def test_json_is_read_strictly(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        bodies.pictures("application/json", text.encode(), 1)
    assert refused.value.code in ("bad_json", "bad_base64")
