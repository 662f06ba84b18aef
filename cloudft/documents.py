"""Decode documents that were written elsewhere: in a bucket, a job's folder, a cache.

Everything that cloudft reads back goes through `decode`. A document is described by a dataclass or
an `msgspec.Struct` that has the fields in use and nothing else, so a reader never sees a key that
its writer was free to invent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cloudft.errors import BadDocument

T = TypeVar("T")

_FIELD = re.compile(r" - at `(?:key in )?\$\.?(?P<field>.*)`$")


class _Versioned(msgspec.Struct):
    version: Any = None


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


def convert(value: Any, as_type: type[T], *, file: str | Path) -> T:
    """Return plain JSON data that was parsed already as `as_type`. Raise BadDocument."""
    try:
        return msgspec.convert(value, as_type)
    except msgspec.ValidationError as error:
        raise _bad(str(error), file) from error


def _decode(content: bytes | str, as_type: type[T], file: str | Path) -> T:
    try:
        return msgspec.json.decode(content, type=as_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(str(error), file) from error


def _bad(reason: str, file: str | Path) -> BadDocument:
    found = _FIELD.search(reason)
    field = found["field"] if found else None
    what = reason[: found.start()] if found else reason
    return BadDocument(
        f"{Path(file).name} is damaged: {what[:1].lower()}{what[1:]}",
        file=str(file),
        field=field or None,
        fix="restore it from a backup or remove it.",
    )


def _check_version(version: Any, known: Collection[int], file: str | Path) -> None:
    if version in known and not isinstance(version, bool):
        return
    readable = " or ".join(map(str, sorted(known)))
    raise BadDocument(
        f"{Path(file).name} has version {version!r}, and this cloudft reads version {readable}",
        file=str(file),
        field="version",
        fix="use the cloudft that wrote it, or a newer one.",
    )
