"""Decode the JSON bodies of requests. What is unknown or of the wrong type is refused by name."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from cloudft.serving.http.errors import ApiError, invalid
from cloudft.web.json_depth import MAX_JSON_DEPTH, is_within_depth

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Size of a body. The longest context of an open model is some MB of text."""
MAX_CHOICES = 128
MAX_STOPS = 16
MAX_SEED = 2**63
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*)`")
_MISSING = re.compile(r"missing required field `(.*)`")

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-MAX_SEED, le=MAX_SEED - 1)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """What a stream has besides the answer. `include_obfuscation` pads OpenAI's own streams."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CommonBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """The members that both kinds of completions have. Null counts as absent.

    Those after `user` can be had at their default alone: this server does not do what they say.
    """

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    max_tokens: Count | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None

    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    min_p: float | None = None
    logit_bias: dict[str, float] | None = None


NEUTRAL: dict[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
}
"""Member -> the values that change nothing."""

Body = TypeVar("Body", bound=Struct)


def decode_body(raw: bytes, kind: type[Body]) -> Body:
    """Return a body as a struct. Raise ApiError that names the member at fault."""
    if not is_within_depth(raw):
        raise invalid(f"The body has values that are nested more than {MAX_JSON_DEPTH} deep.")
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _wrong_member(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"The body is not valid JSON: {error}") from None


def _wrong_member(message: str) -> ApiError:
    """Return the error for a message of msgspec."""
    at = _PATH.search(message)
    path = at[1] if at else ""
    text = _PATH.sub("", message)
    if unknown := _UNKNOWN.search(text):
        name = f"{path}.{unknown[1]}".lstrip(".")
        return invalid(f"Unknown parameter: {name[:200]!r}.", name[:200], "unknown_parameter")
    if missing := _MISSING.search(text):
        name = f"{path}.{missing[1]}".lstrip(".")
        return invalid(f"Missing required parameter: {name!r}.", name, "missing_required_parameter")
    where = f"Invalid value for {path!r}" if path else "Invalid body"
    return invalid(f"{where}: {text}.", path or None, "invalid_value")


def require_neutral(body: Struct, neutral: dict[str, tuple[object, ...]]) -> None:
    """Raise ApiError for a member whose value would change the answer, and is not supported."""
    for name, values in neutral.items():
        value = getattr(body, name)
        if value is not None and value not in values:
            allowed = f" Leave it out, or send {values[0]!r}." if values else " Leave it out."
            raise invalid(
                f"This server does not support {name!r}.{allowed}", name, "unsupported_parameter"
            )


def check_stream_options(body: CommonBody) -> None:
    """Raise ApiError for options of a stream where there is none."""
    if body.stream_options is not None and not body.stream:
        message = "'stream_options' needs 'stream': true."
        raise invalid(message, "stream_options", "invalid_value")


def wants_usage(body: CommonBody) -> bool:
    """Return whether a stream ends with the usage."""
    return bool(body.stream_options and body.stream_options.include_usage)


def stop_texts(stop: str | list[str] | None) -> tuple[str, ...]:
    """Return the texts that end an answer. Raise ApiError for too many, and for an empty one."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise invalid(f"'stop' has more than {MAX_STOPS} texts.", "stop", "invalid_value")
    if "" in stops:
        raise invalid("'stop' has an empty text.", "stop", "invalid_value")
    return stops
