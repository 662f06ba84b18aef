"""Tags by which cloudft finds what it created on AWS, from any machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict


class Tag(TypedDict):
    """A tag as Bedrock's operations take and return it."""

    key: str
    value: str


JOB_TAG, TOKEN_TAG = "cloudft:job", "cloudft:token"
"""The job's id, and the full token of its request."""
PLAN_TAG = "cloudft:plan"
"""Digest of the job's plan, by which another machine verifies the plan that it finds in S3."""
EXPIRES_TAG = "cloudft:expires"
UPDATE_TAG = "cloudft:update"
"""The last update of a deployment: `update` or `rollback` while it is under way, then `updated` or
`rolled-back`."""
UPDATE_FROM_TAG, UPDATE_TO_TAG = "cloudft:update-from", "cloudft:update-to"
"""The ARNs of the models before and after the last update."""
UPDATE_FROM_JOB_TAG, UPDATE_TO_JOB_TAG = "cloudft:update-from-job", "cloudft:update-to-job"
"""The ids of the jobs that made these models."""


def with_cloudft_tags(tags: Mapping[str, str], job: str, token: str) -> dict[str, str]:
    """Return the user's tags with cloudft's own, which win."""
    return dict(tags) | {JOB_TAG: job, TOKEN_TAG: token}


def to_tag_list(tags: Mapping[str, str]) -> list[Tag]:
    """Return tags as Bedrock's operations take them."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def from_tag_list(tags: Iterable[Tag]) -> dict[str, str]:
    """Return a mapping of the tags that Bedrock's operations return."""
    return {tag["key"]: tag["value"] for tag in tags}
