"""Check a job against the account before it is submitted. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.s3 import split_s3_uri
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import AccountCheck, MakeFinding
from cloudft.backends.bedrock import grader_checks, permission_checks, request, service_quotas
from cloudft.backends.bedrock.account_helpers import BEDROCK, bucket_parameters
from cloudft.backends.bedrock.invocation_logs import LOGS, check_logging
from cloudft.catalogue import CUSTOMIZATION_TYPES, is_labeled
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    ResourceNotFound,
)
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

MAX_CONCURRENT_JOBS = 2
"""Customization jobs that run at the same time in one account; further ones wait or are refused.

It can't be raised, and Service Quotas does not list it. Source: hashicorp/terraform-provider-aws,
pull request 37990 (2024-06-14). How many may be scheduled is another limit: see quotas.yaml."""
END_IS_NEAR = timedelta(days=180)
"""A model is Legacy for six months at least before it ends (user guide, "Model lifecycle")."""


def check_account(
    job: LoadedJob, aws: Aws, finding: MakeFinding, checks: Sequence[AccountCheck] | None = None
) -> list[Finding]:
    """Return the findings of `checks`, or of CHECKS if None.

    The identity is checked first: without one no check can be made. What can't be read is a
    finding too, and expired credentials end the checks.
    """
    findings: list[Finding] = []
    try:
        identity = aws.call("the identity can't be read", "sts", "get_caller_identity")
    except (CloudRefused, CloudUnreachable) as error:
        findings.append(account_checks.unchecked_finding("the account", "bedrock", error, finding))
        return [*findings, *check_retired_offline(job, finding)]
    role = job.spec.bedrock.role_arn or ""
    account, field = str(identity["Account"]), "bedrock.role_arn"
    findings += account_checks.check_role_account(role, account, field, finding)
    for subject, field, check in CHECKS if checks is None else checks:
        try:
            findings += check(job, aws, finding)
        except CredentialsExpired as error:
            findings.append(account_checks.unchecked_finding(subject, field, error, finding))
            break
        except (CloudRefused, CloudUnreachable) as error:
            findings.append(account_checks.unchecked_finding(subject, field, error, finding))
            if check is _check_model:
                findings += check_retired_offline(job, finding)
    return findings


def alternatives(job: LoadedJob) -> str:
    """Return the fix for a retired model: its successor, or an open-weight model."""
    name, successor = job.spec.customization_type, job.model.successor
    open_weight = (
        "choose an open-weight base_model (such as smollm2-135m), train it locally or on SageMaker"
        " and import it: `cloudft submit --backend sagemaker --wait --import`"
    )
    if is_labeled(name) and successor:
        return f"use its successor, `base_model: {successor}`; or {open_weight}."
    return f"{open_weight}: no Bedrock model offers {name} any more."


def _end_of_life_message(job: LoadedJob) -> str:
    life = job.model.lifecycle
    when = life.date or life.note or "date unsourced"
    return f"{job.model.alias} is past its end of life on AWS ({when}; {life.source})"


def check_retired_offline(job: LoadedJob, finding: MakeFinding) -> Iterator[Finding]:
    """Report a model that the catalogue lists as retired, where the account can't be read.

    Only the account can confirm that such a model is still available.
    """
    life = job.model.lifecycle
    if life.state == "end-of-life":
        yield finding("ModelEndOfLife", "base_model", _end_of_life_message(job), alternatives(job))
    elif life.state == "legacy":
        ends = f" and ends on {life.date}" if life.date else ""
        message = f"{job.model.alias} is Legacy{ends} ({life.source}):"
        message += " AWS documents that such a model takes no new customization job"
        yield finding("ModelLegacy", "base_model", message, alternatives(job), "warning")


def _check_model(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Check that the account lists the base model with this customization type.

    The account's list wins over the catalogue.
    """
    name = request.base_model_identifier(job)
    if ":custom-model/" in name:
        aws.call(f"can't read {name}", "bedrock", "get_custom_model", modelIdentifier=name)
        return
    response = aws.call("models can't be listed", "bedrock", "list_foundation_models")
    identifiers = {name.rpartition("/")[2], *job.model.other_ids}
    models = [model for model in response["modelSummaries"] if model["modelId"] in identifiers]
    if not models:
        yield _unlisted_model(job, aws, name, finding)
        return
    life = models[0].get("modelLifecycle", {})
    if life.get("status", "ACTIVE") == "LEGACY":
        message = f"{name} is Legacy: it takes no new customization job"
        yield finding("ModelLegacy", "base_model", message, alternatives(job))
    elif job.model.lifecycle.state == "end-of-life":
        message = f"{_end_of_life_message(job)}, but this account's own list offers it"
        fix = "none is needed where that list is right."
        yield finding("CatalogueDrift", "base_model", message, fix, "warning")
    yield from _check_end_date(job, life, finding)
    job_type = job.spec.customization_type
    offered = {kind for model in models for kind in model.get("customizationsSupported", ())}
    if job_type not in offered and CUSTOMIZATION_TYPES[job_type].is_listed:
        message = f"this account's list offers no {job_type} of {name} (it has: {sorted(offered)})"
        fix = alternatives(job)
        yield finding("UnsupportedCustomizationType", "customization_type", message, fix)


def _check_end_date(
    job: LoadedJob, life: Mapping[str, Any], finding: MakeFinding
) -> Iterator[Finding]:
    """Warn about a model whose end is near: what is tuned from it can't be called after it."""
    end, today = life.get("endOfLifeTime"), datetime.now(timezone.utc)
    if end is not None and today < end < today + END_IS_NEAR:
        message = f"{job.model.alias} reaches its end of life on {end:%Y-%m-%d}, says this account"
        fix = f"a tuned model can't be called after it: {alternatives(job)}"
        yield finding("ModelEndsSoon", "base_model", message, fix, "warning")


def _unlisted_model(job: LoadedJob, aws: Aws, name: str, finding: MakeFinding) -> Finding:
    """Return the finding for a model that the account does not list."""
    if job.model.lifecycle.state == "end-of-life":
        return finding("ModelEndOfLife", "base_model", _end_of_life_message(job), alternatives(job))
    message = f"{name} is not among the models of {aws.location.region}"
    return finding("ModelNotThere", "base_model", message, "see `cloudft models --live`.")


def _check_model_access(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    name = (job.model.bedrock_id or "").rpartition("/")[2]
    if not name or ":custom-model/" in request.base_model_identifier(job):
        return
    failure, operation = (
        "the access to the model can't be read",
        "get_foundation_model_availability",
    )
    try:
        response = aws.call(failure, "bedrock", operation, modelId=name)
    except ResourceNotFound:  # _check_model has reported it
        return
    states = {
        "agreementAvailability": (response["agreementAvailability"]["status"], "AVAILABLE"),
        "authorizationStatus": (response["authorizationStatus"], "AUTHORIZED"),
        "entitlementAvailability": (response["entitlementAvailability"], "AVAILABLE"),
        "regionAvailability": (response["regionAvailability"], "AVAILABLE"),
    }
    for member, (state, required) in states.items():
        if state != required:
            message = f"this account has no access to {name}: {member} is {state}"
            fix = "request it in the Bedrock console (Model access), or accept the agreement."
            yield finding("NoModelAccess", "base_model", message, fix)


def _bucket_fields(job: LoadedJob) -> dict[str, str]:
    """Return the job's buckets, each with the field that names it; the data's wins."""
    data, output = request.s3_prefix(job)[0], request.output_s3_prefix(job)[0]
    logs = job.spec.data.invocation_logs
    own = {output: "bedrock.output_s3_uri"} | {data: "bedrock.s3_uri"}
    return own if logs is None else {split_s3_uri(logs.s3_uri)[0]: f"{LOGS}.s3_uri"} | own


def _check_buckets(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    for bucket, field in _bucket_fields(job).items():
        parameters = bucket_parameters(job, bucket)
        yield from account_checks.check_bucket(parameters, field, aws, finding, BEDROCK)


def _check_public_access(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    for bucket, field in _bucket_fields(job).items():
        parameters = bucket_parameters(job, bucket)
        yield from account_checks.check_public_access(parameters, field, aws, finding)


def _check_role(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    yield from account_checks.check_role(str(job.spec.bedrock.role_arn), aws, finding, BEDROCK)


def _check_keys(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    spec = job.spec.bedrock
    for name, key in (("kms_key_id", spec.kms_key_id), ("s3_kms_key_id", spec.s3_kms_key_id)):
        if key is not None:
            field = BEDROCK.field_path(name)
            yield from account_checks.check_key(key, field, aws, finding, BEDROCK)


def _check_network(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Check that subnets and security groups are of one VPC, and that it reaches S3."""
    vpc = job.spec.bedrock.vpc
    if vpc is None:
        return
    subnets = aws.call(
        "can't read the subnets", "ec2", "describe_subnets", SubnetIds=list(vpc.subnet_ids)
    )["Subnets"]
    groups = aws.call(
        "can't read the security groups",
        "ec2",
        "describe_security_groups",
        GroupIds=list(vpc.security_group_ids),
    )["SecurityGroups"]
    vpc_ids = {resource["VpcId"] for resource in (*subnets, *groups)}
    if len(vpc_ids) > 1:
        message = f"subnets and security groups are in several VPCs: {sorted(vpc_ids)}"
        yield finding("SeveralVpcs", "bedrock.vpc", message, "choose those of one VPC.")
        return
    endpoints = aws.call(
        "can't read the VPC endpoints",
        "ec2",
        "describe_vpc_endpoints",
        Filters=[{"Name": "vpc-id", "Values": sorted(vpc_ids)}],
    )["VpcEndpoints"]
    if not any(endpoint["ServiceName"].endswith(".s3") for endpoint in endpoints):
        vpc_id = vpc_ids.pop()
        message = f"{vpc_id} has no endpoint for S3: the job may not reach its data"
        fix = _create_endpoint_fix(aws, vpc_id)
        yield finding("NoS3Endpoint", "bedrock.vpc", message, fix, "warning")


def _create_endpoint_fix(aws: Aws, vpc_id: str) -> str:
    """Return the AWS CLI command that creates an endpoint for S3 in a VPC."""
    service = f"com.amazonaws.{aws.client('ec2').meta.region_name}.s3"
    arguments = ["ec2", "create-vpc-endpoint", "--vpc-id", vpc_id, "--service-name", service]
    arguments += ["--route-table-ids", *_route_tables(aws, vpc_id)]
    return f"`{aws_cli_command(aws, *arguments)}`"


def _route_tables(aws: Aws, vpc_id: str) -> list[str]:
    """Return the route tables of a VPC; a placeholder where they may not be listed."""
    failure, filters = "the route tables can't be listed", [{"Name": "vpc-id", "Values": [vpc_id]}]
    try:
        response = aws.call(failure, "ec2", "describe_route_tables", Filters=filters)
    except CloudRefused:
        return ["ROUTE_TABLE_IDS"]
    return [table["RouteTableId"] for table in response["RouteTables"]] or ["ROUTE_TABLE_IDS"]


def _check_concurrency(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    if job.spec.bedrock.via_stack:  # the state machine itself waits until a job may start
        return
    failure, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    running = list(aws.paginate(failure, "bedrock", operation, key, statusEquals="InProgress"))
    if len(running) >= MAX_CONCURRENT_JOBS:
        names = ", ".join(summary["jobName"] for summary in running[:5])
        message = f"{len(running)} customization jobs are running ({names})"
        fix = "submit with --queue, which waits until one has ended."
        yield finding("AccountBusy", "bedrock", message, fix, "warning")


CHECKS: tuple[AccountCheck, ...] = (
    ("the model", "base_model", _check_model),
    ("access to the model", "base_model", _check_model_access),
    ("the buckets", "bedrock.s3_uri", _check_buckets),
    ("the buckets' public access", "bedrock.s3_uri", _check_public_access),
    ("the logging of invocations", LOGS, check_logging),
    ("the role", "bedrock.role_arn", _check_role),
    ("the inference profiles", "bedrock", permission_checks.check_profiles),
    ("the role's permissions", "bedrock.role_arn", permission_checks.check_role_permissions),
    ("your permissions", "bedrock", permission_checks.check_caller_permissions),
    ("the grader", grader_checks.ARN_FIELD, grader_checks.check_grader),
    ("the key", "bedrock.kms_key_id", _check_keys),
    ("the network", "bedrock.vpc", _check_network),
    ("the running jobs", "bedrock", _check_concurrency),
    ("the quotas", "bedrock", service_quotas.check_job_quotas),
)
