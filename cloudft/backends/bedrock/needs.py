"""The permissions that a job needs: of the role that Bedrock takes on, and of whoever submits it.

Source: Bedrock user guide, "Create an IAM service role for model customization", "Protect your
model customization jobs using a VPC" and "Encryption of custom models". Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft.aws.permissions import Need, Place
from cloudft.backends.bedrock import request
from cloudft.spec.load import LoadedJob
from cloudft.spec.models import Vpc

SERVICE = "bedrock.amazonaws.com"
MANAGED, MANAGED_BY = "BedrockManaged", "BedrockModelCustomizationJobArn"
"""The tags of the network interfaces that Bedrock makes for a job."""
MADE = ("model-customization-job", "custom-model")
"""What a submit makes."""


def place_of(job: LoadedJob) -> Place:
    """By the role's ARN and the job's Region."""
    _, partition, _, _, account, *_ = str(job.spec.bedrock.role_arn).split(":")
    return Place(partition, str(job.spec.bedrock.region), account)


def of_role(job: LoadedJob, keys: Mapping[str, str]) -> Iterator[Need]:
    """What the service role must be allowed. `keys` has the ARN of each encrypted bucket's key."""
    here = place_of(job)
    data, prefix = request.prefix_of(job)
    output, below = request.output_prefix_of(job)
    yield Need("s3:ListBucket", here.bucket(data), {"s3:prefix": f"{prefix}data/*"})
    yield Need("s3:GetObject", here.bucket(data, f"{prefix}data/*"))
    if output != data:
        yield Need("s3:ListBucket", here.bucket(output), {"s3:prefix": f"{below}jobs/*"})
    yield Need("s3:GetObject", here.bucket(output, f"{below}jobs/*"))
    yield Need("s3:PutObject", here.bucket(output, f"{below}jobs/*"))
    via = {"kms:ViaService": f"s3.{here.region}.amazonaws.com"}
    for key in dict.fromkeys(keys[bucket] for bucket in (data, output) if bucket in keys):
        yield Need("kms:Decrypt", key, via, "warning")
    if output in keys:
        yield Need("kms:GenerateDataKey", keys[output], via, "warning")
    yield from _of_kind(job, here)
    yield from _of_network(job, here)


def _of_kind(job: LoadedJob, here: Place) -> Iterator[Need]:
    """A teacher is asked, or a grader."""
    if job.spec.distillation is not None:
        yield from _of_teacher(job.spec.distillation.teacher, here)
    if job.spec.reinforcement is not None:
        grader = job.spec.reinforcement.lambda_arn
        yield Need("lambda:InvokeFunction", grader, severity="warning")


GEOGRAPHIES = ("us", "eu", "apac", "jp", "au", "us-gov", "global")
"""First parts of the names of system-defined inference profiles."""


def _of_teacher(name: str, here: Place) -> Iterator[Need]:
    """A profile is asked, and through it the model in whichever of the profile's Regions."""
    invoke, _, last = "bedrock:InvokeModel", *name.rpartition("/")[1:]
    geography, _, model = last.partition(".")
    if geography not in GEOGRAPHIES:
        there = here.arn("bedrock", f"foundation-model/{last}", account=False)
        yield Need(invoke, name if name.startswith("arn:") else there)
        return
    profile = here.arn("bedrock", f"inference-profile/{last}")
    yield Need(invoke, name if name.startswith("arn:") else profile)
    anywhere = f"arn:{here.partition}:bedrock:*::foundation-model/{model}"
    yield Need(invoke, anywhere.replace("*", here.region), grants=anywhere)


def _of_network(job: LoadedJob, here: Place) -> Iterator[Need]:
    """Interfaces in the job's subnets: to look, to make, to tag, to use and to remove."""
    vpc = job.spec.bedrock.vpc
    if vpc is None:
        return
    yield from of_interfaces(vpc, here, MANAGED_BY, "model-customization-job")


def of_interfaces(vpc: Vpc, here: Place, managed_by: str, kind: str) -> Iterator[Need]:
    """Interfaces in those subnets that Bedrock tags as being of a job of that kind."""
    things = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
    yield from (Need(f"ec2:Describe{thing}", "*") for thing in things)
    interface = here.arn("ec2", "network-interface/*")
    tags = {MANAGED: "true", managed_by: here.arn("bedrock", f"{kind}/*")}
    asked = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    yield Need("ec2:CreateNetworkInterface", interface, asked)
    for subnet in vpc.subnet_ids:
        yield Need("ec2:CreateNetworkInterface", here.arn("ec2", f"subnet/{subnet}"))
    for group in vpc.security_group_ids:
        yield Need("ec2:CreateNetworkInterface", here.arn("ec2", f"security-group/{group}"))
    there: dict[str, str | tuple[str, ...]] = {
        f"ec2:ResourceTag/{key}": value for key, value in tags.items()
    }
    there["ec2:Subnet"] = tuple(here.arn("ec2", f"subnet/{one}") for one in vpc.subnet_ids)
    for action in ("CreateNetworkInterfacePermission", "DeleteNetworkInterface"):
        yield Need(f"ec2:{action}", interface, there)
    yield Need("ec2:DeleteNetworkInterfacePermission", interface, there)
    making: dict[str, str | tuple[str, ...]] = {
        "ec2:CreateAction": "CreateNetworkInterface",
        "aws:TagKeys": (MANAGED, managed_by),
    }
    yield Need("ec2:CreateTags", interface, making)


def of_caller(job: LoadedJob) -> Iterator[Need]:
    """What whoever submits must be allowed besides S3: create, tag, hand over the role, the key.

    By the stack it is to start the machine, and to see how it stands: the rest is the machine's.
    """
    here, machine = place_of(job), job.spec.bedrock.machine_arn
    if job.spec.bedrock.via_stack and machine is not None:
        yield Need("states:StartExecution", machine)
        execution = machine.replace(":stateMachine:", ":execution:")
        yield Need("states:DescribeExecution", f"{execution}:*")
        yield Need("states:StopExecution", f"{execution}:*", severity="warning")
        return
    create = "bedrock:CreateModelCustomizationJob"
    made = [here.arn("bedrock", f"{kind}/*") for kind in MADE]
    for resource in (base_model(job, here), *made):
        yield Need(create, resource)
    yield from (Need("bedrock:TagResource", resource) for resource in made)
    yield Need("iam:PassRole", str(job.spec.bedrock.role_arn), {"iam:PassedToService": SERVICE})
    key = job.spec.bedrock.kms_key_id
    if key is not None and key.startswith("arn:") and ":key/" in key:
        via = {"kms:ViaService": f"bedrock.{here.region}.amazonaws.com"}
        for action in ("CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKey"):
            yield Need(f"kms:{action}", key, via, "warning")


def base_model(job: LoadedJob, here: Place) -> str:
    """The ARN of what is customized."""
    name = request.base_model(job)
    if name.startswith("arn:"):
        return name
    return here.arn("bedrock", f"foundation-model/{name}", account=False)
