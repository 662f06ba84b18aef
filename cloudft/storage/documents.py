"""Decode documents that were written elsewhere: in a bucket, a job's folder, a cache.

Everything that cloudft reads back goes through `decode`. A document is described by a dataclass or
an `msgspec.Struct` with only the fields in use, so a reader never sees a key that its writer was
free to invent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from cloudft.errors import BadDocument

T = TypeVar("T")

Count = Annotated[int, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
FileName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,254}\Z")]
"""The name of one file, which can't point to another folder."""

MAX_DEPTH = 100
"""The deepest nesting of a document. JSON writers fail at some 250 levels, readers at 1,000."""
INT_MIN, INT_MAX = -(2**63), 2**64 - 1
"""The integers that JSON libraries read and write; beyond them orjson raises."""
_LONG_NUMBER = re.compile(rb"\d{19}")
_FIELD = re.compile(r" - at `(?:key in )?\$\.?(?P<field>.*)`$")


class _Versioned(msgspec.Struct):
    version: object = None


def decode(
    content: bytes | str,
    as_type: type[T],
    *,
    file: str | Path,
    versions: Collection[int] | None = None,
) -> T:
    """Return the JSON in `content` as `as_type`.

    Unknown keys are ignored, so that a file of a newer cloudft still reads. With `versions`, the
    key `version` must be one of them. Raise BadDocument that names `file`, the field and the line.
    """
    if versions is not None:
        _check_version(_decode(content, _Versioned, file).version, versions, file)
    return _decode(content, as_type, file)


def decode_python_json(content: bytes | str, as_type: type[T], *, file: str | Path) -> T:
    """Decode what Python's json wrote, in which NaN and Infinity are numbers."""
    return convert(parse_python_json(content, file=file), as_type, file=file)


def parse_python_json(content: bytes | str, *, file: str | Path) -> Any:
    """Return plain data from what Python's json wrote. Raise BadDocument."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _bad_document(str(error), file) from error
    if _is_unusual(content):
        _check_bounds(value, file)
    return value


def check_iso_time(text: str | None, field: str, *, file: str | Path) -> None:
    """Raise BadDocument unless `text` is an ISO 8601 time or None."""
    if text is None:
        return
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        reason = f"{text[:40]!r} is not an ISO 8601 time - at `$.{field}`"
        raise _bad_document(reason, file) from error


def convert(value: object, as_type: type[T], *, file: str | Path) -> T:
    """Return plain JSON data that was parsed already as `as_type`. Raise BadDocument."""
    try:
        return msgspec.convert(value, as_type)
    except msgspec.ValidationError as error:
        raise _bad_document(str(error), file) from error


def _decode(content: bytes | str, as_type: type[T], file: str | Path) -> T:
    try:
        if _is_unusual(content):
            _check_bounds(msgspec.json.decode(content), file)
        return msgspec.json.decode(content, type=as_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_document(str(error), file) from error


def _is_unusual(content: bytes | str) -> bool:
    """Return whether a document may be too deep or hold too large a number, by a cheap scan."""
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    return raw.count(b"[") + raw.count(b"{") > MAX_DEPTH or _LONG_NUMBER.search(raw) is not None


def _check_bounds(value: object, file: str | Path) -> None:
    """Raise BadDocument for data that could be read here but not be written again."""
    stack: list[tuple[str, int, object]] = [("", 0, value)]
    while stack:
        path, depth, one = stack.pop()
        if depth > MAX_DEPTH:
            raise _bad_document(f"it has more than {MAX_DEPTH} levels", file)
        if isinstance(one, dict):
            stack += [(f"{path}.{key}", depth + 1, inner) for key, inner in one.items()]
        elif isinstance(one, list):
            stack += [(f"{path}[{n}]", depth + 1, inner) for n, inner in enumerate(one)]
        elif isinstance(one, int) and not INT_MIN <= one <= INT_MAX:
            raise _bad_document(f"an integer has more than 64 bits - at `${path}`", file)


def _bad_document(reason: str, file: str | Path) -> BadDocument:
    match = _FIELD.search(reason)
    field = match["field"] if match else None
    what = reason[: match.start()] if match else reason
    if what[1:2].islower():
        what = f"{what[0].lower()}{what[1:]}"
    return BadDocument(
        f"{Path(file).name} is damaged: {what}",
        file=str(file),
        field=field or None,
        fix="restore it from a backup or remove it.",
    )


def _check_version(version: object, known: Collection[int], file: str | Path) -> None:
    if version in known and not isinstance(version, bool):
        return
    readable = " or ".join(map(str, sorted(known)))
    raise BadDocument(
        f"{Path(file).name} has version {version!r}, and this cloudft reads version {readable}",
        file=str(file),
        field="version",
        fix="use the cloudft that wrote it, or a newer one.",
    )
