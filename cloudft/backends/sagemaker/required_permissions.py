"""The permissions that a training job needs: of its role, and of the caller. No side effects.

Source: SageMaker developer guide, "How to use SageMaker AI execution roles", its part on the
permissions of CreateTrainingJob; Service Authorization Reference, "Actions, resources, and
condition keys for Amazon SageMaker AI".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.backends.sagemaker import images, instances, request
from cloudft.backends.sagemaker.logs import LOG_GROUP
from cloudft.spec.load import LoadedJob

SERVICE = "sagemaker.amazonaws.com"
READ_FOLDERS = ("code", "data", "jobs", "models")
SERVERLESS_READ_FOLDERS = ("data",)
"""What SageMaker's own customization reads: no code and no weights of ours."""
WRITE_LOG_ACTIONS = ("logs:CreateLogStream", "logs:PutLogEvents")
"""Without them a job runs blind: its curve is in its log."""
READ_LOG_ACTIONS = ("DescribeLogStreams", "GetLogEvents")
EC2_DESCRIBE_ACTIONS = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
ECR_PULL_ACTIONS = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
)
MODEL_PACKAGE_ACTIONS = {
    "DescribeModelPackageGroup": "model-package-group/*",
    "DescribeModelPackage": "model-package/*",
}
NETWORK_INTERFACE_ACTIONS = (
    "CreateNetworkInterfacePermission",
    "DeleteNetworkInterface",
    "DeleteNetworkInterfacePermission",
)


def arn_context(job: LoadedJob, region: str) -> ArnContext:
    """Return partition, Region and account of the role."""
    _, partition, _, _, account, *_ = str(job.spec.sagemaker.role_arn).split(":")
    return ArnContext(partition, region, account)


def role_permissions(
    job: LoadedJob, region: str, keys: Mapping[str, str] | None = None, image: str = ""
) -> Iterator[RequiredPermission]:
    """Yield what the role must be allowed, for everything in the job file.

    `keys` has the ARNs of the keys by their use: sent, checkpoints, output; those of the job file
    if not given. `image` is the container's URI.
    """
    here = arn_context(job, region)
    bucket, prefix = request.s3_prefix(job)
    serverless = job.spec.sagemaker.serverless is not None
    for folder in SERVERLESS_READ_FOLDERS if serverless else READ_FOLDERS:
        yield RequiredPermission(
            "s3:ListBucket", here.bucket_arn(bucket), {"s3:prefix": f"{prefix}{folder}/*"}
        )
        yield RequiredPermission("s3:GetObject", here.bucket_arn(bucket, f"{prefix}{folder}/*"))
    yield RequiredPermission("s3:PutObject", here.bucket_arn(bucket, f"{prefix}jobs/*"))
    stream = here.arn("logs", f"log-group:{LOG_GROUP}:log-stream:*")
    yield from (
        RequiredPermission(action, stream, severity="warning") for action in WRITE_LOG_ACTIONS
    )
    yield from _image_permissions(image, here)
    yield from _key_permissions(job, here, _keys_of_job_file(job) if keys is None else keys)
    yield from _network_permissions(job, here)


def _image_permissions(image: str, here: ArnContext) -> Iterator[RequiredPermission]:
    """Yield the permissions to pull the image from ECR.

    A repository's own policy may allow it too. SageMaker pulls AWS's own images with its own
    credentials (developer guide, "Docker Registry Paths and Example Code").
    """
    ecr = images.parse_ecr_uri(image)
    if ecr is None or ecr.is_aws_image:
        return
    yield RequiredPermission("ecr:GetAuthorizationToken", "*")
    name = f"arn:{here.partition}:ecr:{ecr.region}:{ecr.account}:repository/{ecr.repository}"
    yield from (RequiredPermission(action, name, severity="warning") for action in ECR_PULL_ACTIONS)


def _keys_of_job_file(job: LoadedJob) -> dict[str, str]:
    spec = job.spec.sagemaker
    named = {"sent": spec.s3_kms_key_id, "output": spec.kms_key_id}
    return {use: key for use, key in named.items() if key and _is_arn(key)}


def _is_arn(key: str | None) -> bool:
    """Return whether a key is named by ARN: an alias can't be simulated."""
    return key is not None and key.startswith("arn:") and ":key/" in key


def _key_permissions(
    job: LoadedJob, here: ArnContext, keys: Mapping[str, str]
) -> Iterator[RequiredPermission]:
    """Yield the use of the keys; a key's own policy may allow it too.

    A resumed job also reads what was written before.
    """
    spec, known = job.spec.sagemaker, instances.find_instance(instances.choose_instance_type(job))
    via = {"kms:ViaService": f"s3.{here.region}.amazonaws.com"}
    for key in dict.fromkeys(keys.values()):
        yield RequiredPermission("kms:GenerateDataKey", key, via, "warning")
        yield RequiredPermission("kms:Decrypt", key, via, "warning")
    has_disk = spec.serverless is None and not (known and known.nvme)
    disk = keys.get("output", "") if spec.kms_key_id and has_disk else ""
    if _is_arn(disk):
        yield RequiredPermission(
            "kms:CreateGrant", disk, {"kms:GrantIsForAWSResource": "true"}, "warning"
        )


def caller_permissions(job: LoadedJob, region: str) -> Iterator[RequiredPermission]:
    """Yield what the caller must be allowed besides S3.

    The caller creates, tags, describes and stops the job, passes the role, and uses the disk's key.
    """
    here, spec = arn_context(job, region), job.spec.sagemaker
    training_jobs = here.arn("sagemaker", "training-job/*")
    for action in ("CreateTrainingJob", "AddTags", "DescribeTrainingJob"):
        yield RequiredPermission(f"sagemaker:{action}", training_jobs)
    yield RequiredPermission("sagemaker:StopTrainingJob", training_jobs, severity="warning")
    if spec.serverless is not None:
        yield from _serverless_permissions(here, training_jobs)
    yield RequiredPermission("iam:PassRole", str(spec.role_arn), {"iam:PassedToService": SERVICE})
    group = here.arn("logs", f"log-group:{LOG_GROUP}:log-stream:*")
    yield from (
        RequiredPermission(f"logs:{a}", group, severity="warning") for a in READ_LOG_ACTIONS
    )
    if spec.kms_key_id is not None and _is_arn(spec.kms_key_id):
        via = {"kms:ViaService": f"sagemaker.{here.region}.amazonaws.com"}
        for action in ("CreateGrant", "DescribeKey"):
            yield RequiredPermission(f"kms:{action}", spec.kms_key_id, via, "warning")


def _serverless_permissions(here: ArnContext, training_jobs: str) -> Iterator[RequiredPermission]:
    """Yield what the caller of a serverless job needs besides: tags, hub, group and package.

    Without its tags a job is not recognized as cloudft's.
    """
    yield RequiredPermission("sagemaker:ListTags", training_jobs)
    contents = f"arn:{here.partition}:sagemaker:{here.region}:aws:hub-content/*"
    yield RequiredPermission("sagemaker:DescribeHubContent", contents, severity="warning")
    for action, kind in MODEL_PACKAGE_ACTIONS.items():
        yield RequiredPermission(
            f"sagemaker:{action}", here.arn("sagemaker", kind), severity="warning"
        )


def _network_permissions(job: LoadedJob, here: ArnContext) -> Iterator[RequiredPermission]:
    """Yield the permissions for network interfaces in the job's subnets."""
    vpc = job.spec.sagemaker.vpc
    if vpc is None:
        return
    yield from (RequiredPermission(f"ec2:Describe{kind}", "*") for kind in EC2_DESCRIBE_ACTIONS)
    interface = here.arn("ec2", "network-interface/*")
    yield RequiredPermission("ec2:CreateNetworkInterface", interface)
    for subnet in vpc.subnet_ids:
        yield RequiredPermission("ec2:CreateNetworkInterface", here.arn("ec2", f"subnet/{subnet}"))
    for group in vpc.security_group_ids:
        yield RequiredPermission(
            "ec2:CreateNetworkInterface", here.arn("ec2", f"security-group/{group}")
        )
    subnets = {"ec2:Subnet": tuple(here.arn("ec2", f"subnet/{one}") for one in vpc.subnet_ids)}
    yield from (
        RequiredPermission(f"ec2:{action}", interface, subnets)
        for action in NETWORK_INTERFACE_ACTIONS
    )
