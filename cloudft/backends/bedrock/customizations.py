"""What Bedrock needs for the customization types that have a section of the job file.

A row of CUSTOMIZATIONS builds a type's part of the request from its section, and has its
permissions and its checks. Types without a row need none of these. The types themselves are in
`catalogue/customization_types.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from cloudft import catalogue
from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import CUSTOMIZATION_TYPES, CustomizationType
from cloudft.errors import UnknownModel
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

Config = Mapping[str, object]
"""The member customizationConfig of CreateModelCustomizationJob."""
GEOGRAPHIES = ("us", "eu", "apac", "jp", "au", "us-gov", "global")
"""First parts of the names of system-defined inference profiles."""
_PROFILE_PREFIX = re.compile(rf"^({'|'.join(GEOGRAPHIES)})\.")


def without_profile(name: str) -> str:
    """Return the id of the model behind an inference profile's id; a model's own as it is."""
    return _PROFILE_PREFIX.sub("", name)


def _no_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    yield from ()


def _no_findings(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    yield from ()


@dataclass(frozen=True)
class Customization:
    """Bedrock's side of a customization type; called for jobs of that type with its section.

    `build_config` returns customizationConfig. `role_permissions` yields what the service role must
    be allowed besides data and output. `request_fields` maps members of the request to the
    job-file fields that they are made from. `regional_arns` names fields whose ARN must be of the
    job's Region. `check` needs no account.
    """

    build_config: Callable[[LoadedJob], Config]
    role_permissions: Callable[[LoadedJob, ArnContext], Iterator[RequiredPermission]] = (
        _no_permissions
    )
    request_fields: Mapping[str, str] = field(default_factory=dict)
    regional_arns: tuple[str, ...] = ()
    check: Callable[[LoadedJob, FindingFactory], Iterator[Finding]] = _no_findings


def build_config(job: LoadedJob) -> Config | None:
    """Return the job's customizationConfig; None for a type without one."""
    customization = _customization(job)
    return None if customization is None else customization.build_config(job)


def role_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    """Yield what the service role must be allowed for the job's customization type."""
    customization = _customization(job)
    if customization is not None:
        yield from customization.role_permissions(job, arns)


def request_fields() -> dict[str, str]:
    """Return the job-file field of each member of customizationConfig, for all types."""
    rows = CUSTOMIZATIONS.values()
    return {member: field for row in rows for member, field in row.request_fields.items()}


def regional_arns(job: LoadedJob) -> dict[str, str]:
    """Return the ARNs in the type's section that must be of the job's Region, by their fields."""
    customization = _customization(job)
    if customization is None:
        return {}
    arns = {}
    for path in customization.regional_arns:
        section, _, name = path.partition(".")
        arns[path] = str(getattr(getattr(job.spec, section), name))
    return arns


def check_customization(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Yield findings about the type and its section that need no account."""
    name = job.spec.customization_type
    job_type = CUSTOMIZATION_TYPES[name]
    for other in CUSTOMIZATION_TYPES.values():
        if other.section is None or getattr(job.spec, other.section) is None:
            continue
        if other.section != job_type.section:
            message = f"the section {other.section} has no meaning for {name}"
            fix = f"set customization_type: {other.name}."
            yield finding("UnusedValue", other.section, message, fix)
    if _lacks_section(job, job_type):
        section = str(job_type.section)
        message = f"{name} needs the section {section}"
        yield finding("MissingValue", section, message, job_type.section_fix)
    if job_type.has_own_hyperparameters and job.spec.hyperparameters:
        message = f"{name} takes its own hyperparameters"
        fix = f"move them to {job_type.section}.hyperparameters."
        yield finding("UnusedValue", "hyperparameters", message, fix)
    customization = _customization(job)
    if customization is not None:
        yield from customization.check(job, finding)


def _lacks_section(job: LoadedJob, job_type: CustomizationType) -> bool:
    """Return whether the type's section is missing, and `bedrock.request` does not replace it."""
    if job_type.section is None or "customizationConfig" in job.spec.bedrock.request:
        return False
    return getattr(job.spec, job_type.section) is None


def _customization(job: LoadedJob) -> Customization | None:
    """Return the row of the job's type, where the job has the section that it reads."""
    name = job.spec.customization_type
    section = CUSTOMIZATION_TYPES[name].section
    if section is None or getattr(job.spec, section) is None:
        return None
    return CUSTOMIZATIONS.get(name)


def _distillation_config(job: LoadedJob) -> Config:
    section = job.spec.distillation
    assert section is not None
    teacher: dict[str, object] = {"teacherModelIdentifier": section.teacher}
    if section.max_response_length is not None:
        teacher["maxResponseLengthForInference"] = section.max_response_length
    return {"distillationConfig": {"teacherModelConfig": teacher}}


def _teacher_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    """Yield the permission to invoke the teacher.

    An inference profile invokes its model in any of the profile's Regions, so the role needs the
    permission for the profile and for the model in all of them.
    """
    assert job.spec.distillation is not None
    action, name = "bedrock:InvokeModel", job.spec.distillation.teacher
    identifier = name.rpartition("/")[2]
    geography, _, model = identifier.partition(".")
    if geography not in GEOGRAPHIES:
        arn = arns.arn("bedrock", f"foundation-model/{identifier}", account=False)
        yield RequiredPermission(action, name if name.startswith("arn:") else arn)
        return
    profile = arns.arn("bedrock", f"inference-profile/{identifier}")
    yield RequiredPermission(action, name if name.startswith("arn:") else profile)
    any_region = f"arn:{arns.partition}:bedrock:*::foundation-model/{model}"
    in_region = any_region.replace("*", arns.region)
    yield RequiredPermission(action, in_region, statement_resource=any_region)


def _check_teacher(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Check that Bedrock supports this teacher for the student.

    The pairs are those of the catalogue, and its source may be behind: an unknown pair is a
    warning.
    """
    assert job.spec.distillation is not None
    student = job.model
    identifier = without_profile(job.spec.distillation.teacher.rpartition("/")[2])
    try:
        teacher = catalogue.find_model(identifier)
    except UnknownModel:
        teacher = None
    if teacher is not None and teacher.lifecycle.state == "end-of-life":
        message = f"the teacher {teacher.alias} is past its end of life ({teacher.lifecycle.date})"
        fix = f"set distillation.teacher to {' or '.join(student.teachers) or 'another model'}."
        yield finding("ModelEndOfLife", "distillation.teacher", message, fix)
    elif student.teachers and identifier not in student.teachers:
        source = str(student.sources[0])
        message = f"{identifier} is not a known teacher of {student.alias} ({source})"
        fix = f"use {' or '.join(student.teachers)}, or make sure that Bedrock supports the pair."
        yield finding("TeacherUnknown", "distillation.teacher", message, fix, "warning")


def _reinforcement_config(job: LoadedJob) -> Config:
    section = job.spec.reinforcement
    assert section is not None
    grader = {"lambdaGrader": {"lambdaArn": section.lambda_arn}}
    config: dict[str, object] = {"graderConfig": grader}
    if section.hyperparameters:
        config["hyperParameters"] = dict(section.hyperparameters)
    return {"rftConfig": config}


def _grader_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    """Yield the permission to invoke the grader, which its own resource policy may grant too."""
    assert job.spec.reinforcement is not None
    grader = job.spec.reinforcement.lambda_arn
    yield RequiredPermission("lambda:InvokeFunction", grader, severity="warning")


CUSTOMIZATIONS: dict[str, Customization] = {
    "DISTILLATION": Customization(
        build_config=_distillation_config,
        role_permissions=_teacher_permissions,
        request_fields={
            "customizationConfig.distillationConfig.teacherModelConfig": "distillation.teacher",
        },
        check=_check_teacher,
    ),
    "REINFORCEMENT_FINE_TUNING": Customization(
        build_config=_reinforcement_config,
        role_permissions=_grader_permissions,
        request_fields={
            "customizationConfig.rftConfig.graderConfig": "reinforcement.lambda_arn",
            "customizationConfig.rftConfig.hyperParameters": "reinforcement.hyperparameters",
        },
        regional_arns=("reinforcement.lambda_arn",),
    ),
}
"""Rows by customization type."""
