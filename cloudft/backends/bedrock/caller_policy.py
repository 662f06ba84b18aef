"""Build the least-privilege IAM policy for checking, submitting and following a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from cloudft.aws.permissions import ArnContext, Policy, RequiredPermission, Statement
from cloudft.aws.tags import JOB_TAG
from cloudft.backends.aws_base.grader_package import STACK_SUFFIX
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request, required_permissions, state_machine
from cloudft.backends.bedrock.batch_inference import BATCHES
from cloudft.backends.bedrock.inference_profiles import INVOKE, INVOKE_STREAM, profile_arn
from cloudft.spec.load import LoadedJob
from cloudft.types import job_id

SHA256 = re.compile(r"[0-9a-f]{64}")
OBJECT_ACTIONS = (
    "s3:AbortMultipartUpload",
    "s3:GetObject",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
)
"""Actions of an upload: large files go in parts, and a file in S3 is not sent again."""
BUCKET_ACTIONS = (
    "s3:GetBucketPublicAccessBlock",
    "s3:GetEncryptionConfiguration",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
)
LIST_ACTIONS = (
    "bedrock:GetFoundationModelAvailability",
    "bedrock:ListCustomModels",
    "bedrock:ListFoundationModels",
    "bedrock:ListModelCustomizationJobs",
    "pricing:GetProducts",
    "servicequotas:GetAWSDefaultServiceQuota",
    "servicequotas:GetServiceQuota",
)
"""Actions that are about no single resource of the account."""
CREATE_BATCH = "bedrock:CreateModelInvocationJob"
BATCH_ACTIONS = ("bedrock:GetModelInvocationJob", "bedrock:TagResource")
SERVING_TYPES = ("custom-model-deployment", "provisioned-model")
LIST_INFERENCE_ACTIONS = (
    "bedrock:ListCustomModelDeployments",
    "bedrock:ListInferenceProfiles",
    "bedrock:ListModelInvocationJobs",
    "bedrock:ListProvisionedModelThroughputs",
)
"""Actions that find what answers: the deployments of a model, profiles, batches."""
FOLLOW_ACTIONS = ("bedrock:GetModelCustomizationJob", "bedrock:ListTagsForResource")
GRADER_ACTIONS = ("lambda:GetFunction", "lambda:ListTags")
NETWORK_ACTIONS = ("ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcEndpoints")


def caller_policy(
    staged: StagedJob,
    *,
    with_inference: bool = False,
    profile_models: Mapping[str, tuple[str, ...]] | None = None,
) -> Policy:
    """Return the policy document. Wildcards replace the parts of keys that follow from content.

    With `with_inference` it also allows to ask the job's models, as `generate`, `evaluate` and
    `advise` do. `profile_models` has the ARNs of the models behind each inference profile, where
    they could be read; else the policy names them in any Region.
    """
    job, arns = staged.job, required_permissions.arn_context(staged.job)
    statements = [
        *_object_statements(staged, arns, with_batches=with_inference),
        *_submit_statements(required_permissions.caller_permissions(job)),
        *_job_statements(arns),
        *_check_statements(job, arns),
        *_grader_statements(job, arns),
        *(_inference_statements(job, arns, profile_models) if with_inference else ()),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def _inference_statements(
    job: LoadedJob, arns: ArnContext, profile_models: Mapping[str, tuple[str, ...]] | None
) -> Iterator[Statement]:
    """Yield statements to ask the base model, by its profile where it has one, and tuned models.

    The condition limits the base model to requests through the profile, as AWS recommends.
    """
    base = list(required_permissions.base_invoke_permissions(job, profile_models))
    by_context: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for one in base:
        context = tuple((key, str(value)) for key, value in one.context_keys.items())
        by_context.setdefault(context, []).append(one.statement_resource or one.resource)
    for context, resources in by_context.items():
        name = "AskBaseModelThroughProfile" if context else "AskBaseModel"
        yield _allow_statement(name, (INVOKE, INVOKE_STREAM), resources, dict(context))
    servings = [arns.arn("bedrock", f"{kind}/*") for kind in SERVING_TYPES]
    tuned = _allow_statement("AskTunedModels", (INVOKE, INVOKE_STREAM), servings)
    tuned["Condition"] = {"Null": {f"aws:ResourceTag/{JOB_TAG}": "false"}}
    yield tuned
    yield _allow_statement("FindModels", LIST_INFERENCE_ACTIONS, ["*"])
    yield _allow_statement("ReadServings", ("bedrock:ListTagsForResource",), servings)
    # No condition here: that a batch's request names the profile is not documented.
    batches = arns.arn("bedrock", "model-invocation-job/*")
    models = [one.statement_resource or one.resource for one in base]
    models.append(arns.arn("bedrock", "custom-model/*"))
    yield _allow_statement("AskInBatches", (CREATE_BATCH,), [*models, batches])
    yield _allow_statement("FollowBatches", BATCH_ACTIONS, [batches])


def _allow_statement(
    name: str,
    actions: Iterable[str],
    resources: Iterable[str],
    context: Mapping[str, str | tuple[str, ...]] | None = None,
) -> Statement:
    statement: Statement = {
        "Sid": name,
        "Effect": "Allow",
        "Action": sorted(actions),
        "Resource": sorted(set(resources)),
    }
    if context:
        values = {k: v if isinstance(v, str) else list(v) for k, v in context.items()}
        statement["Condition"] = {"StringEquals": values}
    return statement


def _object_statements(
    staged: StagedJob, arns: ArnContext, *, with_batches: bool
) -> Iterator[Statement]:
    """Yield statements for the objects that are uploaded or downloaded, and for their buckets."""
    calls = request.api_calls(staged)
    all_calls = [*state_machine.api_calls(staged), *calls.in_order]
    puts = [call.parameters for call in all_calls if call.operation == "put_object"]
    output = calls.create.parameters["outputDataConfig"]
    output_bucket, output_prefix = request.output_location(output)
    prefixes = [output_prefix]
    if with_batches:
        prefixes.append(f"{output_prefix.removesuffix('output/')}{BATCHES}/")
    objects = [arns.bucket_arn(put["Bucket"], _key_pattern(put["Key"], staged)) for put in puts]
    objects += [
        arns.bucket_arn(output_bucket, _key_pattern(prefix, staged) + "*") for prefix in prefixes
    ]
    yield _allow_statement("StageAndFetch", OBJECT_ACTIONS, objects)
    buckets = {*(put["Bucket"] for put in puts), output_bucket}
    bucket_arns = [arns.bucket_arn(name) for name in buckets]
    yield _allow_statement("ReadBuckets", BUCKET_ACTIONS, bucket_arns)


def _key_pattern(key: str, staged: StagedJob) -> str:
    """Return a key with `*` in place of the data's digest and of the token in the job's id."""
    name = staged.job.spec.name
    return SHA256.sub("*", key.replace(job_id(name, request.request_token(staged)), f"{name}-*"))


def _submit_statements(permissions: Iterable[RequiredPermission]) -> Iterator[Statement]:
    """Yield a statement for each action with its conditions; one for all of KMS."""
    groups: dict[tuple[str, ...], list[RequiredPermission]] = {}
    for permission in permissions:
        service, _, action = permission.action.partition(":")
        name = action if service != "kms" else "ModelKey"
        groups.setdefault((name, *sorted(permission.context_keys)), []).append(permission)
    for (name, *_), group in groups.items():
        actions = {permission.action for permission in group}
        resources = [permission.resource for permission in group]
        yield _allow_statement(name, actions, resources, group[0].context_keys)


def _job_statements(arns: ArnContext) -> Iterator[Statement]:
    jobs = arns.arn("bedrock", "model-customization-job/*")
    yield _allow_statement("FollowJobs", FOLLOW_ACTIONS, [jobs])
    stop = _allow_statement("StopJobs", ("bedrock:StopModelCustomizationJob",), [jobs])
    # Only jobs with cloudft's tag: whatever its value, the tag must exist.
    stop["Condition"] = {"Null": {f"aws:ResourceTag/{JOB_TAG}": "false"}}
    yield stop
    yield _allow_statement("ListModelsPricesAndQuotas", LIST_ACTIONS, ["*"])


def _grader_statements(job: LoadedJob, arns: ArnContext) -> Iterator[Statement]:
    """Yield what `check` reads of a reinforcement job's grader: its stack, and the function."""
    section, stack = job.spec.reinforcement, job.spec.bedrock.stack
    if section is None or section.lambda_arn is None:
        return
    if stack is not None and section.grader is not None:
        stacks = [arns.arn("cloudformation", f"stack/{stack}{STACK_SUFFIX}/*")]
        yield _allow_statement("ReadGraderStack", ("cloudformation:DescribeStacks",), stacks)
    yield _allow_statement("ReadGrader", GRADER_ACTIONS, [section.lambda_arn])


def _check_statements(job: LoadedJob, arns: ArnContext) -> Iterator[Statement]:
    """Yield what `check` calls besides; without these it reports what it could not check."""
    spec = job.spec.bedrock
    role = [str(spec.role_arn)]
    caller = f"arn:{arns.partition}:iam::{arns.account}:user/${{aws:username}}"
    yield _allow_statement("CheckRole", ("iam:GetRole", "iam:SimulatePrincipalPolicy"), role)
    yield _allow_statement("CheckCaller", ("iam:SimulatePrincipalPolicy",), [caller])
    profiles = required_permissions.profiles_in_use(job)
    if profiles:
        arn_list = [profile_arn(name, arns) for name in profiles]
        yield _allow_statement("ReadInferenceProfiles", ("bedrock:GetInferenceProfile",), arn_list)
    if spec.stack is not None:
        names = [spec.stack, *([f"{spec.stack}-jobs"] if spec.via_stack else [])]
        stacks = [arns.arn("cloudformation", f"stack/{name}/*") for name in names]
        yield _allow_statement("ReadStack", ("cloudformation:DescribeStacks",), stacks)
    if spec.vpc is not None:
        yield _allow_statement("ReadNetwork", NETWORK_ACTIONS, ["*"])
    keys = [key for key in (spec.kms_key_id, spec.s3_kms_key_id) if key and key.startswith("arn:")]
    if keys:
        yield _allow_statement("ReadKeys", ("kms:DescribeKey",), keys)
    # A stack has one key, for the model and for its buckets.
    bucket_keys = keys if spec.stack else [key for key in keys if key == spec.s3_kms_key_id]
    if bucket_keys:
        via_s3 = {"kms:ViaService": f"s3.{arns.region}.amazonaws.com"}
        actions = ("kms:Decrypt", "kms:GenerateDataKey")
        yield _allow_statement("BucketKeys", actions, bucket_keys, via_s3)
