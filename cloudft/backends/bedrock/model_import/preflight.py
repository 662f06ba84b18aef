"""Check the location of an import before a model is merged and sent."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from urllib.parse import unquote

from cloudft.aws.client import Aws, Response
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


def check_job(job: LoadedJob, aws: Aws, model_prefix: str | None = None) -> list[Finding]:
    """Return the findings about an import: of the job file, then of the account.

    The account is checked where the job file has no error. `model_prefix` is that of a model that
    lies in the job file's bucket already.
    """
    finding = FindingFactory(job)
    findings = list(_check_settings(job, finding))
    if any(one.severity == "error" for one in findings):
        return findings
    findings += _check_request(job, finding)
    checks = [check for check in account_checks.CHECKS if check[0] not in SKIPPED_CHECKS]
    checks += [
        ("the role's trust", ROLE_FIELD, _check_trust),
        (
            "the role's permissions",
            ROLE_FIELD,
            partial(_check_read_permissions, model_prefix=model_prefix),
        ),
    ]
    import_job = _with_import_role(job)
    return [*findings, *account_checks.check_account(import_job, aws, finding, checks)]


def _check_settings(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    spec, rules = job.spec.bedrock, load_import_rules()
    if spec.region is None:
        fix = "set bedrock.region, --region or AWS_REGION."
        yield finding("MissingValue", "bedrock.region", "no AWS Region is set", fix)
    elif spec.region not in rules.regions:
        message = f"models are imported in {', '.join(rules.regions)}, not in {spec.region}"
        severity: Severity = "warning" if spec.endpoint_url else "error"
        fix = f"set bedrock.region: {rules.regions[0]}, with a bucket there ({rules.source})."
        yield finding("ImportRegion", "bedrock.region", message, fix, severity)
    if import_role(job) is None:
        fix = f"set {ROLE_FIELD} to a role that bedrock.amazonaws.com may assume for import jobs."
        yield finding("MissingValue", ROLE_FIELD, "no role is set that reads the model", fix)
    if spec.s3_uri is None:
        fix = "set bedrock.s3_uri: s3://BUCKET/PREFIX, in the Region of the import."
        yield finding("MissingValue", "bedrock.s3_uri", "no S3 location is set", fix)


def _with_import_role(job: LoadedJob) -> LoadedJob:
    """Return the job with the import's role as its role, which the shared checks read."""
    bedrock = job.spec.bedrock.model_copy(update={"role_arn": import_role(job)})
    return dataclasses.replace(job, spec=job.spec.model_copy(update={"bedrock": bedrock}))


def _check_request(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Validate the request against the service model: patterns, lengths."""
    placeholder = StagedFile(0, 0, 0, name="config.json", sha256="0" * 64, bytes=0)
    empty = Manifest("0" * 64, job.spec.customization_type, "", job.spec.seed, {}, (), "")
    merged = MergedJob(job, empty, job.base_dir, files={placeholder.name: placeholder})
    for problem in validate_request("bedrock", "CreateModelImportJob", create_request(merged)):
        yield finding("BadRequest", "bedrock", problem, "correct it in the job file.")


def _check_trust(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Check that the role's trust policy allows import jobs, not customization jobs alone."""
    arn = str(job.spec.bedrock.role_arn)
    name = arn.rpartition("/")[2]
    role = aws.call(f"can't read the role {name}", "iam", "get_role", RoleName=name)["Role"]
    document = role["AssumeRolePolicyDocument"]
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    trust = BEDROCK.trust_policy(str(aws.location.region), arn, ["model-import-job"])
    [statement] = trust["Statement"]
    [pattern] = statement["Condition"]["ArnLike"]["aws:SourceArn"]
    job_arn = pattern.replace("*", "abcdefghijkl")  # the form of a job's id
    patterns = list(_source_arns(policy))
    if patterns and not any(fnmatchcase(job_arn, pattern) for pattern in patterns):
        message = f"the trust of {name} requires aws:SourceArn {patterns}: no import job has it"
        fix = "add to its trust policy: " + json.dumps(statement)
        yield finding("RoleNotTrusted", ROLE_FIELD, message, fix)


def _source_arns(policy: Response) -> Iterator[str]:
    """Yield the patterns of aws:SourceArn in a trust policy's conditions."""
    statements = policy.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        for condition in statement.get("Condition", {}).values():
            for key, value in condition.items():
                if key.lower() == "aws:sourcearn":
                    yield from [value] if isinstance(value, str) else value


def _check_read_permissions(
    job: LoadedJob, aws: Aws, finding: MakeFinding, model_prefix: str | None = None
) -> Iterator[Finding]:
    """Check with the policy simulator that the role may read the model's location."""
    role = str(job.spec.bedrock.role_arn)
    for permission, decision in denied_permissions(aws, role, role_permissions(job, model_prefix)):
        message = f"the role may not {permission.action} on {permission.resource} ({decision})"
        fix = "add to its policy: " + json.dumps(policy_statement(permission))
        yield finding("RoleDenied", ROLE_FIELD, message, fix)


def role_permissions(
    job: LoadedJob, model_prefix: str | None = None
) -> Iterator[RequiredPermission]:
    """Yield what the import's role must be allowed: to read the model, and to use the VPC.

    Source: Bedrock user guide, "Protect custom model import jobs using a VPC".
    """
    bucket, prefix = request.s3_prefix(job)
    staged_prefix = f"{prefix}{MODELS_PREFIX}" if model_prefix is None else model_prefix
    arns, keys = arn_context(job), f"{staged_prefix}*"
    yield RequiredPermission("s3:ListBucket", arns.bucket_arn(bucket), {"s3:prefix": keys})
    yield RequiredPermission("s3:GetObject", arns.bucket_arn(bucket, keys))
    vpc = job.spec.bedrock.vpc
    if vpc is not None:
        tag = "BedrockModelImportJobArn"
        yield from network_interface_permissions(vpc, arns, tag, "model-import-job")
