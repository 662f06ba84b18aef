"""Shapes of Bedrock's requests and responses that cross modules, as far as cloudft uses them.

Source: botocore's service model of `bedrock` (1.44.5). boto3 returns plain dicts; these types name
their members for the reader and for mypy.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict

from cloudft.aws.tags import Tag
from cloudft.types import Status


class S3Uri(TypedDict):
    """A location in S3."""

    s3Uri: str


class VpcConfig(TypedDict):
    """Network of a job."""

    subnetIds: list[str]
    securityGroupIds: list[str]


class PhaseDetails(TypedDict, total=False):
    """Status of a phase of a customization job."""

    status: Status
    creationTime: datetime
    lastModifiedTime: datetime


class StatusDetailsResponse(TypedDict, total=False):
    """Statuses of the phases of a customization job."""

    validationDetails: PhaseDetails
    dataProcessingDetails: PhaseDetails
    trainingDetails: PhaseDetails


class TrainingMetrics(TypedDict, total=False):
    """Metrics of training."""

    trainingLoss: float


class ValidatorMetric(TypedDict, total=False):
    """Metrics on one validation file."""

    validationLoss: float


class TrainingData(TypedDict, total=False):
    """Where a job's training data is: a file, or invocation logs."""

    s3Uri: str
    invocationLogsConfig: Mapping[str, object]


class ValidationData(TypedDict, total=False):
    """Validation files of a job."""

    validators: list[S3Uri]


class _Job(TypedDict):
    jobArn: str
    jobName: str
    status: Status
    creationTime: datetime


class CustomizationJob(_Job, total=False):
    """A job as GetModelCustomizationJob returns it.

    A summary of ListModelCustomizationJobs has some of these members, and `customModelArn`.
    """

    baseModelArn: str
    clientRequestToken: str
    customModelArn: str
    customizationType: str
    endTime: datetime
    failureMessage: str
    hyperParameters: dict[str, str]
    outputDataConfig: S3Uri
    outputModelArn: str
    outputModelName: str
    roleArn: str
    statusDetails: StatusDetailsResponse
    trainingDataConfig: TrainingData
    trainingMetrics: TrainingMetrics
    validationDataConfig: ValidationData
    validationMetrics: list[ValidatorMetric]


class CreateCustomizationJob(TypedDict, total=False):
    """The parameters of CreateModelCustomizationJob."""

    jobName: str
    customModelName: str
    roleArn: str | None
    clientRequestToken: str
    baseModelIdentifier: str
    customizationType: str
    customizationConfig: Mapping[str, object]
    hyperParameters: dict[str, str]
    trainingDataConfig: TrainingData
    validationDataConfig: ValidationData
    outputDataConfig: S3Uri
    jobTags: list[Tag]
    customModelTags: list[Tag]
    customModelKmsKeyId: str
    vpcConfig: VpcConfig


class ImportSource(TypedDict, total=False):
    """Source of an imported model."""

    s3DataSource: S3Uri


class ImportJob(_Job, total=False):
    """A job as GetModelImportJob returns it."""

    endTime: datetime
    failureMessage: str
    importedModelArn: str
    modelDataSource: ImportSource


class CreateImportJob(TypedDict, total=False):
    """The parameters of CreateModelImportJob."""

    jobName: str
    importedModelName: str
    roleArn: str | None
    modelDataSource: ImportSource
    jobTags: list[Tag]
    importedModelTags: list[Tag]
    clientRequestToken: str
    importedModelKmsKeyId: str
    vpcConfig: VpcConfig


class CustomModelUnits(TypedDict, total=False):
    """How an imported model's copies are billed."""

    customModelUnitsPerModelCopy: int
    customModelUnitsVersion: str


class ImportedModel(TypedDict, total=False):
    """A model as GetImportedModel returns it."""

    modelArn: str
    modelArchitecture: str
    instructSupported: bool
    customModelUnits: CustomModelUnits


class BatchOutput(TypedDict):
    """Where a batch writes."""

    s3OutputDataConfig: S3Uri


class BatchJob(TypedDict, total=False):
    """A batch as GetModelInvocationJob returns it, and ListModelInvocationJobs in part."""

    jobArn: str
    jobName: str
    modelId: str
    status: str
    message: str
    submitTime: datetime
    outputDataConfig: BatchOutput


class EvaluationJob(TypedDict, total=False):
    """A job as GetEvaluationJob returns it, and ListEvaluationJobs in part."""

    jobArn: str
    jobName: str
    status: str
    creationTime: datetime
    failureMessages: list[str]
    outputDataConfig: S3Uri
