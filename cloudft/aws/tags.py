"""The tags by which cloudft finds again, from any machine, what it has made on AWS."""

from __future__ import annotations

from collections.abc import Mapping

JOB, TOKEN = "cloudft:job", "cloudft:token"
"""The job's id, and the whole token of its request."""
PLAN = "cloudft:plan"
"""The digest of the job's plan, by which other machines know it from another one."""
EXPIRES = "cloudft:expires"


def marked(given: Mapping[str, str], job: str, token: str) -> dict[str, str]:
    """The user's tags with ours, which win."""
    return dict(given) | {JOB: job, TOKEN: token}
