"""Check the role's and the caller's permissions with IAM's policy simulator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from cloudft.aws.client import Aws
from cloudft.aws.permissions import RequiredPermission
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import MakeFinding, get_default_key, resolve_key_arn
from cloudft.backends.bedrock import request, required_permissions
from cloudft.backends.bedrock.account_helpers import BEDROCK, bucket_parameters
from cloudft.backends.bedrock.inference_profiles import read_profile_models
from cloudft.errors import CloudRefused, CloudUnreachable, ResourceNotFound
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding


def check_role_permissions(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding for each permission that the role lacks, with the statement to add."""
    profile_models = _read_profiles(job, aws)
    permissions = required_permissions.role_permissions(job, _bucket_keys(job, aws), profile_models)
    yield from account_checks.check_role_permissions(
        str(job.spec.bedrock.role_arn), permissions, aws, finding, BEDROCK
    )


def _bucket_keys(job: LoadedJob, aws: Aws) -> dict[str, str]:
    """Return the ARN of the KMS key of each bucket that is encrypted with one of the account's."""
    arns = {}
    for bucket in dict.fromkeys((request.s3_prefix(job)[0], request.output_s3_prefix(job)[0])):
        default = get_default_key(aws, bucket_parameters(job, bucket))
        key = job.spec.bedrock.s3_kms_key_id or default
        if key is not None:
            arns[bucket] = resolve_key_arn(aws, key)
    return arns


def check_caller_permissions(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding for each permission that the caller lacks to create, tag and pass.

    Where the job file requests an inference profile, asking the base model by it is checked too.
    """
    permissions = [*required_permissions.caller_permissions(job), *_ask_permissions(job, aws)]
    yield from account_checks.check_caller_permissions(permissions, aws, finding, BEDROCK)


def _ask_permissions(job: LoadedJob, aws: Aws) -> Iterator[RequiredPermission]:
    """Yield what asking the base model needs: warnings, for a submit does not ask it."""
    if job.model.bedrock_id is None or required_permissions.base_profile(job) is None:
        return
    for permission in required_permissions.base_invoke_permissions(job, _read_profiles(job, aws)):
        yield replace(permission, severity="warning")


def check_profiles(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding for each inference profile of the job that is not there, or can't be read."""
    for profile, field in required_permissions.profiles_in_use(job).items():
        try:
            read_profile_models(aws, profile)
        except ResourceNotFound as error:
            message = f"this account has no inference profile {profile} in {aws.region}"
            fix = "`aws bedrock list-inference-profiles` lists those that can be called here."
            yield finding("ProfileNotThere", field, f"{message} ({error.message})", fix)
        except (CloudRefused, CloudUnreachable) as error:
            what = f"the Regions behind {profile}"
            yield account_checks.unchecked_finding(what, field, error, finding)


def _read_profiles(job: LoadedJob, aws: Aws) -> dict[str, tuple[str, ...]]:
    """Return the models of each profile of the job; check_profiles reports those not readable."""
    models = {}
    for profile in required_permissions.profiles_in_use(job):
        with contextlib.suppress(CloudRefused, CloudUnreachable):
            models[profile] = read_profile_models(aws, profile)
    return models
