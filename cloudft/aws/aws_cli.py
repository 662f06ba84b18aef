"""Commands of the AWS CLI in remedies: whole, so that they act at the place that was looked at."""

from __future__ import annotations

import shlex

from cloudft.aws.client import Aws


def aws_cli_command(aws: Aws, *words: str) -> str:
    """`aws WORDS --region R --profile P --endpoint-url U`, to be pasted into a shell.

    The AWS CLI may have another Region by default: its first version does not read AWS_REGION.
    """
    region = aws.location.region or aws.client("s3").meta.region_name
    place = {
        "region": region,
        "profile": aws.location.profile,
        "endpoint-url": aws.location.endpoint_url,
    }
    given = [part for name, value in place.items() if value for part in (f"--{name}", value)]
    return shlex.join(["aws", *words, *given])
