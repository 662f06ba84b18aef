"""The permissions that a job needs: of the role that Bedrock takes on, and of whoever submits it.

Source: Bedrock user guide, "Create an IAM service role for model customization", "Protect your
model customization jobs using a VPC" and "Encryption of custom models". Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.backends.bedrock import request
from cloudft.spec.load import LoadedJob
from cloudft.spec.sections import Vpc

SERVICE_PRINCIPAL = "bedrock.amazonaws.com"
MANAGED_TAG, MANAGED_BY_TAG = "BedrockManaged", "BedrockModelCustomizationJobArn"
"""The tags of the network interfaces that Bedrock makes for a job."""
CREATED_RESOURCE_TYPES = ("model-customization-job", "custom-model")
"""What a submit makes."""


def arn_context(job: LoadedJob) -> ArnContext:
    """By the role's ARN and the job's Region."""
    _, partition, _, _, account, *_ = str(job.spec.bedrock.role_arn).split(":")
    return ArnContext(partition, str(job.spec.bedrock.region), account)


def role_permissions(
    job: LoadedJob, bucket_keys: Mapping[str, str]
) -> Iterator[RequiredPermission]:
    """What the service role must be allowed. `keys` has the ARN of each encrypted bucket's key."""
    here = arn_context(job)
    data, prefix = request.s3_prefix(job)
    output, below = request.output_s3_prefix(job)
    yield RequiredPermission(
        "s3:ListBucket", here.bucket_arn(data), {"s3:prefix": f"{prefix}data/*"}
    )
    yield RequiredPermission("s3:GetObject", here.bucket_arn(data, f"{prefix}data/*"))
    if output != data:
        yield RequiredPermission(
            "s3:ListBucket", here.bucket_arn(output), {"s3:prefix": f"{below}jobs/*"}
        )
    yield RequiredPermission("s3:GetObject", here.bucket_arn(output, f"{below}jobs/*"))
    yield RequiredPermission("s3:PutObject", here.bucket_arn(output, f"{below}jobs/*"))
    via = {"kms:ViaService": f"s3.{here.region}.amazonaws.com"}
    for key in dict.fromkeys(
        bucket_keys[bucket] for bucket in (data, output) if bucket in bucket_keys
    ):
        yield RequiredPermission("kms:Decrypt", key, via, "warning")
    if output in bucket_keys:
        yield RequiredPermission("kms:GenerateDataKey", bucket_keys[output], via, "warning")
    yield from _customization_permissions(job, here)
    yield from _vpc_permissions(job, here)


def _customization_permissions(job: LoadedJob, here: ArnContext) -> Iterator[RequiredPermission]:
    """A teacher is asked, or a grader."""
    if job.spec.distillation is not None:
        yield from _teacher_permissions(job.spec.distillation.teacher, here)
    if job.spec.reinforcement is not None:
        grader = job.spec.reinforcement.lambda_arn
        yield RequiredPermission("lambda:InvokeFunction", grader, severity="warning")


GEOGRAPHIES = ("us", "eu", "apac", "jp", "au", "us-gov", "global")
"""First parts of the names of system-defined inference profiles."""


def _teacher_permissions(name: str, here: ArnContext) -> Iterator[RequiredPermission]:
    """A profile is asked, and through it the model in whichever of the profile's Regions."""
    invoke, _, last = "bedrock:InvokeModel", *name.rpartition("/")[1:]
    geography, _, model = last.partition(".")
    if geography not in GEOGRAPHIES:
        there = here.arn("bedrock", f"foundation-model/{last}", account=False)
        yield RequiredPermission(invoke, name if name.startswith("arn:") else there)
        return
    profile = here.arn("bedrock", f"inference-profile/{last}")
    yield RequiredPermission(invoke, name if name.startswith("arn:") else profile)
    anywhere = f"arn:{here.partition}:bedrock:*::foundation-model/{model}"
    yield RequiredPermission(
        invoke, anywhere.replace("*", here.region), statement_resource=anywhere
    )


def _vpc_permissions(job: LoadedJob, here: ArnContext) -> Iterator[RequiredPermission]:
    """Interfaces in the job's subnets: to look, to make, to tag, to use and to remove."""
    vpc = job.spec.bedrock.vpc
    if vpc is None:
        return
    yield from network_interface_permissions(vpc, here, MANAGED_BY_TAG, "model-customization-job")


def network_interface_permissions(
    vpc: Vpc, arns: ArnContext, managed_by_tag: str, job_type: str
) -> Iterator[RequiredPermission]:
    """Interfaces in those subnets that Bedrock tags as being of a job of that kind."""
    things = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
    yield from (RequiredPermission(f"ec2:Describe{thing}", "*") for thing in things)
    interface = arns.arn("ec2", "network-interface/*")
    tags = {MANAGED_TAG: "true", managed_by_tag: arns.arn("bedrock", f"{job_type}/*")}
    asked = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    yield RequiredPermission("ec2:CreateNetworkInterface", interface, asked)
    for subnet in vpc.subnet_ids:
        yield RequiredPermission("ec2:CreateNetworkInterface", arns.arn("ec2", f"subnet/{subnet}"))
    for group in vpc.security_group_ids:
        yield RequiredPermission(
            "ec2:CreateNetworkInterface", arns.arn("ec2", f"security-group/{group}")
        )
    there: dict[str, str | tuple[str, ...]] = {
        f"ec2:ResourceTag/{key}": value for key, value in tags.items()
    }
    there["ec2:Subnet"] = tuple(arns.arn("ec2", f"subnet/{one}") for one in vpc.subnet_ids)
    for action in ("CreateNetworkInterfacePermission", "DeleteNetworkInterface"):
        yield RequiredPermission(f"ec2:{action}", interface, there)
    yield RequiredPermission("ec2:DeleteNetworkInterfacePermission", interface, there)
    making: dict[str, str | tuple[str, ...]] = {
        "ec2:CreateAction": "CreateNetworkInterface",
        "aws:TagKeys": (MANAGED_TAG, managed_by_tag),
    }
    yield RequiredPermission("ec2:CreateTags", interface, making)


def caller_permissions(job: LoadedJob) -> Iterator[RequiredPermission]:
    """What whoever submits must be allowed besides S3: create, tag, hand over the role, the key.

    By the stack it is to start the machine, and to see how it stands: the rest is the machine's.
    """
    here, machine = arn_context(job), job.spec.bedrock.machine_arn
    if job.spec.bedrock.via_stack and machine is not None:
        yield RequiredPermission("states:StartExecution", machine)
        execution = machine.replace(":stateMachine:", ":execution:")
        yield RequiredPermission("states:DescribeExecution", f"{execution}:*")
        yield RequiredPermission("states:StopExecution", f"{execution}:*", severity="warning")
        return
    create = "bedrock:CreateModelCustomizationJob"
    made = [here.arn("bedrock", f"{kind}/*") for kind in CREATED_RESOURCE_TYPES]
    for resource in (base_model_arn(job, here), *made):
        yield RequiredPermission(create, resource)
    yield from (RequiredPermission("bedrock:TagResource", resource) for resource in made)
    yield RequiredPermission(
        "iam:PassRole", str(job.spec.bedrock.role_arn), {"iam:PassedToService": SERVICE_PRINCIPAL}
    )
    key = job.spec.bedrock.kms_key_id
    if key is not None and key.startswith("arn:") and ":key/" in key:
        via = {"kms:ViaService": f"bedrock.{here.region}.amazonaws.com"}
        for action in ("CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKey"):
            yield RequiredPermission(f"kms:{action}", key, via, "warning")


def base_model_arn(job: LoadedJob, here: ArnContext) -> str:
    """The ARN of what is customized."""
    name = request.base_model_identifier(job)
    if name.startswith("arn:"):
        return name
    return here.arn("bedrock", f"foundation-model/{name}", account=False)
