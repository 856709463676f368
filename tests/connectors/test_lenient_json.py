"""One absurd value does not cost the page that it stands on."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from connectors.lenient_json import parse, records


@pytest.mark.parametrize(
    "value",
    [{}, [], "text", 5, -1.5, None, True, {"a": [1, {"b": '[{\\"]'}]}, "\ud83d", "ü€\U0001f4a3", 10**4000],
)
def test_ordinary_json_is_read_as_ever(value: Any) -> None:
    assert parse(json.dumps(value).encode()) == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_in_every_encoding_that_json_may_have(encoding: str) -> None:
    assert parse('{"a": "ü"}'.encode(encoding)) == {"a": "ü"}


@pytest.mark.parametrize("data", [b"", b"{", b"<html>", b"[1,]", b"\xff\xfe{", b"\xc3(", b"[" * 100_000, b'["' * 9_000])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(data)


def test_numbers_beyond_all_measure() -> None:
    found = parse(b'{"a": ' + b"9" * 10_000 + b', "b": -' + b"9" * 10_000 + b', "c": 1e99999, "d": 7}')
    assert found == {"a": math.inf, "b": -math.inf, "c": math.inf, "d": 7}


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_too_deeply_is_null_and_the_rest_is_there(opening: str, closing: str) -> None:
    inner = '"]}"' if opening == "[" else '"]}\\""'
    deep = opening * 50_000 + inner + closing * 50_000
    found = parse(f'{{"reports": [{{"id": 1, "x": {deep}, "y": "[[[{{{{"}}, {{"id": 2}}], "z": {deep}}}'.encode())
    assert [report["id"] for report in found["reports"]] == [1, 2]
    assert found["reports"][0]["y"] == "[[[{{"
    assert found["z"]


def test_crafted_text_costs_no_time() -> None:
    started = time.monotonic()
    for data in (b"[" * 20_000 + b'"\\' * 500_000, b"[" * 20_000 + b'"' * 500_001, b"[{" * 500_000):
        with pytest.raises(ValueError, match=r"."):
            parse(data)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("value", "expected"),
    [([], []), ([{"id": 1}, None], [{"id": 1}]), ([None], None), ({"id": 1}, None), (None, None)],
)
def test_a_list_that_cannot_be_read_is_not_an_empty_one(value: object, expected: object) -> None:
    assert records(value) == expected
