"""Commands of the AWS CLI for fixes, with Region, profile and endpoint spelled out."""

from __future__ import annotations

import shlex

from cloudft.aws.client import Aws


def aws_cli_command(aws: Aws, *arguments: str) -> str:
    """Return `aws ARGUMENTS --region R --profile P --endpoint-url U`, quoted for a shell.

    The Region is always named: the AWS CLI may have another default, and its first version does
    not read AWS_REGION.
    """
    location = aws.location
    options = {
        "region": location.region or aws.client("s3").meta.region_name,
        "profile": location.profile,
        "endpoint-url": location.endpoint_url,
    }
    flags = [part for name, value in options.items() if value for part in (f"--{name}", value)]
    return shlex.join(["aws", *arguments, *flags])
