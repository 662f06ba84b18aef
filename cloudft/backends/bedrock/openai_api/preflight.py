"""Check a job of the OpenAI-compatible API before it is submitted. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudft.aws.client import Aws
from cloudft.aws.request_validation import validate_request
from cloudft.backends.aws_base import request_checks
from cloudft.backends.aws_base.account_checks import AccountCheck, MakeFinding, run_checks
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import customizations, grader_checks
from cloudft.backends.bedrock import request as bedrock_request
from cloudft.backends.bedrock.openai_api.request import (
    HYPERPARAMETERS,
    SERVICE,
    create_parameters,
)
from cloudft.backends.findings import FindingFactory
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity

REFUSED_SETTINGS = {
    "kms_key_id": "has no key of one's own",
    "vpc": "has no network of one's own",
    "custom_model_name": "names the model itself, and has no suffix",
    "request": "has other parameters than CreateModelCustomizationJob",
    "via_stack": "is not called by the state machine",
}
"""Settings that would change where data goes or what is made, and what the API has in place."""
UNUSED_SETTINGS = ("role_arn", "s3_uri", "output_s3_uri", "s3_kms_key_id", "bucket_owner")
"""Settings that a job file may have for other models: this API keeps files itself."""
REQUEST_FIELDS = {
    "model": "base_model",
    "method.reinforcement.grader": "reinforcement.lambda_arn",
    "method.reinforcement.hyperparameters": "reinforcement.hyperparameters",
}


def check_job(job: LoadedJob, aws: Aws) -> list[Finding]:
    """Return the findings about a job: offline first, then the account's."""
    finding = FindingFactory(job)
    findings = [
        *check_offline(job),
        *request_checks.check_profile_configured(aws.location, "bedrock.profile", finding),
    ]
    if any(one.severity == "error" for one in findings):
        return findings
    findings += _check_request(job, finding)
    return [*findings, *run_checks(CHECKS, job, aws, finding)]


def check_offline(job: LoadedJob) -> list[Finding]:
    """Return the findings from the job file alone. Without an error, a request can be built."""
    finding = FindingFactory(job)
    return [
        *_check_settings(job, finding),
        *_check_hyperparameters(job, finding),
        *customizations.check_customization(job, finding),
    ]


def _check_settings(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    spec, section = job.spec.bedrock, job.spec.reinforcement
    region, regions = spec.region, job.model.regions
    if region is None:
        fix = f"set bedrock.region: {regions[0]}, --region or AWS_REGION."
        yield finding("MissingValue", "bedrock.region", "no AWS Region is set", fix)
    elif region not in regions:
        message = f"{job.model.alias} is customized in {' or '.join(regions)}, not in {region}"
        message += f" ({job.model.sources[0]})"
        # An endpoint of one's own may offer any model in any Region.
        severity: Severity = "warning" if spec.endpoint_url else "error"
        fix = f"set bedrock.region: {regions[0]}."
        yield finding("RegionUnsupported", "bedrock.region", message, fix, severity)
    if section is not None and not section.lambda_arn:
        message = "no grader on AWS is set: Bedrock calls a Lambda function"
        fix = "set reinforcement.lambda_arn to its ARN."
        yield finding("MissingValue", "reinforcement.lambda_arn", message, fix)
    arns = {"reinforcement.lambda_arn": section.lambda_arn if section else None}
    yield from request_checks.check_arn_regions(arns, region, finding)
    for name, why in REFUSED_SETTINGS.items():
        if getattr(spec, name):
            message = f"bedrock.{name} has no meaning for {job.model.alias}: the API {why}"
            yield finding("UnusedValue", f"bedrock.{name}", message, "remove it.")
    unused = [f"bedrock.{name}" for name in UNUSED_SETTINGS if getattr(spec, name)]
    unused += ["tags"] if job.spec.tags else []
    if unused:
        message = f"{', '.join(unused)} stay unused for {job.model.alias}: its API keeps uploaded"
        message += " files itself, acts as the caller and has no tags"
        fix = "nothing, if that is as you want it."
        yield finding("UnusedValue", unused[0], message, fix, "warning")


def _check_hyperparameters(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    section = job.spec.reinforcement
    for name, value in (section.hyperparameters if section else {}).items():
        field = f"reinforcement.hyperparameters.{name}"
        if name not in HYPERPARAMETERS:
            message = f"{job.model.alias} has no hyperparameter {name}: its API has "
            message += ", ".join(f"{own} ({api})" for own, api in HYPERPARAMETERS.items())
            fix = "remove it."
            if name == "learningRate":
                fix = "set learningRateMultiplier, a factor of the service's own rate."
            yield finding("BadHyperparameter", field, message, fix)
        elif isinstance(value, str) or value <= 0:
            message = f"{name} is {value!r}"
            yield finding("BadHyperparameter", field, message, "write a number above 0.")
        elif name != "learningRateMultiplier" and not float(value).is_integer():
            message = f"{name} is {value!r}"
            yield finding("BadHyperparameter", field, message, "write a whole number.")


def _check_request(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    files = dict.fromkeys(with_placeholder_data(job).manifest.files, "file-0")
    parameters = create_parameters(job, files)
    for problem in validate_request(SERVICE, "CreateFineTuningJob", parameters):
        field = request_checks.field_for_member(problem, REQUEST_FIELDS, "base_model")
        yield finding("BadRequest", field, problem, f"correct {field}.")


def _check_account(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Check that the caller may read files and jobs: a submit looks there for its own first."""
    model = bedrock_request.base_model_identifier(job)
    aws.call("the identity can't be read", "sts", "get_caller_identity")
    for what, operation in (("files", "list_files"), ("jobs", "list_fine_tuning_jobs")):
        aws.call(f"the {what} can't be listed", SERVICE, operation, limit=1)
    listed = aws.call("the models can't be listed", SERVICE, "list_answering_models")
    if model not in {one["id"] for one in listed["data"]}:
        message = f"the account's models in {aws.region} have no {model}"
        fix = "check the Region, and the account's access to the model."
        yield finding("ModelNotListed", "base_model", message, fix, "warning")


CHECKS: Sequence[AccountCheck] = (
    ("the account", "bedrock", _check_account),
    ("the grader", grader_checks.ARN_FIELD, grader_checks.check_grader),
)
"""What is checked in the account, and the field that it is about."""
