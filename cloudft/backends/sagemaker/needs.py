"""The permissions that a training job's role needs. Pure.

Source: SageMaker developer guide, "How to use SageMaker AI execution roles", its part on the
permissions of CreateTrainingJob.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.permissions import Need, Place
from cloudft.backends.sagemaker import instances, request
from cloudft.backends.sagemaker.logs import GROUP
from cloudft.spec.load import LoadedJob

READ = ("code", "data", "jobs", "models")
LOG = ("logs:CreateLogStream", "logs:PutLogEvents")
"""Without them a job runs blind: its curve is in its log."""
LOOKS = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
INTERFACE = (
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
)


def of_role(job: LoadedJob, region: str) -> Iterator[Need]:
    """What the role must be allowed, of everything that the job asks for."""
    _, partition, _, _, account, *_ = str(job.spec.sagemaker.role_arn).split(":")
    here = Place(partition, region, account)
    bucket, prefix = request.prefix_of(job)
    for folder in READ:
        yield Need("s3:ListBucket", here.bucket(bucket), {"s3:prefix": f"{prefix}{folder}/*"})
        yield Need("s3:GetObject", here.bucket(bucket, f"{prefix}{folder}/*"))
    yield Need("s3:PutObject", here.bucket(bucket, f"{prefix}jobs/*"))
    stream = here.arn("logs", f"log-group:{GROUP}:log-stream:*")
    yield from (Need(action, stream, severity="warning") for action in LOG)
    yield from _of_keys(job, here)
    yield from _of_network(job, here)


def _of_keys(job: LoadedJob, here: Place) -> Iterator[Need]:
    """A key's own policy may allow it, too; of an alias nothing can be simulated."""
    spec, known = job.spec.sagemaker, instances.known(instances.choice(job))
    via = {"kms:ViaService": f"s3.{here.region}.amazonaws.com"}
    for key in dict.fromkeys((spec.kms_key_id, spec.s3_kms_key_id)):
        if key is not None and key.startswith("arn:") and ":key/" in key:
            yield Need("kms:GenerateDataKey", key, via, "warning")
            yield Need("kms:Decrypt", key, via, "warning")
    disk = spec.kms_key_id if not (known and known.nvme) else None
    if disk is not None and disk.startswith("arn:") and ":key/" in disk:
        yield Need("kms:CreateGrant", disk, {"kms:GrantIsForAWSResource": "true"}, "warning")


def _of_network(job: LoadedJob, here: Place) -> Iterator[Need]:
    """Interfaces in the job's subnets: to look, to make, to use and to remove."""
    vpc = job.spec.sagemaker.vpc
    if vpc is None:
        return
    yield from (Need(f"ec2:Describe{thing}", "*") for thing in LOOKS)
    interface = here.arn("ec2", "network-interface/*")
    yield Need("ec2:CreateNetworkInterface", interface)
    for subnet in vpc.subnet_ids:
        yield Need("ec2:CreateNetworkInterface", here.arn("ec2", f"subnet/{subnet}"))
    for group in vpc.security_group_ids:
        yield Need("ec2:CreateNetworkInterface", here.arn("ec2", f"security-group/{group}"))
    there = {"ec2:Subnet": tuple(here.arn("ec2", f"subnet/{one}") for one in vpc.subnet_ids)}
    yield from (Need(f"ec2:{action}", interface, there) for action in INTERFACE)
