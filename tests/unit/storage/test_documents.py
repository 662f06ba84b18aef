"""Decoding of the documents that cloudft reads back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft.errors import BadDocument
from cloudft.storage.documents import convert, decode, decode_python_json


@dataclass(frozen=True)
class Inner:
    step: int


@dataclass(frozen=True)
class Document:
    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z-]+\Z")]
    progress: Inner | None = None


def test_unknown_keys_are_ignored() -> None:
    content = b'{"name": "a", "progress": {"step": 3, "newer": 1}, "newer": {"x": []}}'
    assert decode(content, Document, file="f.json") == Document("a", Inner(3))


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"name": "a", "progress": {"step": "3"}}', "progress.step"),
        (b'{"name": "../a"}', "name"),
        (b'{"progress": null}', None),
        (b'{"name": "a"', None),
        (b"[]", None),
        (b"\xff\xfe", None),
        (b'{"name": "\xff"}', None),
        (b"[" * 100_000, None),
    ],
)
def test_a_wrong_shape_is_named(content: bytes, field: str | None) -> None:
    with pytest.raises(BadDocument) as caught:
        decode(content, Document, file=Path("/tmp/f.json"))
    assert caught.value.file == "/tmp/f.json"
    assert caught.value.field == field
    assert caught.value.message.startswith("f.json is damaged: ")


@pytest.mark.parametrize(
    ("more", "field", "why"),
    [
        ({"newer": {"count": 2**70}}, "newer.count", "an integer has more than 64 bits"),
        ({"newer": [-(2**64)]}, "newer[0]", "an integer has more than 64 bits"),
        ({"newer": {"a": 2**64 - 1}}, None, None),
        ({"newer": 0.1234567890123456789}, None, None),
        ({"newer": "1" * 40}, None, None),
    ],
)
def test_what_could_not_be_written_again_is_not_read(
    more: dict[str, object], field: str | None, why: str | None
) -> None:
    content = json.dumps({"name": "a", **more})
    for read in (decode, decode_python_json):
        if why is None:
            assert read(content, Document, file="f.json").name == "a"
            continue
        with pytest.raises(BadDocument, match=why) as caught:
            read(content, Document, file="f.json")
        assert caught.value.field == field


@pytest.mark.parametrize(("levels", "taken"), [(99, True), (101, False), (5000, False)])
def test_a_document_is_only_so_deep(levels: int, taken: bool) -> None:
    content = '{"name": "a", "newer": ' + "[" * levels + "]" * levels + "}"
    for read in (decode, decode_python_json):
        if taken:
            assert read(content, Document, file="f.json").name == "a"
            continue
        with pytest.raises(BadDocument):
            read(content, Document, file="f.json")


@pytest.mark.parametrize("version", [None, 0, 2, "1", True, 1.5, [1]])
def test_another_version_is_refused(version: object) -> None:
    content = msgspec.json.encode({"name": "a", "version": version})
    with pytest.raises(BadDocument, match="this cloudft reads version 1") as caught:
        decode(content, Document, file="f.json", versions=(1,))
    assert caught.value.field == "version"


def test_a_version_that_is_known_is_read() -> None:
    assert decode(b'{"version": 1, "name": "a"}', Document, file="f", versions=(1,)).name == "a"


def test_parsed_data_comes_through_the_same_gate() -> None:
    with pytest.raises(BadDocument) as caught:
        convert({"name": 7}, Document, file="f.json")
    assert caught.value.field == "name"


@given(st.binary())
def test_any_bytes_are_a_value_or_a_bad_document(content: bytes) -> None:
    try:
        decode(content, Document, file="f.json", versions=(1,))
    except BadDocument as error:
        assert error.file == "f.json"
