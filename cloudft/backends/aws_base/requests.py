"""The parts of a request that every AWS backend builds alike: S3 locations, token, digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import orjson

from cloudft.aws.s3 import split_s3_uri
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.base import Location, StagedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.types import Manifest, StagedFile, is_validation_role, to_json


def uploaded_files(manifest: Manifest) -> dict[str, StagedFile]:
    """Return the files that are sent to the cloud, by role. Test data stays on this machine."""
    files = manifest.files
    held_out = sorted(filter(is_validation_role, files))
    return {role: files[role] for role in ("train", *held_out) if role in files}


def split_prefix(uri: str | None) -> tuple[str, str]:
    """Return bucket and key prefix of a URI; the prefix ends with a slash or is empty."""
    bucket, prefix = split_s3_uri(uri or "")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def expected_owner(bucket_owner: str | None, role_arn: str | None) -> str | None:
    """Return the account that a bucket must belong to: the one named, else the role's."""
    role = re.match(r"arn:aws[^:]*:iam::(\d{12}):", role_arn or "")
    return bucket_owner or (role[1] if role else None)


def object_settings(owner: str | None, kms_key_id: str | None) -> dict[str, str]:
    """Return the parameters of every put_object: its encryption, and the bucket's owner."""
    key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}
    return {**key, **({"ExpectedBucketOwner": owner} if owner else {})}


def request_token(staged: StagedJob, location: Location, content: Mapping[str, object]) -> str:
    """Return the name of a request: 32 hex digits that follow from all of it and of the data.

    The profile is left out: the same job under another profile of the account is the same job.
    """
    # sorted keys below: the token must not depend on the order in which a dict was built
    place = {name: value for name, value in location.items() if name != "profile"}
    named = {"attempt": staged.attempt, "name": staged.job.spec.name, "place": place, **content}
    return hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def plan_digest(backend: str, staged: StagedJob, token: str, request: Mapping[str, object]) -> str:
    """Return the digest of a plan, which its job carries so that a changed plan is recognized.

    `request` has the parts of the plan's request that the digest covers.
    """
    return discovered_plan.plan_digest(
        {
            "backend": backend,
            "name": staged.job.spec.name,
            "token": token,
            "request": request,
            "manifest": to_json(staged.manifest),
            "spec": to_portable_values(staged.job),
        }
    )


def content_digest(files: Mapping[str, str]) -> str:
    """Return the name of a set of files, by the sha256 of each: follows from names and content."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in files.items())
    return hashlib.sha256(lines.encode()).hexdigest()
