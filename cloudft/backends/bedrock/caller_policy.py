"""The least IAM policy for whoever checks, submits and follows a job: from its plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.aws.tags import JOB_TAG
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request, required_permissions, state_machine
from cloudft.spec.load import LoadedJob
from cloudft.types import job_id

SHA256 = re.compile(r"[0-9a-f]{64}")
OBJECT_ACTIONS = (
    "s3:AbortMultipartUpload",
    "s3:GetObject",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
)
"""What sending a file takes: large ones go in parts, and one that is there is not sent again."""
BUCKET_ACTIONS = (
    "s3:GetBucketPublicAccessBlock",
    "s3:GetEncryptionConfiguration",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
)
LIST_ACTIONS = (
    "bedrock:GetFoundationModelAvailability",
    "bedrock:ListFoundationModels",
    "bedrock:ListModelCustomizationJobs",
    "pricing:GetProducts",
)
"""What is about no one thing of the account's."""
FOLLOW_ACTIONS = ("bedrock:GetModelCustomizationJob", "bedrock:ListTagsForResource")
NETWORK_ACTIONS = ("ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcEndpoints")
Statement = dict[str, Any]


def caller_policy(staged: StagedJob) -> dict[str, Any]:
    """The policy document. The parts of keys and names that follow from content are patterns."""
    job, here = staged.job, required_permissions.arn_context(staged.job)
    statements = [
        *_object_statements(staged, here),
        *_submit_statements(required_permissions.caller_permissions(job)),
        *_job_statements(here),
        *_check_statements(job, here),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow_statement(
    name: str,
    actions: Iterable[str],
    resources: Iterable[str],
    context: Mapping[str, Any] | None = None,
) -> Statement:
    said: Statement = {"Sid": name, "Effect": "Allow"}
    said |= {"Action": sorted(actions), "Resource": sorted(set(resources))}
    return {**said, "Condition": {"StringEquals": dict(context)}} if context else said


def _object_statements(staged: StagedJob, here: ArnContext) -> Iterator[Statement]:
    """What is written, what comes home, and the buckets of both."""
    calls = request.api_calls(staged)
    made = [*state_machine.api_calls(staged), *calls.in_order]
    puts = [call.parameters for call in made if call.operation == "put_object"]
    output = request.output_location(calls.create.parameters)
    objects = [here.bucket_arn(put["Bucket"], _key_pattern(put["Key"], staged)) for put in puts]
    objects.append(here.bucket_arn(output[0], _key_pattern(output[1], staged) + "*"))
    yield _allow_statement("StageAndFetch", OBJECT_ACTIONS, objects)
    buckets = {*(put["Bucket"] for put in puts), output[0]}
    yield _allow_statement(
        "LookAtBuckets", BUCKET_ACTIONS, [here.bucket_arn(name) for name in buckets]
    )


def _key_pattern(key: str, staged: StagedJob) -> str:
    """A key with a star for what follows from content: the data's digest, the job's token."""
    name = staged.job.spec.name
    return SHA256.sub("*", key.replace(job_id(name, request.request_token(staged)), f"{name}-*"))


def _submit_statements(found: Iterable[RequiredPermission]) -> Iterator[Statement]:
    """The needs of a submit, those of one kind together."""
    groups: dict[tuple[str, ...], list[RequiredPermission]] = {}
    for need in found:
        service, _, action = need.action.partition(":")
        kind = (action,) if service != "kms" else ("KeyOfTheModel",)
        groups.setdefault((*kind, *sorted(need.context_keys)), []).append(need)
    for (name, *_), group in groups.items():
        resources = [need.resource for need in group]
        yield _allow_statement(
            name, {need.action for need in group}, resources, group[0].context_keys
        )


def _job_statements(here: ArnContext) -> Iterator[Statement]:
    jobs = here.arn("bedrock", "model-customization-job/*")
    yield _allow_statement("FollowJobs", FOLLOW_ACTIONS, [jobs])
    ours = {"Null": {f"aws:ResourceTag/{JOB_TAG}": "false"}}
    yield {
        **_allow_statement("StopJobs", ("bedrock:StopModelCustomizationJob",), [jobs]),
        "Condition": ours,
    }
    yield _allow_statement("Look", LIST_ACTIONS, ["*"])


def _check_statements(job: LoadedJob, here: ArnContext) -> Iterator[Statement]:
    """What `check` asks besides; without it, it says what it could not check."""
    spec = job.spec.bedrock
    role = [str(spec.role_arn)]
    oneself = f"arn:{here.partition}:iam::{here.account}:user/${{aws:username}}"
    yield _allow_statement("CheckTheRole", ("iam:GetRole", "iam:SimulatePrincipalPolicy"), role)
    yield _allow_statement("CheckOneself", ("iam:SimulatePrincipalPolicy",), [oneself])
    if spec.stack is not None:
        names = [spec.stack, *([f"{spec.stack}-jobs"] if spec.via_stack else [])]
        stacks = [here.arn("cloudformation", f"stack/{name}/*") for name in names]
        yield _allow_statement("ReadTheStack", ("cloudformation:DescribeStacks",), stacks)
    if spec.vpc is not None:
        yield _allow_statement("LookAtTheNetwork", NETWORK_ACTIONS, ["*"])
    keys = [key for key in (spec.kms_key_id, spec.s3_kms_key_id) if key and key.startswith("arn:")]
    if keys:
        yield _allow_statement("LookAtKeys", ("kms:DescribeKey",), keys)
    of_buckets = keys if spec.stack else [key for key in keys if key == spec.s3_kms_key_id]
    if of_buckets:  # a stack's key is that of its buckets, too
        via = {"kms:ViaService": f"s3.{here.region}.amazonaws.com"}
        yield _allow_statement(
            "KeysOfTheBuckets", ("kms:Decrypt", "kms:GenerateDataKey"), of_buckets, via
        )
