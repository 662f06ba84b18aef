"""The stack of a job's grader: what is uploaded for it, what its template is given, who uses it.

The package's key contains its digest, so that the template changes exactly when the package does,
and a repeated deploy changes nothing. The stack lies beside the base stack NAME as NAME-grader.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws, Response
from cloudft.aws.stack import Stack
from cloudft.aws.upload import Upload, upload_file
from cloudft.backends.aws_base.grader_package import (
    STACK_SUFFIX,
    GraderPackage,
    pack_job_grader,
)
from cloudft.backends.bedrock.openai_api.inventory import find_jobs_graded_by
from cloudft.errors import CloudRefused, JobStateConflict, UsageError
from cloudft.infra import leftovers
from cloudft.spec.load import LoadedJob

TEMPLATE = "grader"
FOLDER = "graders"
"""Where the packages lie below the base stack's prefix, in a folder of each grader stack."""
ARN_OUTPUT, DIGEST_PARAMETER = "GraderFunctionArn", "GraderSha256"


@dataclass(frozen=True)
class GraderDeployment:
    """A package, where it is uploaded to, and the values of the template's parameters."""

    package: GraderPackage
    bucket: str
    key: str
    parameters: Mapping[str, str]


def base_stack_name(name: str, beside: str | None) -> str:
    """Return the base stack of a grader stack. Raise UsageError where the name has no suffix."""
    if beside is not None:
        return beside
    base = name.removesuffix(STACK_SUFFIX)
    if base == name or not base:
        fix = f"call it NAME{STACK_SUFFIX} beside the base stack NAME, or name that with --from."
        raise UsageError(f"the grader's stack can't be called {name}", fix=fix)
    return base


def job_parameters(job: LoadedJob, package: GraderPackage, platform: str) -> dict[str, str]:
    """Return the template's parameters that follow from the job file and its grader."""
    section = job.spec.reinforcement
    assert section is not None
    return {
        "Handler": package.handler,
        DIGEST_PARAMETER: package.grader_sha256,
        "Platform": platform,
        "TimeoutSeconds": str(section.timeout_seconds),
        "MemoryMb": str(section.memory_mb),
    }


def plan_deployment(
    aws: Aws, name: str, base: str, job: LoadedJob, platform: str
) -> GraderDeployment:
    """Return what a deploy of the grader uploads, and the values of its stack's parameters.

    Raise UsageError for a job without a grader and a base stack that is not ready,
    ResourceNotFound for a missing one, CloudRefused and CloudUnreachable.
    """
    package = pack_job_grader(job, platform)
    outputs = _base_outputs(aws, base)
    key = f"{outputs['Prefix']}/{FOLDER}/{name}/{package.sha256}.zip"
    taken = {k: outputs[k] for k in ("DataBucketName", "BedrockRoleArn", "SageMakerRoleArn")}
    parameters = {**taken, **job_parameters(job, package, platform), "CodeKey": key}
    return GraderDeployment(package, outputs["DataBucketName"], key, parameters)


def _base_outputs(aws: Aws, name: str) -> Mapping[str, str]:
    stack = stacks.describe_stack(aws, name)
    needed = ("DataBucketName", "Prefix", "BedrockRoleArn", "SageMakerRoleArn")
    missing = [key for key in needed if not stack.outputs.get(key)]
    if missing or not stack.is_usable:
        lacks = f" and has no output {missing[0]}" if missing else ""
        fix = f"`cloudft infra status {name}` shows why; --from names the base stack."
        raise UsageError(f"the stack {name} is {stack.status}{lacks}", fix=fix)
    return stack.outputs


def upload_package(aws: Aws, deployment: GraderDeployment) -> None:
    """Upload the package, unless it is there already. Raise CloudRefused, CloudUnreachable."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grader.zip"
        path.write_bytes(deployment.package.content)
        digest = deployment.package.sha256
        upload_file(aws, Upload(path, deployment.bucket, deployment.key, digest), lambda *_: None)


def is_grader_stack(stack: Stack) -> bool:
    """Return whether a stack was made from the grader's template."""
    return DIGEST_PARAMETER in stack.parameters


def remove_packages(aws: Aws, stack: Stack, keep: str | None = None) -> int:
    """Delete the packages of a grader stack, all versions, but the one of the key `keep`.

    Lambda has copied the code of a function that exists. Return how many versions were deleted.
    """
    key = stack.parameters.get("CodeKey", "")
    folder = key.rpartition("/")[0]
    if not folder.endswith(f"/{FOLDER}/{stack.name}"):
        return 0
    bucket = {
        "Bucket": stack.parameters["DataBucketName"],
        "ExpectedBucketOwner": stack.id.split(":")[4],
    }
    failure = f"can't delete the packages of {stack.name}"
    page = aws.call(failure, "s3", "list_object_versions", Prefix=f"{folder}/", **bucket)
    versions = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    objects = [
        {"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions if one["Key"] != keep
    ]
    if not objects:
        return 0
    delete = {"Objects": objects, "Quiet": True}
    answer = aws.call(failure, "s3", "delete_objects", Delete=delete, **bucket)
    if errors := answer.get("Errors"):
        fix = "grant s3:DeleteObjectVersion on the bucket; what is left is unchanged."
        raise CloudRefused(f"{failure}: {errors[0].get('Code')}", fix=fix)
    return len(objects)


def raise_if_grading(aws: Aws, stack: Stack) -> None:
    """Raise JobStateConflict while a running job is graded by the stack's function.

    A grader that changes, or goes, in the middle of a training spoils it.
    """
    arn = stack.outputs.get(ARN_OUTPUT)
    if not is_grader_stack(stack) or arn is None:
        return
    names = [
        str(job["jobName"]) for job in leftovers.list_running_jobs(aws) if _is_graded(job, arn)
    ]
    names += find_jobs_graded_by(aws, arn)
    if names:
        fix = "wait until they end, or stop each with `cloudft stop JOB`."
        message = f"running jobs are graded by the function of {stack.name}: {', '.join(names[:5])}"
        raise JobStateConflict(message, fix=fix)


def _is_graded(job: Response, function: str) -> bool:
    """Return whether a job's grader is a function, in any of its versions."""
    config = job.get("customizationConfig", {}).get("rftConfig", {})
    grader = str(config.get("graderConfig", {}).get("lambdaGrader", {}).get("lambdaArn", ""))
    return grader == function or grader.startswith(f"{function}:")
