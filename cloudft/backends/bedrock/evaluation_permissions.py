"""Check what role and caller may do before an evaluation job is created.

Source: Bedrock user guide, "Required service role permissions for creating a model evaluation job
that uses a judge model" and "Prerequisites" of "Create a model evaluation job that uses a model as
judge". That the caller needs CreateEvaluationJob on the judge's ARN, too, was reported of a run.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.backends.aws_base import account_checks
from cloudft.backends.bedrock.account_helpers import BEDROCK
from cloudft.backends.bedrock.batch_inference import BatchLocation
from cloudft.backends.bedrock.required_permissions import SERVICE_PRINCIPAL
from cloudft.backends.evaluation_jobs import EvaluationPlan
from cloudft.catalogue.evaluation_metrics import judge_model_id
from cloudft.errors import CloudRefused, CloudUnreachable
from cloudft.types import Finding, Severity

RESOURCE_TYPE = "evaluation-job"


def make_finding(
    code: str, field: str, message: str, fix: str, severity: Severity = "error"
) -> Finding:
    """Return a finding that is about no line of a job file."""
    return Finding(severity, code, message, fix, None, None, field)


def check_permissions(aws: Aws, location: BatchLocation, plan: EvaluationPlan) -> Iterator[Finding]:
    """Yield a finding for each permission that is missing, and for what could not be checked."""
    role = parse_arn(location.role_arn)
    arns = ArnContext(role.partition, str(aws.region), role.account)
    judges = list(judge_arns(plan.settings.judge, arns))

    def check_role() -> Iterator[Finding]:
        yield from account_checks.check_role(location.role_arn, aws, make_finding, BEDROCK)
        permissions = role_permissions(location, arns, judges)
        yield from account_checks.check_role_permissions(
            location.role_arn, permissions, aws, make_finding, BEDROCK
        )

    def check_caller() -> Iterator[Finding]:
        permissions = caller_permissions(location, arns, judges)
        yield from account_checks.check_caller_permissions(permissions, aws, make_finding, BEDROCK)

    for what, check in (("the role", check_role), ("your permissions", check_caller)):
        try:
            yield from list(check())
        except (CloudRefused, CloudUnreachable) as error:
            field = BEDROCK.field_path("role_arn")
            yield account_checks.unchecked_finding(what, field, error, make_finding)


def judge_arns(judge: str, arns: ArnContext) -> Iterator[str]:
    """Yield the ARNs that a judge is invoked by: the model's, and its profile's if it has one."""
    model = str(judge_model_id(judge))
    name = judge.rpartition("/")[2]
    if name == model:
        yield arns.arn("bedrock", f"foundation-model/{model}", account=False)
        return
    # A profile sends requests to other Regions, too: its model is needed in each of them.
    yield arns.arn("bedrock", f"inference-profile/{name}")
    yield f"arn:{arns.partition}:bedrock:*::foundation-model/{model}"


def role_permissions(
    location: BatchLocation, arns: ArnContext, judges: list[str]
) -> Iterator[RequiredPermission]:
    """Yield what the service role must be allowed: to invoke the judge, to read and to write."""
    yield from (RequiredPermission("bedrock:InvokeModel", judge) for judge in judges)
    keys = f"{location.prefix}*"
    prefix = {"s3:prefix": keys}
    yield RequiredPermission("s3:ListBucket", arns.bucket_arn(location.bucket), prefix, "warning")
    for action in ("s3:GetObject", "s3:PutObject"):
        yield RequiredPermission(action, arns.bucket_arn(location.bucket, keys))


def caller_permissions(
    location: BatchLocation, arns: ArnContext, judges: list[str]
) -> Iterator[RequiredPermission]:
    """Yield what the caller must be allowed: to create, tag and follow the jobs."""
    jobs = arns.arn("bedrock", f"{RESOURCE_TYPE}/*")
    for resource in (jobs, *judges):
        yield RequiredPermission("bedrock:CreateEvaluationJob", resource)
    yield RequiredPermission("bedrock:TagResource", jobs)
    yield RequiredPermission("bedrock:GetEvaluationJob", jobs)
    passed = {"iam:PassedToService": SERVICE_PRINCIPAL}
    yield RequiredPermission("iam:PassRole", location.role_arn, passed)
