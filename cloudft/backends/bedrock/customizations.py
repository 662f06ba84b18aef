"""What Bedrock needs for the customization types that have a section of the job file.

A row of CUSTOMIZATIONS builds a type's part of the request from its section, and has its
permissions and its checks. Types without a row need none of these. The types themselves are in
`catalogue/customization_types.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from cloudft import catalogue
from cloudft.aws.permissions import ArnContext, RequiredPermission
from cloudft.backends.bedrock.inference_profiles import invoke_permissions
from cloudft.backends.findings import FindingFactory
from cloudft.backends.type_sections import check_type_sections
from cloudft.catalogue import CUSTOMIZATION_TYPES, CustomizationType
from cloudft.errors import UnknownModel
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

Config = Mapping[str, object]
"""The member customizationConfig of CreateModelCustomizationJob."""


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
        value = getattr(getattr(job.spec, section), name)
        if value is not None:
            arns[path] = str(value)
    return arns


def check_customization(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Yield findings about the type and its section that need no account."""
    name = job.spec.customization_type
    job_type = CUSTOMIZATION_TYPES[name]
    yield from check_type_sections(job, finding)
    if _lacks_section(job, job_type):
        section = str(job_type.section)
        message = f"{name} needs the section {section}"
        if _lacks_teacher(job):
            section, message = "distillation.teacher", f"{name} on Bedrock needs a teacher"
        yield finding("MissingValue", section, message, job_type.section_fix)
    customization = _customization(job)
    if customization is not None:
        yield from customization.check(job, finding)


def _lacks_section(job: LoadedJob, job_type: CustomizationType) -> bool:
    """Return whether the type's section is missing, and `bedrock.request` does not replace it."""
    if job_type.section is None or "customizationConfig" in job.spec.bedrock.request:
        return False
    section = getattr(job.spec, job_type.section)
    return section is None or _lacks_teacher(job)


def _lacks_teacher(job: LoadedJob) -> bool:
    """Return whether a distillation names no teacher, which the trainer's own may do."""
    section = job.spec.distillation
    is_distilled = job.spec.customization_type == "DISTILLATION"
    return is_distilled and section is not None and section.teacher is None


def _customization(job: LoadedJob) -> Customization | None:
    """Return the row of the job's type, where the job has the section that it reads."""
    name = job.spec.customization_type
    section = CUSTOMIZATION_TYPES[name].section
    if section is None or getattr(job.spec, section) is None or _lacks_teacher(job):
        return None
    return CUSTOMIZATIONS.get(name)


def teacher_id(job: LoadedJob) -> str:
    """Return the id or ARN to send for the teacher, as the job file has it.

    Of a model that is named by its alias it is the id that answers in the job's Region, which is a
    profile's for a model that needs one.
    """
    section = job.spec.distillation
    assert section is not None and section.teacher is not None
    name = section.teacher
    model = catalogue.find_catalogue_model(name)
    if model is None or name != model.alias or model.bedrock_id is None:
        return name
    return catalogue.inference_id(model.bedrock_id, str(job.spec.bedrock.region))


def _distillation_config(job: LoadedJob) -> Config:
    section = job.spec.distillation
    assert section is not None
    teacher: dict[str, object] = {"teacherModelIdentifier": teacher_id(job)}
    if section.max_response_length is not None:
        teacher["maxResponseLengthForInference"] = section.max_response_length
    return {"distillationConfig": {"teacherModelConfig": teacher}}


def _teacher_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    """Yield the permission to invoke the teacher; see invoke_permissions for a profile."""
    yield from invoke_permissions(teacher_id(job), arns)


def _check_teacher(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Check that Bedrock supports this teacher for the student.

    The pairs are those of the catalogue, and its source may be behind: an unknown pair is a
    warning.
    """
    student, identifier = job.model, teacher_id(job)
    if _is_on_this_machine(job, identifier):
        message = f"{identifier} is a model of this machine: Bedrock can't call it"
        fix = f"set distillation.teacher to {_teacher_names(job) or 'a model of Bedrock'}, or"
        yield finding("TeacherUnsupported", "distillation.teacher", message, f"{fix} train here.")
        return
    profile = catalogue.parse_profile(identifier)
    if profile is not None and profile.is_application:
        message = f"{identifier} is an application inference profile: none can be a teacher"
        fix = f"set distillation.teacher to {_teacher_names(job) or 'a model or its profile'}."
        yield finding("TeacherUnsupported", "distillation.teacher", message, fix)
        return
    name = profile.model if profile else identifier.rpartition("/")[2]
    teacher = catalogue.find_catalogue_model(name)
    if teacher is not None and teacher.lifecycle.state == "end-of-life":
        message = f"the teacher {teacher.alias} is past its end of life ({teacher.lifecycle.date})"
        fix = f"set distillation.teacher to {_teacher_names(job) or 'another model'}."
        yield finding("ModelEndOfLife", "distillation.teacher", message, fix)
    elif student.teachers and name not in student.teachers:
        source = str(student.sources[0])
        message = f"{name} is not a known teacher of {student.alias} ({source})"
        fix = f"use {_teacher_names(job)}, or make sure that Bedrock supports the pair."
        yield finding("TeacherUnknown", "distillation.teacher", message, fix, "warning")
    elif teacher is not None:
        yield from _check_teacher_region(job, teacher, profile, finding)


def _is_on_this_machine(job: LoadedJob, name: str) -> bool:
    try:
        return catalogue.find_model(name, base_dir=job.base_dir).is_open_weight
    except UnknownModel:
        return False


def _check_teacher_region(
    job: LoadedJob,
    teacher: catalogue.Model,
    profile: catalogue.ProfileName | None,
    finding: FindingFactory,
) -> Iterator[Finding]:
    """Check that the teacher answers in the job's Region, by its own id or by the profile."""
    region, own = str(job.spec.bedrock.region), catalogue.on_demand_id(str(teacher.bedrock_id))
    nearest = catalogue.inference_id(own, region)
    fix = f"set distillation.teacher: {nearest}"
    if profile is None and not catalogue.answers_in_region(teacher, region):
        message = f"{own} does not answer to its own id in {region}: it needs an inference profile"
        yield finding("TeacherUnsupported", "distillation.teacher", message, fix)
    elif profile is not None and profile.area not in catalogue.callable_areas(teacher, region):
        # The catalogue may not have a new profile yet.
        message = f"{profile.id} is not known to be callable in {region} ({teacher.sources[-1]})"
        yield finding("TeacherUnknown", "distillation.teacher", message, fix, "warning")


def _teacher_names(job: LoadedJob) -> str:
    """Return the ids of the student's living teachers, as they answer in the job's Region."""
    region = str(job.spec.bedrock.region)
    living = catalogue.living_teachers(job.model)
    return " or ".join(catalogue.inference_id(str(one.bedrock_id), region) for one in living)


def _reinforcement_config(job: LoadedJob) -> Config:
    section = job.spec.reinforcement
    assert section is not None
    config: dict[str, object] = {}
    if section.lambda_arn is not None:
        config["graderConfig"] = {"lambdaGrader": {"lambdaArn": section.lambda_arn}}
    if section.hyperparameters:
        config["hyperParameters"] = dict(section.hyperparameters)
    return {"rftConfig": config}


def _grader_permissions(job: LoadedJob, arns: ArnContext) -> Iterator[RequiredPermission]:
    """Yield the permission to invoke the grader, which its own resource policy may grant too."""
    assert job.spec.reinforcement is not None
    grader = job.spec.reinforcement.lambda_arn
    if grader is not None:
        yield RequiredPermission("lambda:InvokeFunction", grader, severity="warning")


def _check_grader(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Check that the function is named: by the job file, or by the stack STACK-grader."""
    section = job.spec.reinforcement
    assert section is not None
    if section.lambda_arn is not None:
        return
    if section.grader is None:
        fix = "set reinforcement.grader, deploy it, and set reinforcement.lambda_arn."
    else:
        fix = (
            "`cloudft infra deploy NAME-grader --grader JOB.yaml` deploys it beside the stack NAME;"
            " set bedrock.stack: NAME, or reinforcement.lambda_arn."
        )
    message = "the grader's Lambda function is not named"
    yield finding("MissingValue", "reinforcement.lambda_arn", message, fix)


CUSTOMIZATIONS: dict[str, Customization] = {
    "DISTILLATION": Customization(
        build_config=_distillation_config,
        role_permissions=_teacher_permissions,
        request_fields={
            "customizationConfig.distillationConfig.teacherModelConfig": "distillation.teacher",
        },
        regional_arns=("distillation.teacher",),
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
        check=_check_grader,
    ),
}
"""Rows by customization type."""
