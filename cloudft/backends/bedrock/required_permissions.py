"""Permissions that a job needs: of the service role, and of the identity that submits it.

Source: Bedrock user guide, "Create an IAM service role for model customization", "Protect your
model customization jobs using a VPC" and "Encryption of custom models". These functions are pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.backends.aws_base import requests
from cloudft.backends.bedrock import customizations, request
from cloudft.backends.bedrock.inference_profiles import (
    ProfileArnContext,
    expected_model_id,
    invoke_permissions,
    requested_profile,
)
from cloudft.spec.load import LoadedJob
from cloudft.spec.sections import Vpc

SERVICE_PRINCIPAL = "bedrock.amazonaws.com"
MANAGED_TAG, MANAGED_BY_TAG = "BedrockManaged", "BedrockModelCustomizationJobArn"
"""Tags of the network interfaces that Bedrock creates for a job."""
CREATED_RESOURCE_TYPES = ("model-customization-job", "custom-model")
"""Types of the resources that a submit creates."""


def arn_context(
    job: LoadedJob, profile_models: Mapping[str, tuple[str, ...]] | None = None
) -> ProfileArnContext:
    """Return partition and account of the service role, and the job's Region."""
    role, region = parse_arn(str(job.spec.bedrock.role_arn)), str(job.spec.bedrock.region)
    return ProfileArnContext(role.partition, region, role.account, profile_models or {})


def role_permissions(
    job: LoadedJob,
    bucket_keys: Mapping[str, str],
    profile_models: Mapping[str, tuple[str, ...]] | None = None,
) -> Iterator[RequiredPermission]:
    """Yield what the service role must be allowed.

    `bucket_keys` has the ARN of the KMS key of each bucket that is encrypted with one;
    `profile_models` the ARNs of the models behind each inference profile that could be read.
    """
    arns = arn_context(job, profile_models)
    data, data_prefix = request.s3_prefix(job)
    output, output_prefix = request.output_s3_prefix(job)
    data_keys, output_keys = f"{data_prefix}data/*", f"{output_prefix}jobs/*"
    logs = job.spec.data.invocation_logs
    read = [(data, data_keys)] if logs is None or job.spec.data.validation_files else []
    if logs is not None:
        logged, log_prefix = requests.split_prefix(logs.s3_uri)
        read.append((logged, f"{log_prefix}*"))
    for bucket, readable in read:
        yield RequiredPermission("s3:ListBucket", arns.bucket_arn(bucket), {"s3:prefix": readable})
        yield RequiredPermission("s3:GetObject", arns.bucket_arn(bucket, readable))
    if output != data:
        prefix = {"s3:prefix": output_keys}
        yield RequiredPermission("s3:ListBucket", arns.bucket_arn(output), prefix)
    yield RequiredPermission("s3:GetObject", arns.bucket_arn(output, output_keys))
    yield RequiredPermission("s3:PutObject", arns.bucket_arn(output, output_keys))
    via_s3 = {"kms:ViaService": f"s3.{arns.region}.amazonaws.com"}
    encrypted = [bucket for bucket, _ in (*read, (output, "")) if bucket in bucket_keys]
    for key in dict.fromkeys(bucket_keys[bucket] for bucket in encrypted):
        yield RequiredPermission("kms:Decrypt", key, via_s3, "warning")
    if output in bucket_keys:
        yield RequiredPermission("kms:GenerateDataKey", bucket_keys[output], via_s3, "warning")
    yield from customizations.role_permissions(job, arns)
    yield from _vpc_permissions(job, arns)


def _vpc_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    """Yield what the role needs to run the job in the VPC of the job file."""
    vpc = job.spec.bedrock.vpc
    if vpc is None:
        return
    yield from network_interface_permissions(vpc, arns, MANAGED_BY_TAG, "model-customization-job")


def network_interface_permissions(
    vpc: Vpc, arns: ArnContext, managed_by_tag: str, job_type: str
) -> Iterator[RequiredPermission]:
    """Yield what a role needs to create, tag, use and delete a job's network interfaces.

    They are limited to the VPC's subnets and security groups, and to interfaces that Bedrock tags
    as those of a job of `job_type`.
    """
    resources = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
    yield from (RequiredPermission(f"ec2:Describe{resource}", "*") for resource in resources)
    interface = arns.arn("ec2", "network-interface/*")
    tags = {MANAGED_TAG: "true", managed_by_tag: arns.arn("bedrock", f"{job_type}/*")}
    request_tags = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    yield RequiredPermission("ec2:CreateNetworkInterface", interface, request_tags)
    for subnet in vpc.subnet_ids:
        yield RequiredPermission("ec2:CreateNetworkInterface", arns.arn("ec2", f"subnet/{subnet}"))
    for group in vpc.security_group_ids:
        yield RequiredPermission(
            "ec2:CreateNetworkInterface", arns.arn("ec2", f"security-group/{group}")
        )
    of_job: dict[str, str | tuple[str, ...]] = {
        f"ec2:ResourceTag/{key}": value for key, value in tags.items()
    }
    of_job["ec2:Subnet"] = tuple(arns.arn("ec2", f"subnet/{subnet}") for subnet in vpc.subnet_ids)
    for action in ("CreateNetworkInterfacePermission", "DeleteNetworkInterface"):
        yield RequiredPermission(f"ec2:{action}", interface, of_job)
    yield RequiredPermission("ec2:DeleteNetworkInterfacePermission", interface, of_job)
    on_creation: dict[str, str | tuple[str, ...]] = {
        "ec2:CreateAction": "CreateNetworkInterface",
        "aws:TagKeys": (MANAGED_TAG, managed_by_tag),
    }
    yield RequiredPermission("ec2:CreateTags", interface, on_creation)


def caller_permissions(job: LoadedJob) -> Iterator[RequiredPermission]:
    """Yield what the submitting identity needs besides S3.

    That is to create and tag the job, to pass the role and to use the key. Where the account's
    state machine creates the job, it is to start the machine's execution and to follow it: the
    machine has the other permissions.
    """
    arns, machine = arn_context(job), job.spec.bedrock.machine_arn
    if job.spec.bedrock.via_stack and machine is not None:
        yield RequiredPermission("states:StartExecution", machine)
        execution = machine.replace(":stateMachine:", ":execution:")
        yield RequiredPermission("states:DescribeExecution", f"{execution}:*")
        yield RequiredPermission("states:StopExecution", f"{execution}:*", severity="warning")
        return
    created = [arns.arn("bedrock", f"{kind}/*") for kind in CREATED_RESOURCE_TYPES]
    for resource in (base_model_arn(job, arns), *created):
        yield RequiredPermission("bedrock:CreateModelCustomizationJob", resource)
    yield from (RequiredPermission("bedrock:TagResource", resource) for resource in created)
    yield RequiredPermission(
        "iam:PassRole", str(job.spec.bedrock.role_arn), {"iam:PassedToService": SERVICE_PRINCIPAL}
    )
    key = job.spec.bedrock.kms_key_id
    # The simulator takes a key's ARN alone: of an alias or an id the key is not known here.
    if key is not None and key.startswith("arn:") and ":key/" in key:
        via_bedrock = {"kms:ViaService": f"bedrock.{arns.region}.amazonaws.com"}
        for action in ("CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKey"):
            yield RequiredPermission(f"kms:{action}", key, via_bedrock, "warning")


def base_profile(job: LoadedJob) -> str | None:
    """Return the profile that the job file requests for its base model; see requested_profile."""
    bedrock = {"inference_profile": job.spec.bedrock.inference_profile}
    return requested_profile({"base_model": job.spec.base_model, "bedrock": bedrock})


def base_inference_id(job: LoadedJob) -> str:
    """Return the id or ARN that the base model is called by: what the job file requests, else by
    the catalogue.
    """
    return expected_model_id(job.model, job.spec.bedrock.region, base_profile(job))


def base_invoke_permissions(
    job: LoadedJob, profile_models: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[RequiredPermission]:
    """Yield what the caller needs to ask the job's base model, as `evaluate` and `advise` do."""
    model = catalogue.on_demand_id(str(job.model.bedrock_id))
    arns = arn_context(job, profile_models)
    yield from invoke_permissions(base_inference_id(job), arns, model=model, is_conditional=True)


def profiles_in_use(job: LoadedJob) -> Mapping[str, str]:
    """Return the job's inference profiles, each with the field that it follows from.

    They are the teacher's, and the base model's where the job file requests one.
    """
    used = {}
    if base_profile(job) is not None and job.model.bedrock_id is not None:
        field = "bedrock.inference_profile" if job.spec.bedrock.inference_profile else "base_model"
        used[base_inference_id(job)] = field
    section = job.spec.distillation
    if job.spec.customization_type == "DISTILLATION" and section is not None and section.teacher:
        used[customizations.teacher_id(job)] = "distillation.teacher"
    return {name: field for name, field in used.items() if catalogue.parse_profile(name)}


def base_model_arn(job: LoadedJob, arns: ArnContext) -> str:
    """Return the ARN of the model that is customized."""
    name = request.base_model_identifier(job)
    if name.startswith("arn:"):
        return name
    return arns.arn("bedrock", f"foundation-model/{name}", account=False)
