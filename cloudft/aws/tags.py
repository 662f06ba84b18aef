"""The tags by which cloudft finds again, from any machine, what it has made on AWS."""

from __future__ import annotations

from collections.abc import Mapping

JOB_TAG, TOKEN_TAG = "cloudft:job", "cloudft:token"
"""The job's id, and the whole token of its request."""
PLAN_TAG = "cloudft:plan"
"""The digest of the job's plan, by which other machines know it from another one."""
EXPIRES_TAG = "cloudft:expires"


def with_cloudft_tags(tags: Mapping[str, str], job: str, token: str) -> dict[str, str]:
    """The user's tags with ours, which win."""
    return dict(tags) | {JOB_TAG: job, TOKEN_TAG: token}
