"""What the checks of the AWS backends share that needs no account: profile, Regions, fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cloudft.aws.client import AwsLocation, check_profile
from cloudft.backends.findings import FindingFactory
from cloudft.errors import NoSuchProfile
from cloudft.types import Finding

_MEMBER = re.compile(r" at '([^']+)' failed| in input: \"?([A-Za-z.]+)")


def check_profile_configured(
    place: AwsLocation, field: str, note: FindingFactory
) -> Iterator[Finding]:
    """Find a profile that the AWS configuration lacks: no call could be made."""
    try:
        check_profile(place)
    except NoSuchProfile as error:
        yield note(error.code, field, error.message, error.fix or "")


def check_arn_regions(
    arns: Mapping[str, str | None], region: str | None, note: FindingFactory
) -> Iterator[Finding]:
    """Find ARNs, by their fields, of another Region than the job's."""
    for field, arn in arns.items():
        parts = (arn or "").split(":")
        if len(parts) > 5 and parts[3] and region and parts[3] != region:
            message = f"{field} is of {parts[3]}, the job runs in {region}"
            fix = f"name one of {region}, or set the Region to {parts[3]}."
            yield note("WrongRegion", field, message, fix)


def field_for_member(problem: str, fields: Mapping[str, str], other: str) -> str:
    """Return the job file's field that a member of a request comes from.

    `fields` has the beginnings of members' paths, such as `customizationConfig.rftConfig`; the
    longest that fits counts. `other` is for all else.
    """
    found = _MEMBER.search(problem)
    path = (found[1] or found[2]) if found else ""
    fitting = [start for start in fields if f"{path}.".startswith(f"{start}.")]
    return fields[max(fitting, key=len)] if fitting else other
