"""Parse the unquoted scalars of YAML.

PyYAML follows YAML 1.1, where `no` is false, `010` is eight, `1:30` is ninety and `1e-5` is text.
Here YAML 1.2 holds, which is what people mean: `no` and `1:30` are text, `1e-5` is a number.
"""

from __future__ import annotations

import re

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_NUMBER_LENGTH = 64


class UntypedScalar(str):
    """Text that may be meant as a number: the field that takes it decides.

    All numbers in flags and environment variables are of this kind (`--set tags.version=1.0` is
    text); in a file, `1e-5` is.
    """

    __slots__ = ()


def parse_scalar(text: str) -> object:
    """Return an unquoted scalar as None, bool, int, float or text; `1e-5` as UntypedScalar."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    number = parse_number(text)
    return text if number is None else UntypedScalar(text) if "e" in text.lower() else number


def parse_number(text: str) -> int | float | None:
    """Return the number that `text` writes, or None. A whole one is an int: `1e3`."""
    if len(text) > _MAX_NUMBER_LENGTH:
        return None
    if _INT.fullmatch(text):
        return int(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    if not _FLOAT.fullmatch(text) or re.match(r"[-+]?0[0-9]", text):
        return None
    value = float(text)
    is_whole = "." not in text and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole else value


def as_bool(value: object) -> object:
    """Return an UntypedScalar that writes true or false as that; anything else as it is."""
    parsed = parse_scalar(value) if isinstance(value, UntypedScalar) else None
    return parsed if isinstance(parsed, bool) else value


def as_number(value: object) -> object:
    """Return an UntypedScalar that writes a number as that number; anything else as it is."""
    number = parse_number(value) if isinstance(value, UntypedScalar) else None
    return value if number is None else number
