"""What the checks of an account share: how a finding is made, and how a bucket is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cloudft.aws.client import Aws
from cloudft.backends.bedrock import request
from cloudft.errors import AwsRefused
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity


class Note(Protocol):
    """Makes a finding with its place in the job file."""

    def __call__(
        self, code: str, field: str, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """One finding."""


def where_of(job: LoadedJob, bucket: str) -> dict[str, str]:
    """A bucket, and the account that it must belong to where that is known."""
    owner = request.bucket_owner(job)
    return {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}


def encryption(aws: Aws, where: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The bucket's rules; none is S3's own encryption, which asks nothing of the role."""
    what = f"the encryption of {where['Bucket']} can't be looked at"
    try:
        rules = aws.call(what, "s3", "get_bucket_encryption", **where)
    except AwsRefused as error:
        if "ServerSideEncryptionConfigurationNotFound" not in error.message:
            raise
        return []
    return list(rules["ServerSideEncryptionConfiguration"]["Rules"])
