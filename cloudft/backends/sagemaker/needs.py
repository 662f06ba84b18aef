"""The permissions that a training job needs: of its role, and of whoever submits it. Pure.

Source: SageMaker developer guide, "How to use SageMaker AI execution roles", its part on the
permissions of CreateTrainingJob; Service Authorization Reference, "Actions, resources, and
condition keys for Amazon SageMaker AI".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft.aws.permissions import Need, Place
from cloudft.backends.sagemaker import images, instances, request
from cloudft.backends.sagemaker.logs import GROUP
from cloudft.spec.load import LoadedJob

SERVICE = "sagemaker.amazonaws.com"
READ = ("code", "data", "jobs", "models")
LOG = ("logs:CreateLogStream", "logs:PutLogEvents")
"""Without them a job runs blind: its curve is in its log."""
READ_LOG = ("DescribeLogStreams", "GetLogEvents")
LOOKS = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
PULL = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
INTERFACE = (
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
)


def place_of(job: LoadedJob, region: str) -> Place:
    """Return the place of the role's account."""
    _, partition, _, _, account, *_ = str(job.spec.sagemaker.role_arn).split(":")
    return Place(partition, region, account)


def of_role(
    job: LoadedJob, region: str, keys: Mapping[str, str] | None = None, image: str = ""
) -> Iterator[Need]:
    """Return what the role must be allowed, of everything that the job asks for.

    `keys` has the ARNs of the keys by their use: sent, checkpoints, output; those of the job file
    if not given. `image` is the container's URI.
    """
    here = place_of(job, region)
    bucket, prefix = request.prefix_of(job)
    for folder in READ:
        yield Need("s3:ListBucket", here.bucket(bucket), {"s3:prefix": f"{prefix}{folder}/*"})
        yield Need("s3:GetObject", here.bucket(bucket, f"{prefix}{folder}/*"))
    yield Need("s3:PutObject", here.bucket(bucket, f"{prefix}jobs/*"))
    stream = here.arn("logs", f"log-group:{GROUP}:log-stream:*")
    yield from (Need(action, stream, severity="warning") for action in LOG)
    yield from _of_image(image, here)
    yield from _of_keys(job, here, _named_keys(job) if keys is None else keys)
    yield from _of_network(job, here)


def _of_image(image: str, here: Place) -> Iterator[Need]:
    """The pull from ECR. A repository's own policy may allow it, too; AWS's own images SageMaker
    pulls with credentials of its own (developer guide, "Docker Registry Paths and Example Code").
    """
    found = images.in_ecr(image)
    if found is None or found.is_aws:
        return
    yield Need("ecr:GetAuthorizationToken", "*")
    name = f"arn:{here.partition}:ecr:{found.region}:{found.account}:repository/{found.repository}"
    yield from (Need(action, name, severity="warning") for action in PULL)


def _named_keys(job: LoadedJob) -> dict[str, str]:
    spec = job.spec.sagemaker
    named = {"sent": spec.s3_kms_key_id, "output": spec.kms_key_id}
    return {use: key for use, key in named.items() if key and _is_arn(key)}


def _is_arn(key: str | None) -> bool:
    """Of an alias nothing can be simulated."""
    return key is not None and key.startswith("arn:") and ":key/" in key


def _of_keys(job: LoadedJob, here: Place, keys: Mapping[str, str]) -> Iterator[Need]:
    """A key's own policy may allow it, too. What a resumed job reads is what was written before."""
    spec, known = job.spec.sagemaker, instances.known(instances.choice(job))
    via = {"kms:ViaService": f"s3.{here.region}.amazonaws.com"}
    for key in dict.fromkeys(keys.values()):
        yield Need("kms:GenerateDataKey", key, via, "warning")
        yield Need("kms:Decrypt", key, via, "warning")
    disk = keys.get("output", "") if spec.kms_key_id and not (known and known.nvme) else ""
    if _is_arn(disk):
        yield Need("kms:CreateGrant", disk, {"kms:GrantIsForAWSResource": "true"}, "warning")


def of_caller(job: LoadedJob, region: str) -> Iterator[Need]:
    """Return what whoever submits must be allowed besides S3: create, tag, follow, stop, hand over
    the role, and use the key of the disk.
    """
    here, spec = place_of(job, region), job.spec.sagemaker
    made = here.arn("sagemaker", "training-job/*")
    for action in ("CreateTrainingJob", "AddTags", "DescribeTrainingJob"):
        yield Need(f"sagemaker:{action}", made)
    yield Need("sagemaker:StopTrainingJob", made, severity="warning")
    yield Need("iam:PassRole", str(spec.role_arn), {"iam:PassedToService": SERVICE})
    group = here.arn("logs", f"log-group:{GROUP}:log-stream:*")
    yield from (Need(f"logs:{a}", group, severity="warning") for a in READ_LOG)
    if spec.kms_key_id is not None and _is_arn(spec.kms_key_id):
        via = {"kms:ViaService": f"sagemaker.{here.region}.amazonaws.com"}
        for action in ("CreateGrant", "DescribeKey"):
            yield Need(f"kms:{action}", spec.kms_key_id, via, "warning")


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
