"""The part of `data` that names Bedrock's invocation logs as training data.

Patterns and limits: botocore 1.44.5, InvocationLogsConfig and RequestMetadataFilters of bedrock.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from cloudft.spec.fields import S3_URI, Bool, field_error
from cloudft.spec.sections import NOT_STRICT, Section

METADATA_TEXT = r"[a-zA-Z0-9\s._:/=+$@-]"
"""What the keys and values of a filter may consist of. Those of a request's metadata may also have
`#` and `,` (botocore, RequestMetadata of bedrock-runtime): no filter finds these."""
MAX_METADATA_LENGTH = 256
MAX_FILTERS = 16


def _check_pair(pair: dict[str, str]) -> dict[str, str]:
    if len(pair) != 1:
        fix = "write one key and its value, and several pairs under and_all or or_all"
        raise field_error("BadValue", f"{len(pair)} pairs in one filter", fix)
    [(key, value)] = pair.items()
    limits = (("key", key, 1), ("value", value, 0))
    for what, text, least in limits:
        pattern = f"{METADATA_TEXT}{{{least},{MAX_METADATA_LENGTH}}}"
        if not re.fullmatch(pattern, text):
            fix = f"write {least} to {MAX_METADATA_LENGTH} letters, digits, spaces or ._:/=+$@-"
            message = f"the {what} {text[:100]!r} of the metadata can't be in a filter"
            raise field_error("BadValue", message, fix)
    return pair


Pair = Annotated[dict[str, str], AfterValidator(_check_pair)]


class MetadataFilter(Section):
    """A pair that the request metadata of a log record has, or has not."""

    equals: Pair | None = Field(default=None, description="{KEY: VALUE} that a record has.")
    not_equals: Pair | None = Field(default=None, description="{KEY: VALUE} that it has not.")

    def to_api(self) -> dict[str, object]:
        """Return the filter by the API's names."""
        return {} | _named("equals", self.equals) | _named("notEquals", self.not_equals)


def _named(name: str, value: object) -> dict[str, object]:
    return {} if value is None else {name: value}


def _check_base(base: MetadataFilter) -> MetadataFilter:
    if base.equals is None and base.not_equals is None:
        raise field_error("BadValue", "an empty filter", "write equals or not_equals in it")
    return base


Filters = Annotated[
    tuple[Annotated[MetadataFilter, AfterValidator(_check_base)], ...],
    NOT_STRICT,
    Field(min_length=1, max_length=MAX_FILTERS),
]


class MetadataFilters(MetadataFilter):
    """Which log records are used, by their request metadata: one of the four."""

    and_all: Filters | None = Field(default=None, description="Filters that all match.")
    or_all: Filters | None = Field(default=None, description="Filters of which one matches.")

    def to_api(self) -> dict[str, object]:
        """Return `requestMetadataFilters`, by the API's names."""
        lists = {"andAll": self.and_all, "orAll": self.or_all}
        named = {k: [one.to_api() for one in v] for k, v in lists.items() if v is not None}
        return super().to_api() | named


def _check_one(filters: MetadataFilters) -> MetadataFilters:
    given = sorted(filters.to_api())
    if len(given) != 1:
        what = " and ".join(given) if given else "none"
        fix = "write one of equals, not_equals, and_all, or_all"
        raise field_error("BadValue", f"a filter has one condition, this one {what}", fix)
    return filters


class InvocationLogs(Section):
    """Bedrock's invocation logs as the training data: they stay where they are."""

    s3_uri: S3_URI = Field(
        description="Prefix of the logs: s3://BUCKET/PREFIX/AWSLogs/ACCOUNT/..., or a part of it."
    )
    use_prompt_response: Bool = Field(
        default=False,
        description="Train on the logged answers of the teacher; only on the prompts if false.",
    )
    filters: Annotated[MetadataFilters, AfterValidator(_check_one)] | None = Field(
        default=None, description="By request metadata: {equals: {project: support}}."
    )

    def to_api(self) -> dict[str, object]:
        """Return `invocationLogsConfig`, by the API's names."""
        config: dict[str, object] = {
            "usePromptResponse": self.use_prompt_response,
            "invocationLogSource": {"s3Uri": self.s3_uri},
        }
        if self.filters is not None:
            config["requestMetadataFilters"] = self.filters.to_api()
        return config
