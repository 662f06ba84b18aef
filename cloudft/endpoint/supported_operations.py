"""List the operations that the endpoint offers: read from the services' own methods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.bedrock.batch_inference import BatchInference
from cloudft.endpoint.bedrock.custom_models import CustomModels
from cloudft.endpoint.bedrock.customization_jobs import CustomizationJobs
from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.evaluation_jobs import EvaluationJobs
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.inference_profiles import InferenceProfiles
from cloudft.endpoint.bedrock.invocation_logging import InvocationLogging
from cloudft.endpoint.bedrock.model_copy_jobs import ModelCopyJobs
from cloudft.endpoint.bedrock.model_import_jobs import ModelImportJobs
from cloudft.endpoint.bedrock.runtime import BedrockRuntime
from cloudft.endpoint.cloudformation.change_sets import ChangeSets
from cloudft.endpoint.cloudformation.drift import DriftDetection
from cloudft.endpoint.cloudformation.stacks import Stacks
from cloudft.endpoint.cloudformation.templates import Templates
from cloudft.endpoint.grader_functions import GraderFunctions
from cloudft.endpoint.iam.simulator import PolicySimulator
from cloudft.endpoint.openai_api.chat import ChatCompletions
from cloudft.endpoint.openai_api.files import Files
from cloudft.endpoint.openai_api.fine_tuning_jobs import FineTuningJobs
from cloudft.endpoint.operations import snake_case
from cloudft.endpoint.sagemaker.model_registry import ModelRegistry
from cloudft.endpoint.sagemaker.training_jobs import TrainingJobs
from cloudft.endpoint.service_quotas import ServiceQuotas

SERVICES: Sequence[type] = (
    FoundationModels,
    CustomizationJobs,
    Deployments,
    ModelImportJobs,
    ModelCopyJobs,
    BatchInference,
    EvaluationJobs,
    BedrockRuntime,
    InferenceProfiles,
    CustomModels,
    InvocationLogging,
)
"""The classes whose methods are operations of bedrock and bedrock-runtime."""
PARTLY_LISTED: Mapping[str, Sequence[type]] = {
    "bedrock-mantle": (Files, FineTuningJobs, ChatCompletions),
    "cloudformation": (Stacks, ChangeSets, Templates, DriftDetection),
    "iam": (PolicySimulator,),
    "lambda": (GraderFunctions,),
    "sagemaker": (TrainingJobs, ModelRegistry),
    "service-quotas": (ServiceQuotas,),
}
"""Services with many operations, of which only those that these classes offer are listed."""


@dataclass(frozen=True)
class OperationSupport:
    """An operation of botocore's model. `does` is what it does here; empty if it is not offered."""

    service: str
    operation: str
    offered: bool
    does: str


def list_operations() -> Iterator[OperationSupport]:
    """Yield the operations in the order of their service models."""
    for service in ("bedrock", "bedrock-runtime"):
        for name in load_service_model(service).operation_names:
            yield _describe(service, name, SERVICES)
    for service, classes in PARTLY_LISTED.items():
        for name in load_service_model(service).operation_names:
            support = _describe(service, name, classes)
            if support.offered:
                yield support


def _describe(service: str, name: str, classes: Sequence[type]) -> OperationSupport:
    methods = (getattr(cls, snake_case(name), None) for cls in classes)
    method = next((method for method in methods if method is not None), None)
    if method is None:
        return OperationSupport(service, name, False, "")
    # The errors that a docstring ends with are those of the API's own documentation.
    does = re.split(r"\s+Raises? ", (method.__doc__ or "").strip())[0]
    return OperationSupport(service, name, True, does)


def render_markdown_table() -> str:
    """Return the operations as a Markdown table, for the documentation."""
    rows = [
        f"| {line.service} | {line.operation} | {'yes' if line.offered else 'no'} | {line.does} |"
        for line in list_operations()
    ]
    return "\n".join(["| service | operation | offered | here |", "|---|---|---|---|", *rows])
