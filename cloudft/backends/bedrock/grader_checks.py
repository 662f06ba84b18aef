"""Check the Lambda function that grades a reinforcement job, before an hour of it is paid.

Source: Bedrock user guide, "Setting up reward functions" and "Reinforcement fine-tuning access and
security"; Lambda API reference, GetFunction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.backends.aws_base.account_checks import MakeFinding
from cloudft.backends.aws_base.grader_package import (
    DIGEST_TAG,
    STACK_SUFFIX,
    GraderPackage,
    pack_job_grader,
)
from cloudft.errors import CheckFailed, ResourceNotFound, UsageError
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

SECTION = "reinforcement"
ARN_FIELD, GRADER_FIELD = f"{SECTION}.lambda_arn", f"{SECTION}.grader"
DEFAULT_TIMEOUT_S = 3
"""Lambda's time limit where none was set: too short for most graders, says the user guide."""


def check_grader(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Compare the deployed function with the job file: code, time limit, memory, state, account.

    Raise CloudRefused and CloudUnreachable where the function can't be read.
    """
    section = job.spec.reinforcement
    if section is None or section.lambda_arn is None:
        return
    name = section.lambda_arn
    yield from _check_account(job, name, finding)
    failure = f"the grader {name} can't be read"
    try:
        answer = aws.call(failure, "lambda", "get_function", FunctionName=name)
    except ResourceNotFound:
        message = f"there is no function {name}"
        yield finding("GraderNotThere", ARN_FIELD, message, _deploy_fix(job))
        return
    configuration = answer["Configuration"]
    yield from _check_state(configuration, name, finding)
    yield from _check_limits(job, configuration, finding)
    yield from _check_code(job, configuration, answer.get("Tags", {}), finding)


def _deploy_fix(job: LoadedJob) -> str:
    """Return the command that deploys the job file's grader."""
    stack = f"{job.spec.bedrock.stack or 'NAME'}{STACK_SUFFIX}"
    file = job.path.name if job.path else "JOB.yaml"
    return f"deploy it with `cloudft infra deploy {stack} --grader {file}`, or correct {ARN_FIELD}."


def _check_account(job: LoadedJob, name: str, finding: MakeFinding) -> Iterator[Finding]:
    """Check that the role's account has the function: in another one it needs a policy of its own.

    Its Region is checked without the account (`regional_arns`).
    """
    role = job.spec.bedrock.role_arn
    if role is None:
        return
    own, other = parse_arn(role).account, parse_arn(name).account
    if own != other:
        message = f"the grader is in the account {other}, the role in {own}"
        fix = "use a function of the role's account; in another one its resource policy must allow"
        fix += f" {role} lambda:InvokeFunction, which can't be checked from here."
        yield finding("GraderInOtherAccount", ARN_FIELD, message, fix, "warning")


def _check_state(
    configuration: Mapping[str, Any], name: str, finding: MakeFinding
) -> Iterator[Finding]:
    state, update = configuration.get("State"), configuration.get("LastUpdateStatus")
    reason = configuration.get("StateReason") or configuration.get("LastUpdateStatusReason")
    because = f": {reason}" if reason else ""
    if state == "Failed" or update == "Failed":
        message = f"the grader can't be invoked: its state is Failed{because}"
        fix = f"deploy it again; `aws lambda get-function --function-name {name}` shows the reason."
        yield finding("GraderNotReady", ARN_FIELD, message, fix)
    elif state == "Pending" or update == "InProgress":
        message = f"the grader is being deployed{because}"
        yield finding("GraderNotReady", ARN_FIELD, message, "wait a moment, then check again.")


def _check_limits(
    job: LoadedJob, configuration: Mapping[str, Any], finding: MakeFinding
) -> Iterator[Finding]:
    section = job.spec.reinforcement
    assert section is not None
    seconds, memory = int(configuration["Timeout"]), int(configuration["MemorySize"])
    expected = section.timeout_seconds
    deploy = _deploy_fix(job)
    if seconds < expected:
        default = ", Lambda's default" if seconds == DEFAULT_TIMEOUT_S else ""
        message = f"Lambda ends a call of the grader after {seconds} s{default}; the job file has"
        message += f" {SECTION}.timeout_seconds: {expected}"
        yield finding("GraderTimeout", f"{SECTION}.timeout_seconds", message, deploy, "warning")
    elif seconds > expected:
        message = f"Lambda gives a call of the grader {seconds} s, the job file {expected}"
        fix = f"set {SECTION}.timeout_seconds: {seconds}, or {deploy}"
        yield finding("GraderTimeout", f"{SECTION}.timeout_seconds", message, fix, "warning")
    if memory < section.memory_mb:
        message = f"the grader has {memory} MB on Lambda, and {section.memory_mb} in the job file"
        yield finding("GraderMemory", f"{SECTION}.memory_mb", message, deploy, "warning")


def _check_code(
    job: LoadedJob,
    configuration: Mapping[str, Any],
    tags: Mapping[str, str],
    finding: MakeFinding,
) -> Iterator[Finding]:
    """Compare the digest of the deployed package with that of the job file's grader."""
    try:
        package = pack_job_grader(job, "bedrock")
    except (CheckFailed, UsageError):  # none is named, or the check of the job reports what it is
        return
    if configuration.get("CodeSha256") == package.code_sha256:
        return
    yield _other_code(job, package, tags.get(DIGEST_TAG), finding)


def _other_code(
    job: LoadedJob, package: GraderPackage, deployed: str | None, finding: MakeFinding
) -> Finding:
    """Return the finding for a package that differs, by the tag with the deployed digest."""
    own = f"sha256 {package.grader_sha256[:12]}"
    if deployed is None:
        message = f"whether the function runs this grader ({own}) is unknown: cloudft did not"
        message += " deploy it"
        fix = f"compare them, or {_deploy_fix(job)}"
        return finding("GraderUnknown", GRADER_FIELD, message, fix, "warning")
    if deployed == package.grader_sha256:
        message = "the function was deployed from this grader and its code has changed since, or it"
        message += " is packed for SageMaker"
    else:
        message = f"the function runs another grader (sha256 {deployed[:12]}) than this one ({own})"
    return finding("GraderDiffers", GRADER_FIELD, message, _deploy_fix(job))
