"""Check a job before it is submitted to Bedrock.

The job file is checked first, offline, then the account. What the account does not let the caller
read is reported as unchecked, which is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.aws.request_validation import validate_request
from cloudft.backends.aws_base import request_checks
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import (
    account_checks,
    customizations,
    invocation_logs,
    request,
    required_permissions,
)
from cloudft.backends.bedrock.inference_profiles import named_model_id
from cloudft.backends.findings import FindingFactory, serverless_hint
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity

IMPORT_ROUTE = (
    "train it on SageMaker or locally, and import it into Bedrock:"
    " `cloudft submit --backend sagemaker --wait --import` (or --backend local)."
)
RESERVED_MEMBERS = {"jobName", "clientRequestToken", "outputDataConfig"}
"""Members by which cloudft finds the job again: with others, a job could be submitted twice."""
REQUEST_FIELDS = {
    "jobName": "name",
    "customModelName": "bedrock.custom_model_name",
    "roleArn": "bedrock.role_arn",
    "baseModelIdentifier": "base_model",
    "customizationType": "customization_type",
    "customModelKmsKeyId": "bedrock.kms_key_id",
    "jobTags": "tags",
    "customModelTags": "tags",
    "trainingDataConfig": "bedrock.s3_uri",
    "trainingDataConfig.invocationLogsConfig": "data.invocation_logs",
    "validationDataConfig": "bedrock.s3_uri",
    "outputDataConfig": "bedrock.s3_uri",
    "hyperParameters": "hyperparameters",
    "vpcConfig.subnetIds": "bedrock.vpc.subnet_ids",
    "vpcConfig.securityGroupIds": "bedrock.vpc.security_group_ids",
}
"""Job-file field that each member of the request is made from."""


def check_job(job: LoadedJob, aws: Aws) -> list[Finding]:
    """Return the findings about a job: offline first, then the account's.

    The account is checked where the job file has no error.
    """
    finding = FindingFactory(job)
    findings = [
        *check_offline(job),
        *request_checks.check_profile_configured(aws.location, "bedrock.profile", finding),
    ]
    if any(one.severity == "error" for one in findings):
        return findings
    findings += _check_request(job, finding)
    return [*findings, *account_checks.check_account(job, aws, finding)]


def check_offline(job: LoadedJob) -> list[Finding]:
    """Return the findings from the job file alone. Without an error, a request can be built."""
    finding = FindingFactory(job)
    region = job.spec.bedrock.region
    if "bedrock" not in catalogue.CUSTOMIZATION_TYPES[job.spec.customization_type].trains_on:
        return [_type_not_on_bedrock(job, finding)]
    return [
        *_check_settings(job, finding),
        *request_checks.check_arn_regions(_regional_arns(job), region, finding),
        *_check_model(job, finding),
        *_check_inference_profile(job, finding),
        *customizations.check_customization(job, finding),
        *invocation_logs.check_type(job, finding),
    ]


def _type_not_on_bedrock(job: LoadedJob, finding: FindingFactory) -> Finding:
    """Return the one finding about a type that Bedrock does not have: the route to it."""
    kind = job.spec.customization_type
    message = f"Bedrock has no {kind}: it serves models that were trained so elsewhere"
    fix = (
        "train here (--backend local) or on SageMaker (--backend sagemaker), then `cloudft import"
        " JOB` makes the result a Bedrock model; `cloudft submit --backend sagemaker --wait"
        " --import` does both."
    )
    return finding("NotOnBedrock", "customization_type", message, fix)


def _regional_arns(job: LoadedJob) -> dict[str, str | None]:
    """Return the ARNs that must be of the job's Region, by their fields."""
    spec = job.spec.bedrock
    return {
        "base_model": job.spec.base_model,
        "bedrock.kms_key_id": spec.kms_key_id,
        "bedrock.s3_kms_key_id": spec.s3_kms_key_id,
        "bedrock.machine_arn": spec.machine_arn,
        "bedrock.inference_profile": spec.inference_profile,
        **customizations.regional_arns(job),
    }


def _check_settings(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    spec = job.spec.bedrock
    if spec.region is None:
        fix = "set bedrock.region, --region or AWS_REGION."
        yield finding("MissingValue", "bedrock.region", "no AWS Region is set", fix)
    if spec.role_arn is None:
        fix = "set bedrock.role_arn (bedrock.amazonaws.com may assume it), or bedrock.stack."
        yield finding("MissingValue", "bedrock.role_arn", "no service role is set", fix)
    if spec.s3_uri is None:
        fix = "set bedrock.s3_uri: s3://BUCKET/PREFIX, in the job's Region; or bedrock.stack."
        yield finding("MissingValue", "bedrock.s3_uri", "no S3 location is set", fix)
    if spec.via_stack and spec.machine_arn is None:
        fix = "set bedrock.stack; its state machine is in the stack STACK-jobs (infra/jobs.yaml)."
        yield finding("MissingValue", "bedrock.via_stack", "no state machine is set", fix)


def _check_model(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    model = job.model
    if job.spec.base_model.startswith("job:"):
        trained = job.spec.base_model.removeprefix("job:")
        message = f"Bedrock does not customize the model of {trained}, a job of this machine"
        fix = (
            f"train further on this machine, then `cloudft import`: or `cloudft import {trained}`."
        )
        yield finding("NotOnBedrock", "base_model", message, fix)
    elif model.bedrock_id is None and not job.spec.base_model.startswith("arn:"):
        message = f"Bedrock does not customize {model.alias}, an open-weight model"
        yield finding("NotOnBedrock", "base_model", message, IMPORT_ROUTE)
        yield from serverless_hint(job, "base_model", finding)
    region = job.spec.bedrock.region
    if region and model.regions and region not in model.regions:
        regions = " or ".join(model.regions)
        message = f"{model.alias} is customized in {regions}, not in {region} ({model.sources[0]})"
        fix = f"set bedrock.region: {model.regions[0]}, with a bucket there."
        # An endpoint of one's own may offer any model in any Region.
        severity: Severity = "warning" if job.spec.bedrock.endpoint_url else "error"
        yield finding("RegionUnsupported", "bedrock.region", message, fix, severity)


def _check_inference_profile(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Check that the profile that the job file requests is of the base model, and known here."""
    requested, region = required_permissions.base_profile(job), job.spec.bedrock.region
    if requested is None or job.model.bedrock_id is None or region is None:
        return
    own = catalogue.on_demand_id(job.model.bedrock_id)
    field = "bedrock.inference_profile" if job.spec.bedrock.inference_profile else "base_model"
    profile = catalogue.parse_profile(named_model_id(own, requested))
    fix = f"use {catalogue.inference_id(own, region)}, or leave it out."
    if profile is not None and profile.model not in ("", own):
        message = f"the inference profile {requested} is of {profile.model}, not of {own}"
        yield finding("ProfileOfOtherModel", field, message, fix)
    elif profile is not None and profile.area:
        if profile.area not in catalogue.callable_areas(job.model, region):
            message = f"{profile.id} is not known to be callable in {region}"
            message += f" ({job.model.sources[-1]})"
            yield finding("ProfileUnknown", field, message, fix, "warning")
    elif profile is None and not catalogue.answers_in_region(job.model, region):
        message = f"{own} does not answer to its own id in {region} ({job.model.sources[-1]})"
        yield finding("ProfileNeeded", field, message, fix, "warning")


def _check_request(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Validate the request against the service model: patterns, enums, lengths."""
    overrides = set(job.spec.bedrock.request)
    for name in sorted(RESERVED_MEMBERS & overrides):
        message = f"bedrock.request may not have {name}: cloudft finds the job again by it"
        yield finding("BadRequest", "bedrock.request", message, "remove it.")
    parameters = request.create_request(with_placeholder_data(job))
    fields = {
        member: field
        for member, field in (REQUEST_FIELDS | customizations.request_fields()).items()
        if member.partition(".")[0] not in overrides
    }
    if job.spec.bedrock.output_s3_uri:
        fields["outputDataConfig"] = "bedrock.output_s3_uri"
    for problem in validate_request("bedrock", "CreateModelCustomizationJob", parameters):
        field = request_checks.field_for_member(problem, fields, "bedrock.request")
        yield finding("BadRequest", field, problem, f"correct {field}.")
