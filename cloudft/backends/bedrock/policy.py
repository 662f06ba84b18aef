"""The least IAM policy for whoever checks, submits and follows a job: from its plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloudft.aws.permissions import Need, Place
from cloudft.aws.tags import JOB
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import machine, needs, request
from cloudft.spec.load import LoadedJob
from cloudft.types import job_id

SHA256 = re.compile(r"[0-9a-f]{64}")
OBJECT = ("s3:AbortMultipartUpload", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject")
"""What sending a file takes: large ones go in parts, and one that is there is not sent again."""
BUCKET = (
    "s3:GetBucketPublicAccessBlock",
    "s3:GetEncryptionConfiguration",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
)
LISTED = (
    "bedrock:GetFoundationModelAvailability",
    "bedrock:ListFoundationModels",
    "bedrock:ListModelCustomizationJobs",
    "pricing:GetProducts",
)
"""What is about no one thing of the account's."""
FOLLOWED = ("bedrock:GetModelCustomizationJob", "bedrock:ListTagsForResource")
NETWORK = ("ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcEndpoints")
Statement = dict[str, Any]


def caller_policy(staged: StagedJob) -> dict[str, Any]:
    """The policy document. The parts of keys and names that follow from content are patterns."""
    job, here = staged.job, needs.place_of(staged.job)
    statements = [
        *_of_objects(staged, here),
        *_of_needs(needs.of_caller(job)),
        *_of_jobs(here),
        *_of_checks(job, here),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(
    name: str,
    actions: Iterable[str],
    resources: Iterable[str],
    context: Mapping[str, Any] | None = None,
) -> Statement:
    said: Statement = {"Sid": name, "Effect": "Allow"}
    said |= {"Action": sorted(actions), "Resource": sorted(set(resources))}
    return {**said, "Condition": {"StringEquals": dict(context)}} if context else said


def _of_objects(staged: StagedJob, here: Place) -> Iterator[Statement]:
    """What is written, what comes home, and the buckets of both."""
    calls = [*(machine.calls(staged) or ())[:1], *request.calls(staged)]
    puts = [call["parameters"] for call in calls if call["operation"] == "put_object"]
    output = request.output_of(calls[-1]["parameters"])
    objects = [here.bucket(put["Bucket"], _pattern(put["Key"], staged)) for put in puts]
    objects.append(here.bucket(output[0], _pattern(output[1], staged) + "*"))
    yield _allow("StageAndFetch", OBJECT, objects)
    buckets = {*(put["Bucket"] for put in puts), output[0]}
    yield _allow("LookAtBuckets", BUCKET, [here.bucket(name) for name in buckets])


def _pattern(key: str, staged: StagedJob) -> str:
    """A key with a star for what follows from content: the data's digest, the job's token."""
    name = staged.job.spec.name
    return SHA256.sub("*", key.replace(job_id(name, request.token(staged)), f"{name}-*"))


def _of_needs(found: Iterable[Need]) -> Iterator[Statement]:
    """The needs of a submit, those of one kind together."""
    groups: dict[tuple[str, ...], list[Need]] = {}
    for need in found:
        service, _, action = need.action.partition(":")
        kind = (action,) if service != "kms" else ("KeyOfTheModel",)
        groups.setdefault((*kind, *sorted(need.context)), []).append(need)
    for (name, *_), group in groups.items():
        resources = [need.resource for need in group]
        yield _allow(name, {need.action for need in group}, resources, group[0].context)


def _of_jobs(here: Place) -> Iterator[Statement]:
    jobs = here.arn("bedrock", "model-customization-job/*")
    yield _allow("FollowJobs", FOLLOWED, [jobs])
    ours = {"Null": {f"aws:ResourceTag/{JOB}": "false"}}
    yield {**_allow("StopJobs", ("bedrock:StopModelCustomizationJob",), [jobs]), "Condition": ours}
    yield _allow("Look", LISTED, ["*"])


def _of_checks(job: LoadedJob, here: Place) -> Iterator[Statement]:
    """What `check` asks besides; without it, it says what it could not check."""
    spec = job.spec.bedrock
    role = [str(spec.role_arn)]
    oneself = f"arn:{here.partition}:iam::{here.account}:user/${{aws:username}}"
    yield _allow("CheckTheRole", ("iam:GetRole", "iam:SimulatePrincipalPolicy"), role)
    yield _allow("CheckOneself", ("iam:SimulatePrincipalPolicy",), [oneself])
    if spec.stack is not None:
        names = [spec.stack, *([f"{spec.stack}-jobs"] if spec.via_stack else [])]
        stacks = [here.arn("cloudformation", f"stack/{name}/*") for name in names]
        yield _allow("ReadTheStack", ("cloudformation:DescribeStacks",), stacks)
    if spec.vpc is not None:
        yield _allow("LookAtTheNetwork", NETWORK, ["*"])
    keys = [key for key in (spec.kms_key_id, spec.s3_kms_key_id) if key and key.startswith("arn:")]
    if keys:
        yield _allow("LookAtKeys", ("kms:DescribeKey",), keys)
    of_buckets = keys if spec.stack else [key for key in keys if key == spec.s3_kms_key_id]
    if of_buckets:  # a stack's key is that of its buckets, too
        via = {"kms:ViaService": f"s3.{here.region}.amazonaws.com"}
        yield _allow("KeysOfTheBuckets", ("kms:Decrypt", "kms:GenerateDataKey"), of_buckets, via)
