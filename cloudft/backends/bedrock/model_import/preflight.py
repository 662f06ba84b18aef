"""Everything that can be known of an import's place before a model is merged and sent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from cloudft.aws.client import Aws
from cloudft.aws.permissions import RequiredPermission, denied_permissions, policy_statement
from cloudft.aws.request_validation import validate_request
from cloudft.backends.aws_base.account_checks import MakeFinding
from cloudft.backends.bedrock import account_checks, request
from cloudft.backends.bedrock.account_helpers import BEDROCK
from cloudft.backends.bedrock.model_import.request import (
    MODELS_PREFIX,
    MergedJob,
    create_request,
    import_role,
)
from cloudft.backends.bedrock.required_permissions import arn_context, network_interface_permissions
from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import load_import_rules
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Manifest, Severity, StagedFile

SKIPPED_CHECKS = {
    *("the model", "access to the model", "the role's permissions", "your permissions"),
    "the running jobs",
}
ROLE_FIELD = "bedrock.import_role_arn"


def check_job(job: LoadedJob, aws: Aws) -> list[Finding]:
    """Off line first; the account is asked when the job file says enough for it."""
    note = FindingFactory(job)
    found = list(_check_settings(job, note))
    if any(finding.severity == "error" for finding in found):
        return found
    found += _check_request(job, note)
    checks = [check for check in account_checks.CHECKS if check[0] not in SKIPPED_CHECKS]
    checks += [
        ("the role's trust", ROLE_FIELD, _check_trust),
        ("the role's permissions", ROLE_FIELD, _check_read_permissions),
    ]
    return [*found, *account_checks.check_account(_with_import_role(job), aws, note, checks)]


def _check_settings(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    spec, rules = job.spec.bedrock, load_import_rules()
    if spec.region is None:
        fix = "set bedrock.region, --region or AWS_REGION."
        yield note("MissingValue", "bedrock.region", "no AWS Region is named", fix)
    elif spec.region not in rules.regions:
        message = f"models are imported in {', '.join(rules.regions)}, not in {spec.region}"
        severity: Severity = "warning" if spec.endpoint_url else "error"
        fix = f"set bedrock.region: {rules.regions[0]}, with a bucket there ({rules.source})."
        yield note("ImportRegion", "bedrock.region", message, fix, severity)
    if import_role(job) is None:
        fix = f"set {ROLE_FIELD} to a role that bedrock.amazonaws.com may assume for import jobs."
        yield note("MissingValue", ROLE_FIELD, "no role is named that reads the model", fix)
    if spec.s3_uri is None:
        fix = "set bedrock.s3_uri: s3://BUCKET/PREFIX, in the Region of the import."
        yield note("MissingValue", "bedrock.s3_uri", "no place in S3 is named", fix)


def _with_import_role(job: LoadedJob) -> LoadedJob:
    """The job as if the importing role were its only one: what the common checks look at."""
    bedrock = job.spec.bedrock.model_copy(update={"role_arn": import_role(job)})
    return dataclasses.replace(job, spec=job.spec.model_copy(update={"bedrock": bedrock}))


def _check_request(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    """The request itself against the service model: patterns, lengths."""
    nothing = StagedFile(0, 0, 0, name="config.json", sha256="0" * 64, bytes=0)
    empty = Manifest("0" * 64, job.spec.customization_type, "", job.spec.seed, {}, (), "")
    merged = MergedJob(job, empty, job.base_dir, files={nothing.name: nothing})
    for problem in validate_request("bedrock", "CreateModelImportJob", create_request(merged)):
        yield note("BadRequest", "bedrock", problem, "correct it in the job file.")


def _check_trust(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    """A guard for customization jobs alone locks import jobs out."""
    arn = str(job.spec.bedrock.role_arn)
    name = arn.rpartition("/")[2]
    what = f"the role {name} can't be looked at"
    document = aws.call(what, "iam", "get_role", RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    [wanted] = BEDROCK.trust_policy(str(aws.location.region), arn, ["model-import-job"])[
        "Statement"
    ]
    ours = wanted["Condition"]["ArnLike"]["aws:SourceArn"][0].replace("*", "abcdefghijkl")
    patterns = list(_source_arns(policy))
    if patterns and not any(fnmatchcase(ours, pattern) for pattern in patterns):
        message = f"the trust of {name} asks for aws:SourceArn {patterns}: no import job has it"
        fix = "add to its trust policy: " + json.dumps(wanted)
        yield note("RoleNotTrusted", ROLE_FIELD, message, fix)


def _source_arns(policy: Any) -> Iterator[str]:
    statements = policy.get("Statement", [])
    for one in [statements] if isinstance(statements, dict) else statements:
        for condition in one.get("Condition", {}).values():
            for key, value in condition.items():
                if key.lower() == "aws:sourcearn":
                    yield from [value] if isinstance(value, str) else value


def _check_read_permissions(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    """Whether the role may read where the model will lie, by the policy simulator."""
    for need, decision in denied_permissions(
        aws, str(job.spec.bedrock.role_arn), role_permissions(job)
    ):
        message = f"the role may not {need.action} on {need.resource} ({decision})"
        fix = "add to its policy: " + json.dumps(policy_statement(need))
        yield note("RoleDenied", ROLE_FIELD, message, fix)


def role_permissions(job: LoadedJob) -> Iterator[RequiredPermission]:
    """What the importing role must be allowed: to list and read what lies there, and the network.

    Source: Bedrock user guide, "Protect custom model import jobs using a VPC".
    """
    bucket, prefix = request.s3_prefix(job)
    here = arn_context(job)
    yield RequiredPermission(
        "s3:ListBucket", here.bucket_arn(bucket), {"s3:prefix": f"{prefix}{MODELS_PREFIX}*"}
    )
    yield RequiredPermission("s3:GetObject", here.bucket_arn(bucket, f"{prefix}{MODELS_PREFIX}*"))
    if job.spec.bedrock.vpc is not None:
        tag = "BedrockModelImportJobArn"
        yield from network_interface_permissions(
            job.spec.bedrock.vpc, here, tag, "model-import-job"
        )
