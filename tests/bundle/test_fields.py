"""JSON that a stranger wrote: no text makes reading it slow or large."""

from __future__ import annotations

import time

import pytest

from tenfold.bundle import fields
from tenfold.errors import BundleError

QUADRATIC = {
    "texts without an end": b'"\\' * 2_000_000,
    "escaped quotes": b'{"a": "' + b'\\"' * 400_000,
    "backslashes": b'{"a": "' + b"\\" * 5_000_001,
    "digits": b"9" * 5_000_000,
    "brackets": b"[]" * 2_000_000,
}


@pytest.mark.parametrize("name", QUADRATIC)
def test_reading_takes_a_time_that_grows_with_the_length_alone(name: str) -> None:
    began = time.perf_counter()
    with pytest.raises(BundleError):
        fields.strict_json(QUADRATIC[name], "it")
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" + b'"",' * 500_000 + b'""]', "texts"),
        (b"[" + b"{}," * 200_000 + b"{}]", "objects"),
        (b"[" + b"[]," * 4_000_000 + b"[]]", "lists"),
        (b"[" + b"9" * 41 + b"]", "99999999999999999999…"),
    ],
)
def test_what_a_value_may_hold(text: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        fields.strict_json(text, "it")


def test_long_digits_within_a_text_are_a_text() -> None:
    assert fields.strict_json(b'{"9": "' + b"9" * 100 + b'", "n": ' + b"9" * 40 + b"}", "it")["n"] == 10**40 - 1
