"""Checks that AWS backends share and that need no account: profile, Regions, request members."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cloudft.aws.client import AwsLocation, check_profile
from cloudft.backends.findings import FindingFactory
from cloudft.errors import NoSuchProfile
from cloudft.types import Finding

_MEMBER = re.compile(
    r" at '([^']+)' failed| in input: \"?([A-Za-z.]+)|^Invalid \w+ for parameter ([\w.]+)"
    r"|^(?:Unknown|Missing required) parameter in (?!input:)([\w.]+):"
)


def check_profile_configured(
    location: AwsLocation, field: str, finding: FindingFactory
) -> Iterator[Finding]:
    """Yield a finding for a profile that the AWS configuration lacks: no call could be made."""
    try:
        check_profile(location)
    except NoSuchProfile as error:
        yield finding(error.code, field, error.message, error.fix or "")


def check_arn_regions(
    arns: Mapping[str, str | None], region: str | None, finding: FindingFactory
) -> Iterator[Finding]:
    """Yield a finding for each ARN, by its field, of another Region than the job's."""
    for field, arn in arns.items():
        parts = (arn or "").split(":")
        if len(parts) > 5 and parts[3] and region and parts[3] != region:
            message = f"{field} is in {parts[3]}, but the job runs in {region}"
            fix = f"use one in {region}, or set the Region to {parts[3]}."
            yield finding("WrongRegion", field, message, fix)


def field_for_member(problem: str, fields: Mapping[str, str], other: str) -> str:
    """Return the field of the job file that a member of a request is made from.

    `fields` maps the beginnings of members' paths, such as `customizationConfig.rftConfig`, to
    fields; the longest match counts. `other` is for every other member.
    """
    match = _MEMBER.search(problem)
    path = match[match.lastindex or 0] if match else ""
    matching = [start for start in fields if f"{path}.".startswith(f"{start}.")]
    if not matching:
        return other
    start = max(matching, key=len)
    field = fields[start]
    rest = path.removeprefix(start)
    # Hyperparameters have the same names in the job file. Of a map, only its key or value is named.
    keeps_names = field.rpartition(".")[2].lower() == start.rpartition(".")[2].lower()
    return f"{field}{rest}" if keeps_names and rest not in (".key", ".value") else field
