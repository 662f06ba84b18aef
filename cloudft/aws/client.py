"""AWS clients, made in one place: profile, Region and retries; and AWS's errors in our words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from cloudft.errors import AwsRefused, AwsUnreachable

BUSY = {
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
"""Codes that are worth another try later, after boto3's own retries."""


def client(service: str) -> Any:
    """A boto3 client with the AWS CLI's order of profile and Region; AWS_REGION counts too.

    Raises AwsRefused for a profile that there is not.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ProfileNotFound

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10, read_timeout=60
    )
    region = os.environ.get("AWS_REGION") or None
    try:
        return boto3.Session(region_name=region).client(service, config=config)
    except ProfileNotFound as error:
        raise AwsRefused(str(error), fix="correct AWS_PROFILE, or `aws configure`.") from error


@contextlib.contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Turn what boto3 raises within into AwsRefused or AwsUnreachable, which begin with `what`."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        message = f"{what}: {code}: {error.response.get('Error', {}).get('Message', '')}"
        if code in BUSY or error.response["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500:
            raise AwsUnreachable(message, fix="try again in a while.") from error
        raise AwsRefused(message, fix="check the name, and what you are allowed to do.") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AwsRefused(
            f"{what}: there are no AWS credentials", fix="`aws configure`, or set AWS_PROFILE."
        ) from error
    except HTTPClientError as error:
        raise AwsUnreachable(f"{what}: {error}", fix="check the network; try again.") from error
    except BotoCoreError as error:
        raise AwsRefused(f"{what}: {error}", fix="check the AWS settings.") from error
