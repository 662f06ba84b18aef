"""Everything that can be known before a job is submitted to Bedrock.

First what the job file alone tells, off line; then what the account answers. What may not be asked
is said to be unchecked: that is no failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.aws.request_validation import validate_request
from cloudft.backends.aws_base import request_checks
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import account_checks, request
from cloudft.backends.findings import FindingFactory
from cloudft.errors import UnknownModel
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity

IMPORT_ROUTE = (
    "train it on SageMaker or here, and import it into Bedrock:"
    " `cloudft submit --backend sagemaker --wait --import` (or --backend local)."
)


RESERVED_MEMBERS = {"jobName", "clientRequestToken", "outputDataConfig"}
"""Members that must stay as they are, or a job could be submitted twice."""


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
    "validationDataConfig": "bedrock.s3_uri",
    "outputDataConfig": "bedrock.s3_uri",
    "hyperParameters": "hyperparameters",
    "vpcConfig.subnetIds": "bedrock.vpc.subnet_ids",
    "vpcConfig.securityGroupIds": "bedrock.vpc.security_group_ids",
    "customizationConfig.distillationConfig.teacherModelConfig": "distillation.teacher",
    "customizationConfig.rftConfig.graderConfig": "reinforcement.lambda_arn",
    "customizationConfig.rftConfig.hyperParameters": "reinforcement.hyperparameters",
}
"""Member of the request -> the field of the job file that it is made from."""


def check_job(job: LoadedJob, aws: Aws) -> list[Finding]:
    """Off line first; the account is asked when the job file says enough for it."""
    note = FindingFactory(job)
    found = [
        *check_offline(job),
        *request_checks.check_profile_configured(aws.location, "bedrock.profile", note),
    ]
    if any(finding.severity == "error" for finding in found):
        return found
    found += _check_request(job, note)
    return [*found, *account_checks.check_account(job, aws, note)]


def check_offline(job: LoadedJob) -> list[Finding]:
    """What the job file alone tells. Without an error, the request can be written down."""
    note = FindingFactory(job)
    return [
        *_check_settings(job, note),
        *request_checks.check_arn_regions(_regional_arns(job), job.spec.bedrock.region, note),
        *_check_model(job, note),
        *_check_customization_type(job, note),
        *_check_teacher(job, note),
    ]


def _regional_arns(job: LoadedJob) -> dict[str, str | None]:
    """What must be of the job's Region."""
    spec = job.spec.bedrock
    return {
        "base_model": job.spec.base_model,
        "bedrock.kms_key_id": spec.kms_key_id,
        "bedrock.s3_kms_key_id": spec.s3_kms_key_id,
        "bedrock.machine_arn": spec.machine_arn,
        "reinforcement.lambda_arn": getattr(job.spec.reinforcement, "lambda_arn", None),
    }


def _check_settings(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    spec = job.spec.bedrock
    if spec.region is None:
        fix = "set bedrock.region, --region or AWS_REGION."
        yield note("MissingValue", "bedrock.region", "no AWS Region is named", fix)
    if spec.role_arn is None:
        fix = "set bedrock.role_arn (bedrock.amazonaws.com may assume it), or bedrock.stack."
        yield note("MissingValue", "bedrock.role_arn", "no service role is named", fix)
    if spec.s3_uri is None:
        fix = "set bedrock.s3_uri: s3://BUCKET/PREFIX, in the job's Region; or bedrock.stack."
        yield note("MissingValue", "bedrock.s3_uri", "no place in S3 is named", fix)
    if spec.via_stack and spec.machine_arn is None:
        fix = "set bedrock.stack; its machine is in the stack STACK-jobs (infra/jobs.yaml)."
        yield note("MissingValue", "bedrock.via_stack", "no state machine is named", fix)


def _check_model(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    model = job.model
    if model.bedrock_id is None and not job.spec.base_model.startswith("arn:"):
        message = f"Bedrock does not customize {model.alias}: its weights are yours to train"
        yield note("NotOnBedrock", "base_model", message, IMPORT_ROUTE)
    elif model.family == "openai-compatible":
        message = f"{model.alias} is customized through another API (OpenAI's form), not this one"
        yield note("NotOnBedrock", "base_model", message, "take another base_model.")
    region = job.spec.bedrock.region
    if region and model.regions and region not in model.regions:
        where = " or ".join(model.regions)
        message = f"{model.alias} is customized in {where}, not in {region} ({model.sources[0]})"
        fix = f"set bedrock.region: {model.regions[0]}, with a bucket there."
        severity: Severity = "warning" if job.spec.bedrock.endpoint_url else "error"
        yield note("RegionUnsupported", "bedrock.region", message, fix, severity)


SECTIONS = {"DISTILLATION": "distillation", "REINFORCEMENT_FINE_TUNING": "reinforcement"}
"""The section of the job file that each type needs, and no other may have."""


def _check_customization_type(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    kind = job.spec.customization_type
    for needed, section in SECTIONS.items():
        there = getattr(job.spec, section) is not None
        if kind == needed and not there and "customizationConfig" not in job.spec.bedrock.request:
            fix = "name who teaches." if section == "distillation" else "name the grader."
            yield note("MissingValue", section, f"{kind} needs the section {section}", fix)
        elif kind != needed and there:
            message = f"the section {section} has no meaning for {kind}"
            yield note("UnusedValue", section, message, f"set customization_type: {needed}.")
    if kind == "REINFORCEMENT_FINE_TUNING" and job.spec.hyperparameters:
        message = f"{kind} takes its own hyperparameters"
        fix = "move them to reinforcement.hyperparameters."
        yield note("UnusedValue", "hyperparameters", message, fix)


def _check_teacher(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    """The teacher beside the student: what is told of the pairs is told with its date."""
    if job.spec.distillation is None or job.spec.customization_type != "DISTILLATION":
        return
    name, student = job.spec.distillation.teacher, job.model
    teacher = _strip_profile_prefix(name)
    try:
        known = catalogue.find_model(teacher)
    except UnknownModel:
        known = None
    if known is not None and known.lifecycle.state == "end-of-life":
        message = f"the teacher {known.alias} is past its end of life ({known.lifecycle.date})"
        fix = f"take {' or '.join(student.teachers) or 'another one'}."
        yield note("ModelEndOfLife", "distillation.teacher", message, fix)
    elif student.teachers and teacher not in student.teachers:
        where = str(student.sources[0])
        message = f"{teacher} is not among the teachers of {student.alias} that are known ({where})"
        fix = f"take {' or '.join(student.teachers)}, or make sure that Bedrock allows the pair."
        yield note("TeacherUnknown", "distillation.teacher", message, fix, "warning")


def _strip_profile_prefix(name: str) -> str:
    """The model's id in an id, an ARN or a system-defined inference profile (`us.amazon...`)."""
    return re.sub(r"^(us|eu|apac|us-gov|global)\.", "", name.rpartition("/")[2])


def _check_request(job: LoadedJob, note: FindingFactory) -> Iterator[Finding]:
    """The request itself against the service model: patterns, enums, lengths."""
    for name in sorted(RESERVED_MEMBERS & set(job.spec.bedrock.request)):
        message = f"bedrock.request may not have {name}: cloudft finds the job again by it"
        yield note("BadRequest", "bedrock.request", message, "leave it out.")
    parameters = request.create_request(with_placeholder_data(job))
    own = set(job.spec.bedrock.request)
    fields = {
        path: field for path, field in REQUEST_FIELDS.items() if path.partition(".")[0] not in own
    }
    if job.spec.bedrock.output_s3_uri:
        fields["outputDataConfig"] = "bedrock.output_s3_uri"
    for problem in validate_request("bedrock", "CreateModelCustomizationJob", parameters):
        field = request_checks.field_for_member(problem, fields, "bedrock.request")
        yield note("BadRequest", field, problem, f"correct {field}.")
