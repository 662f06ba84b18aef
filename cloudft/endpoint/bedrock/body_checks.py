"""Parse and check the bodies of InvokeModel: their keys, and the values of the parameters.

Source of the words: threads about failed calls, run-llama/llama_index 21420 and lobehub/lobehub
5203 for Bedrock's own checks, BerriAI/litellm 13825 for those of Claude.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from cloudft.endpoint.bedrock.shapes import InferenceConfig
from cloudft.endpoint.protocols.json_shapes import load_json
from cloudft.endpoint.protocols.messages import ServiceError

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object from a caller. Unlike other requests, no service model describes a body."""


def _is_number(value: object) -> bool:
    return type(value) in (int, float)  # not isinstance: a bool is no number here


PARAMETER_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "maxTokens": lambda value: type(value) is int and value >= 0,
    "temperature": lambda value: _is_number(value) and 0 <= value <= 5,
    "topP": lambda value: _is_number(value) and 0 <= value <= 1,
    "stopSequences": lambda value: (
        type(value) is list and all(type(text) is str and text for text in value)
    ),
}
"""Valid values of each parameter: the widest range that any family accepts."""


@dataclass(frozen=True)
class BodyKeys:
    """The keys of a body: those that it must have, and those that it may have."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    is_claude: bool = False
    """Whether Anthropic's own words name what is wrong, rather than Bedrock's."""

    def check(self, body: JsonObject, path: str = "#") -> None:
        """Raise ServiceError (ValidationException) for a missing and for an unknown key."""
        faults = list(self._faults(body, path))
        if not faults:
            return
        if self.is_claude:
            raise ServiceError("ValidationException", faults[0])
        raise malformed(f"{', '.join(faults)}, please reformat your input and try again.")

    def _faults(self, body: JsonObject, path: str) -> Iterator[str]:
        for key in self.required:
            if body.get(key) is None:
                required = f"{path}: required key [{key}] not found"
                yield f"{key}: Field required" if self.is_claude else required
        for key in body:
            if key not in (*self.required, *self.optional):
                extra = f"{path}: extraneous key [{key}] is not permitted"
                yield f"{key}: Extra inputs are not permitted" if self.is_claude else extra


def malformed(what: str) -> ServiceError:
    """Return the ValidationException for a body that can't be read."""
    return ServiceError("ValidationException", f"Malformed input request: {what}")


@contextmanager
def as_malformed() -> Iterator[None]:
    """Raise ValidationException for what a parser stumbles over: a body is untyped."""
    ending = "please reformat your input and try again."
    try:
        yield
    except KeyError as error:
        raise malformed(f"#: required key [{error.args[0]}] not found, {ending}") from None
    except (TypeError, ValueError, AttributeError):
        raise malformed(f"#: a value has another type than it should, {ending}") from None


def parse_json_object(body: bytes) -> JsonObject:
    """Parse the JSON object of a body. Raises ValidationException."""
    try:
        content = load_json(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise malformed("it is no JSON object")
    return content


def inference_config(body: JsonObject, names: Mapping[str, str]) -> InferenceConfig:
    """Return the limits in a body; `names` maps the family's names to Converse's.

    Raises ServiceError (ValidationException) for a value that no family takes.
    """
    config = {ours: body[theirs] for theirs, ours in names.items() if body.get(theirs) is not None}
    for theirs, ours in names.items():
        value = body.get(theirs)
        if value is not None and not PARAMETER_CHECKS[ours](value):
            raise malformed(f"#/{theirs}: {str(value)[:100]} is not valid, reformat your input.")
    return cast(InferenceConfig, config)
