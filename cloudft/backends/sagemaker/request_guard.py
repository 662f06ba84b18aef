"""Compare a request of CreateTrainingJob with the job file, before it is sent.

A setting that silently does not reach SageMaker costs money or leaves data unencrypted. What the
SageMaker SDK's trainers leave out on instances (sagemaker-train 1.27.0: both keys, spot, the model
package group) is what this looks for in every request: of this build of cloudft, of an earlier
one whose plan was recorded, or of the SDK.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.backends.sagemaker import instances
from cloudft.backends.sagemaker.job_section import SageMakerSpec
from cloudft.errors import CheckFailed
from cloudft.spec.model import JobSpec
from cloudft.types import Finding

FIX = "submit it again with --force-new; a request without what the job file sets is never sent."
DIRECT = {
    "role_arn": "RoleArn",
    "kms_key_id": "OutputDataConfig.KmsKeyId",
    "max_runtime_seconds": "StoppingCondition.MaxRuntimeInSeconds",
    "vpc.subnet_ids": "VpcConfig.Subnets",
    "vpc.security_group_ids": "VpcConfig.SecurityGroupIds",
}
"""Field of the section -> the member of every request that has its value."""
ON_INSTANCES = {
    "instance_type": "ResourceConfig.InstanceType",
    "instance_count": "ResourceConfig.InstanceCount",
    "volume_gb": "ResourceConfig.VolumeSizeInGB",
    "keep_alive_seconds": "ResourceConfig.KeepAlivePeriodInSeconds",
    "image_uri": "AlgorithmSpecification.TrainingImage",
    "max_wait_seconds": "StoppingCondition.MaxWaitTimeInSeconds",
    "spot": "EnableManagedSpotTraining",
    "network_isolation": "EnableNetworkIsolation",
}
"""The same, of a request for machines; 0 and false need no member."""
SERVERLESS = {
    "sequence_length": "ServerlessJobConfig.SequenceLength",
    "accept_eula": "ServerlessJobConfig.AcceptEula",
    "mlflow_arn": "MlflowConfig.MlflowResourceArn",
}
"""The same, of the section `serverless`."""


@dataclass(frozen=True)
class MissingSetting:
    """A setting of the job file that a request lacks, or has with another value."""

    field: str
    member: str
    expected: object
    found: object

    @property
    def message(self) -> str:
        """Return what is wrong, with the field and the member."""
        found = "is not there" if self.found is None else f"is {self.found}"
        return f"{self.field} is {self.expected}, but {self.member} of the request {found}"


def find_missing(spec: JobSpec, parameters: Mapping[str, Any]) -> list[MissingSetting]:
    """Return the settings of a job file that a request of CreateTrainingJob lacks."""
    section = spec.sagemaker
    rows = [*_rows(section), *_disk_key(section, parameters)]
    found = ((field, member, want, _member(parameters, member)) for field, member, want in rows)
    missing = [
        MissingSetting(f"sagemaker.{field}", member, want, has)
        for field, member, want, has in found
        if want != has
    ]
    return [*missing, *_missing_tags(spec.tags, parameters)]


def require_complete(what: str, spec: JobSpec, parameters: Mapping[str, Any]) -> None:
    """Raise CheckFailed, with every setting that is missing, unless a request has them all."""
    findings = [
        Finding("error", "BadRequest", f"{what}: {one.message}", FIX, field=one.field)
        for one in find_missing(spec, parameters)
    ]
    if findings:
        raise CheckFailed(findings[0].message, findings)


def _rows(section: SageMakerSpec) -> Iterator[tuple[str, str, object]]:
    """Yield field, member and value of everything that is set."""
    tables: list[tuple[str, object, Mapping[str, str]]] = [("", section, DIRECT)]
    if section.serverless is None:
        tables.append(("", section, ON_INSTANCES))
    else:
        tables.append(("serverless.", section.serverless, SERVERLESS))
    for prefix, values, table in tables:
        for field, member in table.items():
            value = _value(values, field)
            if value not in (None, False, 0):
                yield f"{prefix}{field}", member, list(value) if _is_tuple(value) else value


def _is_tuple(value: object) -> bool:
    return isinstance(value, tuple)


def _value(section: object, field: str) -> Any:
    for name in field.split("."):
        section = getattr(section, name, None)
    return section


def _disk_key(
    section: SageMakerSpec, parameters: Mapping[str, Any]
) -> Iterator[tuple[str, str, object]]:
    """Yield the key of the disk: a machine's own NVMe disk takes none."""
    if section.kms_key_id is None or section.serverless is not None:
        return
    machine = instances.find_instance(_member(parameters, "ResourceConfig.InstanceType"))
    if machine is None or not machine.nvme:
        yield "kms_key_id", "ResourceConfig.VolumeKmsKeyId", section.kms_key_id


def _missing_tags(
    tags: Mapping[str, str], parameters: Mapping[str, Any]
) -> Iterator[MissingSetting]:
    sent = {tag["Key"]: tag["Value"] for tag in parameters.get("Tags") or ()}
    for key, value in tags.items():
        if sent.get(key) != value:
            yield MissingSetting(f"tags.{key}", "Tags", value, sent.get(key))


def _member(parameters: Mapping[str, Any], member: str) -> Any:
    value: Any = parameters
    for name in member.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
