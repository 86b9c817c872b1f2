"""A manifest by a stranger: whatever stands in it, only a BundleError comes out."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenfold.bundle import fields, manifest, store
from tenfold.bundle.manifest import parse, seal
from tenfold.errors import BundleError


@pytest.fixture(scope="module")
def sound(bundle_content: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sound manifest in plain JSON, without its checksum."""
    folder = store.write(tmp_path_factory.mktemp("bundle") / "model", bundle_content()).path
    value = json.loads((folder / "manifest.json").read_bytes())
    del value["checksum"]
    return value


def read(value: Any) -> manifest.Manifest:
    """All that is checked of a manifest, its seal being right."""
    found = parse(seal(value).encode())
    assert found.architecture
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: dict[str, Any], path: tuple[Any, ...], to: Any) -> dict[str, Any]:
    out = copy.deepcopy(value)
    at = out
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return out


ODD: list[Any] = [
    None, True, False, -1, 0, 10**9, 2**70, 1e300, -0.5, "", "x", "../x", "x" * 5000, "\0", [], {}, [[]], [None],
    {"kind": "conv"}, ["a"] * 3, {"a": {"b": []}},
]  # fmt: skip


def test_round_trip(sound: dict[str, Any]) -> None:
    found = read(sound)
    assert json.loads(found.to_json()) == {**sound, "checksum": json.loads(seal(sound))["checksum"]}
    assert parse(found.to_json().encode()) == found


def test_every_value_replaced_by_every_odd_one(sound: dict[str, Any]) -> None:
    """Free text, metrics and provenance take what they are given; nothing else may pass or break."""
    every = [p for p in places(sound) if p and p[0] not in ("metrics", "provenance")]
    assert len(every) > 100
    passed = set()
    for path in every:
        for odd in ODD:
            try:
                read(changed(sound, path, odd))
            except BundleError as error:
                assert "manifest.json" in error.message, (path, odd, error)
            else:
                passed.add((path[0], json.dumps(odd)[:10]))
    kinds = {name for name, _ in passed}
    texts = {"name", "created", "tenfold", "classes"}
    assert kinds <= {*texts, "format", "geometry", "architecture", "temperature", "threshold", "files"}
    assert "format" not in kinds
    assert {odd for name, odd in passed if name == "threshold"} <= {"null", "0", "1", "0.5"}, "a probability or none"
    assert {odd for name, odd in passed if name == "files"} <= {"0", "1000000000"}, "sizes, compared later"


def test_every_field_left_out_and_one_too_many(sound: dict[str, Any]) -> None:
    for path in places(sound):
        if not path or path[0] in ("metrics", "provenance") or isinstance(path[-1], int):
            continue
        less = copy.deepcopy(sound)
        at = less
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
        with pytest.raises(BundleError):
            read(less)
        at["surprise"] = 1
        with pytest.raises(BundleError):
            read(less)
    with pytest.raises(BundleError, match="unknown field 'surprise'"):
        read({**sound, "surprise": 1})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_text(sound: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(seal(sound).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        piece = data.draw(st.binary(max_size=6))
        text[at : at + data.draw(st.integers(0, 40))] = piece
    if bytes(text) != seal(sound).encode():
        with pytest.raises(BundleError):
            parse(bytes(text))


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values, data=st.data())
def test_any_value_anywhere(sound: dict[str, Any], value: Any, data: st.DataObject) -> None:
    every = [p for p in places(sound) if p and p[0] not in ("metrics", "provenance", "name", "created", "tenfold")]
    with contextlib.suppress(BundleError):
        read(changed(sound, data.draw(st.sampled_from(every)), value))


# ---- JSON itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, said",
    [
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b'{"a": 1, "a": 2}', "the key 'a' twice"),
        (b'{"x": {"a": 1, "b": 3, "a": 2}}', "the key 'a' twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "out of range"),
        (b'{"a": ' + b"9" * 5000 + b".5}", "out of range"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "JSON"),
        (b'{"a": 1} {"b": 2}', "JSON"),
        (b"", "JSON"),
        (b"null", "not an object"),
        (b" " * (manifest.MAX_BYTES + 1), "larger than 8 MiB"),
    ],
)
def test_json_is_read_strictly(text: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        parse(text)
    assert "manifest.json" in caught.value.message


def test_brackets_within_strings_do_not_count() -> None:
    assert fields.strict_json(json.dumps({"a": "[" * 999 + '"\\'}).encode(), "it") == {"a": "[" * 999 + '"\\'}


def test_many_repeated_keys_are_told_quickly() -> None:
    text = "{" + ",".join(f'"{i}":0' for i in range(60_000)) + ', "59999": 1}'
    with pytest.raises(BundleError, match="'59999' twice"):
        fields.strict_json(text.encode(), "it")


def test_huge_manifest_is_not_read(bundle_folder: Path) -> None:
    with (bundle_folder / "manifest.json").open("ab") as file:
        file.truncate(10_000_000_000)  # a sparse file
    with pytest.raises(BundleError, match="larger than 8 MiB"):
        store.open(bundle_folder)


def test_a_newer_format_says_to_upgrade(sound: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"format 3; .* up to 2\. .*pip install --upgrade tenfold"):
        read({**sound, "format": 3, "surprise": "of a later version"})


def test_changed_by_hand_is_told(sound: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="its checksum is another"):
        parse(seal(sound).replace("class 1", "class one").encode())


def test_parts_that_contradict_each_other(sound: dict[str, Any]) -> None:
    for change in (
        {"classes": ["a", "b"]},
        {"geometry": {**sound["geometry"], "height": 9}},
        {"parameters": sound["parameters"] + 1},
    ):
        with pytest.raises(BundleError):
            read({**sound, **change})


def test_interpolation_is_told_where_it_is_not_bilinear(sound: dict[str, Any]) -> None:
    assert "interpolation" not in sound["geometry"] and read(sound).geometry.interpolation == "bilinear"
    cubic = read({**sound, "geometry": {**sound["geometry"], "interpolation": "bicubic"}})
    assert cubic.geometry.interpolation == "bicubic" and parse(cubic.to_json().encode()) == cubic
    with pytest.raises(BundleError, match=r"geometry\.interpolation is not one of bilinear, bicubic"):
        read({**sound, "geometry": {**sound["geometry"], "interpolation": "nearest"}})
