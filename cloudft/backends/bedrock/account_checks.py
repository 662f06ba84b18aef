"""What the account says about a job before it is submitted. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import AccountCheck, MakeFinding
from cloudft.backends.bedrock import permission_checks, request
from cloudft.backends.bedrock.account_helpers import BEDROCK, bucket_parameters
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    ResourceNotFound,
)
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

MAX_CONCURRENT_JOBS = 2
"""Customization jobs that run at the same time in one account; others wait or are refused."""


def check_account(
    job: LoadedJob, aws: Aws, finding: MakeFinding, checks: Sequence[AccountCheck] | None = None
) -> list[Finding]:
    """Identity first: without one nothing else is asked. Then `checks`, CHECKS if not given."""
    found: list[Finding] = []
    try:
        identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    except (CloudRefused, CloudUnreachable) as error:
        found.append(account_checks.unchecked_finding("the account", "bedrock", error, finding))
        return [*found, *_check_retired_offline(job, finding)]
    role = job.spec.bedrock.role_arn or ""
    account, field = str(identity["Account"]), "bedrock.role_arn"
    found += account_checks.check_role_account(role, account, field, finding)
    for what, field, check in CHECKS if checks is None else checks:
        try:
            found += check(job, aws, finding)
        except CredentialsExpired as error:
            found.append(account_checks.unchecked_finding(what, field, error, finding))
            break
        except (CloudRefused, CloudUnreachable) as error:
            found.append(account_checks.unchecked_finding(what, field, error, finding))
            if check is _check_model:
                found += _check_retired_offline(job, finding)
    return found


def alternatives(job: LoadedJob) -> str:
    """What works instead of a model that is gone."""
    kind, successor = job.spec.customization_type, job.model.successor
    open_weight = (
        "take an open-weight base_model (smollm2-135m, say), train it here or on SageMaker and"
        " import it: `cloudft submit --backend sagemaker --wait --import`"
    )
    if kind == "FINE_TUNING" and successor:
        return f"take its successor, `base_model: {successor}`; or {open_weight}."
    return f"{open_weight}: no Bedrock model offers {kind} any more."


def _end_of_life_message(job: LoadedJob) -> str:
    life = job.model.lifecycle
    when = life.date or life.note or "date unsourced"
    return f"{job.model.alias} is past its end of life on AWS ({when}; {life.source})"


def _check_retired_offline(job: LoadedJob, note: MakeFinding) -> Iterator[Finding]:
    """A model that the catalogue says is gone needs the account's own word that it is there."""
    if job.model.lifecycle.state == "end-of-life":
        yield note("ModelEndOfLife", "base_model", _end_of_life_message(job), alternatives(job))


def _check_model(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    """Is the base model there, and may it be customized so? The account's word counts."""
    name, kind = request.base_model_identifier(job), job.spec.customization_type
    if ":custom-model/" in name:
        aws.call(f"{name} can't be looked at", "bedrock", "get_custom_model", modelIdentifier=name)
        return
    answer = aws.call("models can't be listed", "bedrock", "list_foundation_models")
    identifiers = {name.rpartition("/")[2], *job.model.other_ids}
    found = [m for m in answer["modelSummaries"] if m["modelId"] in identifiers]
    gone = job.model.lifecycle.state == "end-of-life"
    if not found:
        if gone:
            yield note("ModelEndOfLife", "base_model", _end_of_life_message(job), alternatives(job))
        else:
            message = f"{name} is not among the models of {aws.location.region}"
            yield note("ModelNotThere", "base_model", message, "see `cloudft models --live`.")
        return
    state = found[0].get("modelLifecycle", {}).get("status", "ACTIVE")
    if state == "LEGACY":
        message = f"{name} is Legacy: it takes no new customization job"
        yield note("ModelLegacy", "base_model", message, alternatives(job))
    elif gone:
        message = f"{_end_of_life_message(job)}, but this account's own list offers it"
        fix = "none is needed where that list is right."
        yield note("CatalogueDrift", "base_model", message, fix, "warning")
    kinds = {kind for model in found for kind in model.get("customizationsSupported", ())}
    if kind not in kinds and kind != "REINFORCEMENT_FINE_TUNING":
        message = f"this account's list offers no {kind} of {name} (it has: {sorted(kinds)})"
        yield note("UnsupportedCustomizationType", "customization_type", message, alternatives(job))


def _check_model_access(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    name = (job.model.bedrock_id or "").rpartition("/")[2]
    if not name or ":custom-model/" in request.base_model_identifier(job):
        return
    what, operation = "access can't be looked up", "get_foundation_model_availability"
    try:
        answer = aws.call(what, "bedrock", operation, modelId=name)
    except ResourceNotFound:  # _model has said so
        return
    wanted = {
        "agreementAvailability": (answer["agreementAvailability"]["status"], "AVAILABLE"),
        "authorizationStatus": (answer["authorizationStatus"], "AUTHORIZED"),
        "entitlementAvailability": (answer["entitlementAvailability"], "AVAILABLE"),
        "regionAvailability": (answer["regionAvailability"], "AVAILABLE"),
    }
    for part, (is_, should) in wanted.items():
        if is_ != should:
            message = f"this account has no access to {name}: {part} is {is_}"
            fix = "ask for it in the Bedrock console (Model access), or accept the agreement."
            yield note("NoModelAccess", "base_model", message, fix)


def _bucket_fields(job: LoadedJob) -> dict[str, str]:
    """The job's buckets, each with the field that names it."""
    data, output = request.s3_prefix(job)[0], request.output_s3_prefix(job)[0]
    return {output: "bedrock.output_s3_uri"} | {data: "bedrock.s3_uri"}


def _check_buckets(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    for bucket, field in _bucket_fields(job).items():
        yield from account_checks.check_bucket(
            bucket_parameters(job, bucket), field, aws, note, BEDROCK
        )


def _check_public_access(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    for bucket, field in _bucket_fields(job).items():
        yield from account_checks.check_public_access(
            bucket_parameters(job, bucket), field, aws, note
        )


def _check_role(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    yield from account_checks.check_role(str(job.spec.bedrock.role_arn), aws, note, BEDROCK)


def _check_keys(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    spec = job.spec.bedrock
    for name, key in (("kms_key_id", spec.kms_key_id), ("s3_kms_key_id", spec.s3_kms_key_id)):
        if key is not None:
            yield from account_checks.check_key(key, BEDROCK.field_path(name), aws, note, BEDROCK)


def _check_network(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    vpc = job.spec.bedrock.vpc
    if vpc is None:
        return
    subnets = aws.call(
        "the subnets can't be looked at", "ec2", "describe_subnets", SubnetIds=list(vpc.subnet_ids)
    )["Subnets"]
    groups = aws.call(
        "the security groups can't be looked at",
        "ec2",
        "describe_security_groups",
        GroupIds=list(vpc.security_group_ids),
    )["SecurityGroups"]
    networks = {thing["VpcId"] for thing in (*subnets, *groups)}
    if len(networks) > 1:
        message = f"subnets and security groups lie in several VPCs: {sorted(networks)}"
        yield note("SeveralVpcs", "bedrock.vpc", message, "take those of one VPC.")
        return
    endpoints = aws.call(
        "the VPC endpoints can't be looked at",
        "ec2",
        "describe_vpc_endpoints",
        Filters=[{"Name": "vpc-id", "Values": sorted(networks)}],
    )["VpcEndpoints"]
    if not any(endpoint["ServiceName"].endswith(".s3") for endpoint in endpoints):
        vpc_id, name = networks.pop(), aws.client("ec2").meta.region_name
        message = f"{vpc_id} has no endpoint for S3: the job may not reach its data"
        make = ["ec2", "create-vpc-endpoint", "--vpc-id", vpc_id]
        make += ["--service-name", f"com.amazonaws.{name}.s3"]
        make += ["--route-table-ids", *_route_tables(aws, vpc_id)]
        fix = f"`{aws_cli_command(aws, *make)}`"
        yield note("NoS3Endpoint", "bedrock.vpc", message, fix, "warning")


def _route_tables(aws: Aws, vpc_id: str) -> list[str]:
    """The route tables of a VPC; a word for them where they may not be listed."""
    try:
        what, filters = "the route tables can't be listed", [{"Name": "vpc-id", "Values": [vpc_id]}]
        found = aws.call(what, "ec2", "describe_route_tables", Filters=filters)["RouteTables"]
    except CloudRefused:
        found = []
    return [one["RouteTableId"] for one in found] or ["ROUTE_TABLE_IDS"]


def _check_concurrency(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    if job.spec.bedrock.via_stack:  # the machine waits for a place by itself
        return
    what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    running = list(aws.paginate(what, "bedrock", operation, key, statusEquals="InProgress"))
    if len(running) >= MAX_CONCURRENT_JOBS:
        names = ", ".join(summary["jobName"] for summary in running[:5])
        message = f"{len(running)} customization jobs are running ({names})"
        fix = "submit with --queue, which waits for its turn."
        yield note("AccountBusy", "bedrock", message, fix, "warning")


CHECKS: tuple[AccountCheck, ...] = (
    ("the model", "base_model", _check_model),
    ("access to the model", "base_model", _check_model_access),
    ("the buckets", "bedrock.s3_uri", _check_buckets),
    ("the buckets' openness", "bedrock.s3_uri", _check_public_access),
    ("the role", "bedrock.role_arn", _check_role),
    ("the role's permissions", "bedrock.role_arn", permission_checks.check_role_permissions),
    ("your permissions", "bedrock", permission_checks.check_caller_permissions),
    ("the key", "bedrock.kms_key_id", _check_keys),
    ("the network", "bedrock.vpc", _check_network),
    ("the running jobs", "bedrock", _check_concurrency),
)
