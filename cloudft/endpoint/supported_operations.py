"""Which operations of the two services the endpoint offers: read off its code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.app import snake_case
from cloudft.endpoint.bedrock.batch_inference import BatchInference
from cloudft.endpoint.bedrock.customization_jobs import CustomizationJobs
from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.model_copy_jobs import ModelCopyJobs
from cloudft.endpoint.bedrock.model_import_jobs import ModelImportJobs
from cloudft.endpoint.bedrock.runtime import BedrockRuntime
from cloudft.endpoint.sagemaker.training_jobs import TrainingJobs

SERVICES = (
    FoundationModels,
    CustomizationJobs,
    Deployments,
    ModelImportJobs,
    ModelCopyJobs,
    BatchInference,
    BedrockRuntime,
)
SAGEMAKER = "sagemaker"
"""Of its some four hundred operations those alone are told that are offered."""


@dataclass(frozen=True)
class OperationSupport:
    """One operation of botocore's model. `does` is the first line of what it does here."""

    service: str
    operation: str
    offered: bool
    does: str


def list_operations() -> Iterator[OperationSupport]:
    """All of them, in botocore's order."""
    for service in ("bedrock", "bedrock-runtime"):
        for name in load_service_model(service).operation_names:
            room = next((room for room in SERVICES if hasattr(room, snake_case(name))), None)
            words = (getattr(room, snake_case(name)).__doc__ or "").strip() if room else ""
            yield OperationSupport(service, name, room is not None, words.partition(" Raises")[0])
    for name in load_service_model(SAGEMAKER).operation_names:
        does = getattr(TrainingJobs, snake_case(name), None)
        if does is not None:
            yield OperationSupport(
                SAGEMAKER, name, True, does.__doc__.strip().partition(" Raises")[0]
            )


def render_markdown_table() -> str:
    """The table of the docs."""
    rows = [
        f"| {line.service} | {line.operation} | {'yes' if line.offered else 'no'} | {line.does} |"
        for line in list_operations()
    ]
    return "\n".join(["| service | operation | offered | here |", "|---|---|---|---|", *rows])
