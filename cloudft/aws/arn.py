"""Parts of Amazon Resource Names."""

from __future__ import annotations

from typing import NamedTuple


class Arn(NamedTuple):
    """`arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`; the resource may hold further colons."""

    partition: str
    service: str
    region: str
    account: str
    resource: str


def parse_arn(arn: str) -> Arn:
    """Return the parts of an ARN. Raise ValueError for text that is not one."""
    from botocore.utils import ArnParser

    return Arn(**ArnParser().parse_arn(arn))
