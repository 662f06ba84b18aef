"""What the account says about a job before it is submitted. Reads only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from cloudft.aws.client import Aws
from cloudft.aws.commands import command
from cloudft.backends.bedrock import permissions, request
from cloudft.backends.bedrock.needs import SERVICE
from cloudft.backends.bedrock.notes import Note, where_of
from cloudft.errors import (
    AwsDenied,
    AwsNotFound,
    AwsRefused,
    AwsUnreachable,
    CredentialsExpired,
)
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

AT_ONCE = 2
"""Customization jobs that run at the same time in one account; others wait or are refused."""


KEY_COMMANDS = {
    "Disabled": ("enable-key",),
    "PendingDeletion": ("cancel-key-deletion", "enable-key"),  # it is disabled after the first
    "PendingReplicaDeletion": ("cancel-key-deletion", "enable-key"),
}
KEY_REMEDIES = {
    "PendingImport": "`aws kms import-key-material` gives it its material; or take another key.",
    "Unavailable": "`aws kms connect-custom-key-store` for its key store; or take another key.",
    "Creating": "wait a moment, then check again.",
    "Updating": "wait a moment, then check again.",
}
"""By KMS's `KeyState` (botocore 1.44.5; KMS developer guide, "Key states of AWS KMS keys")."""
Check = tuple[str, str, Callable[..., Iterator[Finding]]]
"""What is looked at, the field that it is about, and the look."""


def findings(
    job: LoadedJob, aws: Aws, note: Note, checks: Sequence[Check] | None = None
) -> list[Finding]:
    """Identity first: without one nothing else is asked. Then `checks`, CHECKS if not given."""
    found: list[Finding] = []
    try:
        identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    except (AwsRefused, AwsUnreachable) as error:
        found.append(_unchecked("the account", "bedrock", error, note))
        return [*found, *_gone_without_an_answer(job, note)]
    found += _accounts(job, str(identity["Account"]), note)
    for what, field, check in CHECKS if checks is None else checks:
        try:
            found += check(job, aws, note)
        except CredentialsExpired as error:
            found.append(_unchecked(what, field, error, note))
            break
        except (AwsRefused, AwsUnreachable) as error:
            found.append(_unchecked(what, field, error, note))
            if check is _model:
                found += _gone_without_an_answer(job, note)
    return found


def _unchecked(what: str, field: str, error: AwsRefused | AwsUnreachable, note: Note) -> Finding:
    message = f"{what} could not be checked: {error.message}"
    return note("CouldNotCheck", field, message, error.fix or "", "warning")


def _accounts(job: LoadedJob, account: str, note: Note) -> Iterator[Finding]:
    owner = (job.spec.bedrock.role_arn or "").split(":")[4]
    if owner and owner != account:
        message = f"the role belongs to account {owner}; you are in account {account}"
        fix = "name a role of this account, or use the other account's profile."
        yield note("WrongAccount", "bedrock.role_arn", message, fix)


def routes(job: LoadedJob) -> str:
    """What works instead of a model that is gone."""
    kind, successor = job.spec.customization_type, job.model.successor
    open_weight = (
        "take an open-weight base_model (smollm2-135m, say), train it here or on SageMaker and"
        " import it: `cloudft submit --backend sagemaker --wait --then import`"
    )
    if kind == "FINE_TUNING" and successor:
        return f"take its successor, `base_model: {successor}`; or {open_weight}."
    return f"{open_weight}: no Bedrock model offers {kind} any more."


def _end_of_life(job: LoadedJob) -> str:
    life = job.model.lifecycle
    when = life.date or life.note or "date unsourced"
    return f"{job.model.alias} is past its end of life on AWS ({when}; {life.source})"


def _gone_without_an_answer(job: LoadedJob, note: Note) -> Iterator[Finding]:
    """A model that the catalogue says is gone needs the account's own word that it is there."""
    if job.model.lifecycle.state == "end-of-life":
        yield note("ModelEndOfLife", "base_model", _end_of_life(job), routes(job))


def _model(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    """Is the base model there, and may it be customized so? The account's word counts."""
    name, kind = request.base_model(job), job.spec.customization_type
    if ":custom-model/" in name:
        aws.call(f"{name} can't be looked at", "bedrock", "get_custom_model", modelIdentifier=name)
        return
    answer = aws.call("models can't be listed", "bedrock", "list_foundation_models")
    identifiers = {name.rpartition("/")[2], *job.model.other_ids}
    found = [m for m in answer["modelSummaries"] if m["modelId"] in identifiers]
    gone = job.model.lifecycle.state == "end-of-life"
    if not found:
        if gone:
            yield note("ModelEndOfLife", "base_model", _end_of_life(job), routes(job))
        else:
            message = f"{name} is not among the models of {aws.place.region}"
            yield note("ModelNotThere", "base_model", message, "see `cloudft models --live`.")
        return
    state = found[0].get("modelLifecycle", {}).get("status", "ACTIVE")
    if state == "LEGACY":
        message = f"{name} is Legacy: it takes no new customization job"
        yield note("ModelLegacy", "base_model", message, routes(job))
    elif gone:
        message = f"{_end_of_life(job)}, but this account's own list offers it"
        fix = "none is needed where that list is right."
        yield note("CatalogueDrift", "base_model", message, fix, "warning")
    kinds = {kind for model in found for kind in model.get("customizationsSupported", ())}
    if kind not in kinds and kind != "REINFORCEMENT_FINE_TUNING":
        message = f"this account's list offers no {kind} of {name} (it has: {sorted(kinds)})"
        yield note("UnsupportedCustomizationType", "customization_type", message, routes(job))


def _access(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    name = (job.model.bedrock_id or "").rpartition("/")[2]
    if not name or ":custom-model/" in request.base_model(job):
        return
    what, operation = "access can't be looked up", "get_foundation_model_availability"
    try:
        answer = aws.call(what, "bedrock", operation, modelId=name)
    except AwsNotFound:  # _model has said so
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


def _places(job: LoadedJob) -> dict[str, str]:
    """The job's buckets, each with the field that names it."""
    data, output = request.prefix_of(job)[0], request.output_prefix_of(job)[0]
    return {output: "bedrock.output_s3_uri"} | {data: "bedrock.s3_uri"}


def _buckets(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    for bucket, field in _places(job).items():
        yield from _bucket(where_of(job, bucket), field, aws, note)


def _bucket(where: dict[str, str], field: str, aws: Aws, note: Note) -> Iterator[Finding]:
    bucket, region = where["Bucket"], aws.place.region
    try:
        answer = aws.call(f"{bucket} can't be looked at", "s3", "head_bucket", **where)
    except AwsNotFound:
        fix = f"`{command(aws, 's3', 'mb', f's3://{bucket}')}`, or correct {field}."
        yield note("NoBucket", field, f"there is no bucket {bucket}", fix)
        return
    except AwsDenied as error:
        message = (
            f"{error.message} (not yours, or not of account {where.get('ExpectedBucketOwner')})"
        )
        fix = f"correct {field}, or set bedrock.bucket_owner; you need s3:ListBucket."
        yield note("BucketDenied", field, message, fix)
        return
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    its = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or region
    if its != region:
        message = f"the bucket {bucket} is in {its}, the job in {region}: Bedrock wants one Region"
        yield note("WrongRegion", field, message, f"take a bucket in {region}.")


def _openness(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    for bucket, field in _places(job).items():
        yield from _open(where_of(job, bucket), field, aws, note)


def _open(where: dict[str, str], field: str, aws: Aws, note: Note) -> Iterator[Finding]:
    bucket = where["Bucket"]
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    closed = ",".join(f"{name}=true" for name in names)
    words = ("s3api", "put-public-access-block", "--bucket", bucket)
    fix = f"`{command(aws, *words, '--public-access-block-configuration', closed)}`"
    what = f"the public access of {bucket} can't be looked at"
    try:
        answer = aws.call(what, "s3", "get_public_access_block", **where)
        settings = answer["PublicAccessBlockConfiguration"]
    except AwsRefused as error:
        if "NoSuchPublicAccessBlockConfiguration" not in error.message:
            raise
        settings = {}
    if not (settings.get("BlockPublicPolicy") and settings.get("RestrictPublicBuckets")):
        message = f"nothing keeps {bucket} from being made public"
        yield note("BucketNotBlocked", field, message, fix, "warning")


JOBS = ("model-customization-job", "model-invocation-job")
"""What takes the role on: the job, and the batches of an evaluation of its model."""


def trust_policy(region: str, role: str, kinds: Sequence[str] = JOBS) -> dict[str, Any]:
    """The trust that a service role needs (Bedrock user guide, "Service role")."""
    _, partition, _, _, account, *_ = role.split(":")
    sources = [f"arn:{partition}:bedrock:{region}:{account}:{kind}/*" for kind in kinds]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": SERVICE},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {"aws:SourceAccount": account},
                    "ArnLike": {"aws:SourceArn": sources},
                },
            }
        ],
    }


def _role(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    arn, field = str(job.spec.bedrock.role_arn), "bedrock.role_arn"
    name, account = arn.rpartition("/")[2], arn.split(":")[4]
    try:
        answer = aws.call(f"the role {name} can't be looked at", "iam", "get_role", RoleName=name)
    except AwsNotFound:
        fix = "make it with this trust policy: " + json.dumps(
            trust_policy(str(aws.place.region), arn)
        )
        yield note("NoRole", field, f"there is no role {name}", fix)
        return
    document = answer["Role"]["AssumeRolePolicyDocument"]
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    fix = "trust policy: " + json.dumps(trust_policy(str(aws.place.region), arn))
    trusting = [s for s in _statements(policy) if _trusts(s)]
    if not trusting:
        yield note("RoleNotTrusted", field, f"{SERVICE} may not assume the role {name}", fix)
        return
    for statement in trusting:
        yield from _conditions(statement, account, str(aws.place.region), name, fix, note)


def _statements(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    statements = policy.get("Statement", [])
    return [statements] if isinstance(statements, Mapping) else list(statements)


def _trusts(statement: Mapping[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    services = principal.get("Service", []) if isinstance(principal, Mapping) else []
    return statement.get("Effect") == "Allow" and SERVICE in _list(services)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _conditions(
    statement: Mapping[str, Any], account: str, region: str, name: str, fix: str, note: Note
) -> Iterator[Finding]:
    """A confused-deputy guard that names another account or Region locks the job out."""
    field = "bedrock.role_arn"
    conditions = {
        key.lower(): _list(value)
        for operator in statement.get("Condition", {}).values()
        for key, value in operator.items()
    }
    accounts = conditions.get("aws:sourceaccount")
    if accounts and account not in accounts:
        message = f"the trust of {name} asks for aws:SourceAccount {accounts}, not {account}"
        yield note("RoleNotTrusted", field, message, fix)
    for pattern in conditions.get("aws:sourcearn", ()):
        parts = pattern.split(":")
        if len(parts) < 6 or parts[3] not in ("*", region) or parts[4] not in ("*", account):
            message = f"the trust of {name} asks for aws:SourceArn {pattern}: no job here has it"
            yield note("RoleNotTrusted", field, message, fix)
    if not conditions:
        message = f"any account's Bedrock may assume {name}: its trust has no condition"
        yield note("RoleOpen", field, message, fix, "warning")


def _keys(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    spec = job.spec.bedrock
    for field, key in (("kms_key_id", spec.kms_key_id), ("s3_kms_key_id", spec.s3_kms_key_id)):
        if key is None:
            continue
        place = f"bedrock.{field}"
        try:
            answer = aws.call(f"{key} can't be looked at", "kms", "describe_key", KeyId=key)
        except AwsNotFound:
            fix = f"`{command(aws, 'kms', 'list-aliases')}` shows the keys."
            yield note("NoKey", place, f"there is no key {key} in {aws.place.region}", fix)
            continue
        told = answer["KeyMetadata"]
        if told.get("KeyState", "Enabled") != "Enabled":
            fix = key_remedy(aws, told["KeyState"], told["KeyId"])
            yield note("KeyDisabled", place, f"the key {key} is {told['KeyState']}", fix)
        if told.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
            message = f"the key {key} is {told['KeySpec']}: Bedrock wants a symmetric one"
            yield note("KeyNotSymmetric", place, message, "take a symmetric key.")


def key_remedy(aws: Aws, state: str, key_id: str) -> str:
    """Return how a KMS key of that state becomes usable again."""
    words = KEY_COMMANDS.get(state, ())
    made = " && ".join(command(aws, "kms", word, "--key-id", key_id) for word in words)
    return f"`{made}`, or take another key." if made else KEY_REMEDIES[state]


def _network(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
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
        make += ["--route-table-ids", *_tables(aws, vpc_id)]
        fix = f"`{command(aws, *make)}`"
        yield note("NoS3Endpoint", "bedrock.vpc", message, fix, "warning")


def _tables(aws: Aws, vpc_id: str) -> list[str]:
    """The route tables of a VPC; a word for them where they may not be listed."""
    try:
        what, filters = "the route tables can't be listed", [{"Name": "vpc-id", "Values": [vpc_id]}]
        found = aws.call(what, "ec2", "describe_route_tables", Filters=filters)["RouteTables"]
    except AwsRefused:
        found = []
    return [one["RouteTableId"] for one in found] or ["ROUTE_TABLE_IDS"]


def _running(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    if job.spec.bedrock.via_stack:  # the machine waits for a place by itself
        return
    what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    running = list(aws.pages(what, "bedrock", operation, key, statusEquals="InProgress"))
    if len(running) >= AT_ONCE:
        names = ", ".join(summary["jobName"] for summary in running[:5])
        message = f"{len(running)} customization jobs are running ({names})"
        fix = "submit with --queue, which waits for its turn."
        yield note("AccountBusy", "bedrock", message, fix, "warning")


CHECKS: tuple[Check, ...] = (
    ("the model", "base_model", _model),
    ("access to the model", "base_model", _access),
    ("the buckets", "bedrock.s3_uri", _buckets),
    ("the buckets' openness", "bedrock.s3_uri", _openness),
    ("the role", "bedrock.role_arn", _role),
    ("the role's permissions", "bedrock.role_arn", permissions.of_role),
    ("your permissions", "bedrock", permissions.of_caller),
    ("the key", "bedrock.kms_key_id", _keys),
    ("the network", "bedrock.vpc", _network),
    ("the running jobs", "bedrock", _running),
)
