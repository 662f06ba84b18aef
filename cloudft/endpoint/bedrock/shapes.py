"""Members of Bedrock's requests, by the API's names.

The protocol layer validates a request against botocore's service model before an operation gets
it. These types name the members that the endpoint reads; a request may have more, and all of them
are stored. Member names and types: botocore's service models `bedrock` and `bedrock-runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypedDict

Tags: TypeAlias = Sequence[Mapping[str, str]]
"""Tags, each with the members `key` and `value`."""


class S3Location(TypedDict):
    """Where a file or folder is in S3."""

    s3Uri: str


class ListRequest(TypedDict, total=False):
    """Filters, order and page of a list operation."""

    nameContains: str
    statusEquals: str
    creationTimeAfter: datetime
    creationTimeBefore: datetime
    sortBy: str
    sortOrder: str
    maxResults: int
    nextToken: str


class JobIdentifier(TypedDict):
    """A job, by name or ARN."""

    jobIdentifier: str


class ModelIdentifier(TypedDict):
    """A model, by name or ARN."""

    modelIdentifier: str


class InvocationLogsConfig(TypedDict, total=False):
    """Invocation logs to train on. Filters are as in cloudft/data/invocation_logs.py."""

    usePromptResponse: bool
    invocationLogSource: S3Location
    requestMetadataFilters: Mapping[str, object]


class TrainingDataConfig(TypedDict, total=False):
    """Where training data is: a file, or invocation logs in its place."""

    s3Uri: str
    invocationLogsConfig: InvocationLogsConfig


class ValidationDataConfig(TypedDict, total=False):
    """Validation files, each with its own metric."""

    validators: Sequence[S3Location]


class TeacherModelConfig(TypedDict, total=False):
    """The teacher of a distillation."""

    teacherModelIdentifier: str
    maxResponseLengthForInference: int


class DistillationConfig(TypedDict):
    """Settings of a distillation."""

    teacherModelConfig: TeacherModelConfig


class LambdaGrader(TypedDict):
    """The function that grades answers."""

    lambdaArn: str


class GraderConfig(TypedDict, total=False):
    """What grades answers."""

    lambdaGrader: LambdaGrader


class ReinforcementConfig(TypedDict, total=False):
    """Settings of a reinforcement; its hyperparameters are typed."""

    graderConfig: GraderConfig
    hyperParameters: dict[str, int | float | str]


class CustomizationConfig(TypedDict, total=False):
    """Settings of one customization type."""

    distillationConfig: DistillationConfig
    rftConfig: ReinforcementConfig


class CreateCustomizationJobRequest(TypedDict, total=False):
    """Request of CreateModelCustomizationJob."""

    jobName: str
    customModelName: str
    roleArn: str
    clientRequestToken: str
    baseModelIdentifier: str
    customizationType: str
    customizationConfig: CustomizationConfig
    trainingDataConfig: TrainingDataConfig
    validationDataConfig: ValidationDataConfig
    outputDataConfig: S3Location
    hyperParameters: Mapping[str, str]
    jobTags: Tags
    customModelTags: Tags


class ListCustomModelsRequest(ListRequest, total=False):
    """Request of ListCustomModels."""

    baseModelArnEquals: str
    foundationModelArnEquals: str
    isOwned: bool
    modelStatus: str


class CreateDeploymentRequest(TypedDict, total=False):
    """Request of CreateCustomModelDeployment."""

    modelDeploymentName: str
    modelArn: str
    description: str
    tags: Tags
    clientRequestToken: str


class DeploymentIdentifier(TypedDict):
    """A deployment, by name or ARN."""

    customModelDeploymentIdentifier: str


class UpdateDeploymentRequest(DeploymentIdentifier):
    """Request of UpdateCustomModelDeployment."""

    modelArn: str


class ListServingRequest(ListRequest, total=False):
    """Request of ListCustomModelDeployments and ListProvisionedModelThroughputs."""

    modelArnEquals: str


class CreateThroughputRequest(TypedDict, total=False):
    """Request of CreateProvisionedModelThroughput."""

    provisionedModelName: str
    modelId: str
    modelUnits: int
    commitmentDuration: str
    tags: Tags
    clientRequestToken: str


class ThroughputIdentifier(TypedDict):
    """Provisioned throughput, by name or ARN."""

    provisionedModelId: str


class UpdateThroughputRequest(ThroughputIdentifier, total=False):
    """Request of UpdateProvisionedModelThroughput."""

    desiredProvisionedModelName: str
    desiredModelId: str


class ResourceArn(TypedDict):
    """A resource with tags."""

    resourceARN: str


class TagResourceRequest(ResourceArn):
    """Request of TagResource."""

    tags: Tags


class UntagResourceRequest(ResourceArn):
    """Request of UntagResource."""

    tagKeys: Sequence[str]


class ModelSource(TypedDict):
    """What an application inference profile is made of: the ARN of a model or of a profile."""

    copyFrom: str


class CreateProfileRequest(TypedDict, total=False):
    """Request of CreateInferenceProfile."""

    inferenceProfileName: str
    description: str
    modelSource: ModelSource
    tags: Tags
    clientRequestToken: str


class ProfileIdentifier(TypedDict):
    """An inference profile, by id or ARN."""

    inferenceProfileIdentifier: str


class ListProfilesRequest(ListRequest, total=False):
    """Request of ListInferenceProfiles."""

    typeEquals: str


class LoggingConfigurationRequest(TypedDict):
    """Request of PutModelInvocationLoggingConfiguration."""

    loggingConfig: Mapping[str, object]


class ModelDataSource(TypedDict, total=False):
    """Where an imported model is read from."""

    s3DataSource: S3Location


class CreateImportJobRequest(TypedDict, total=False):
    """Request of CreateModelImportJob."""

    jobName: str
    importedModelName: str
    roleArn: str
    modelDataSource: ModelDataSource
    jobTags: Tags
    importedModelTags: Tags
    clientRequestToken: str


class CreateCustomModelRequest(TypedDict, total=False):
    """Request of CreateCustomModel."""

    modelName: str
    modelSourceConfig: ModelDataSource
    customModelDataSource: Mapping[str, Any]
    roleArn: str
    modelTags: Tags
    clientRequestToken: str


class CopyJobArn(TypedDict):
    """A copy job: these have no names."""

    jobArn: str


class CreateCopyJobRequest(TypedDict, total=False):
    """Request of CreateModelCopyJob."""

    sourceModelArn: str
    targetModelName: str
    targetModelTags: Tags
    clientRequestToken: str


class ListCopyJobsRequest(ListRequest, total=False):
    """Request of ListModelCopyJobs."""

    sourceModelArnEquals: str
    sourceAccountEquals: str
    targetModelNameContains: str


class CreateBatchRequest(TypedDict, total=False):
    """Request of CreateModelInvocationJob."""

    jobName: str
    roleArn: str
    modelId: str
    modelInvocationType: str
    tags: Tags
    clientRequestToken: str


class ListBatchesRequest(ListRequest, total=False):
    """Request of ListModelInvocationJobs."""

    submitTimeAfter: datetime
    submitTimeBefore: datetime


class EvaluationDataset(TypedDict, total=False):
    """Prompts of an evaluation job."""

    name: str
    datasetLocation: S3Location


class DatasetMetricConfig(TypedDict):
    """A dataset, and the metrics to score its answers by."""

    taskType: str
    dataset: EvaluationDataset
    metricNames: Sequence[str]


class EvaluatorModelConfig(TypedDict, total=False):
    """The judge of an evaluation job."""

    bedrockEvaluatorModels: Sequence[ModelIdentifier]


class AutomatedEvaluationConfig(TypedDict, total=False):
    """Datasets and judge of an evaluation job."""

    datasetMetricConfigs: Sequence[DatasetMetricConfig]
    evaluatorModelConfig: EvaluatorModelConfig
    customMetricConfig: Mapping[str, Any]


class EvaluationConfig(TypedDict, total=False):
    """How an evaluation job scores answers: automatically, or by people."""

    automated: AutomatedEvaluationConfig
    human: Mapping[str, Any]


class EvaluatedModel(ModelIdentifier, total=False):
    """A model that an evaluation job invokes itself."""

    inferenceParams: str


class PrecomputedInferenceSource(TypedDict):
    """The name of a source of answers that are in the dataset."""

    inferenceSourceIdentifier: str


class EvaluationModelConfig(TypedDict, total=False):
    """Where the answers are from: one of both."""

    bedrockModel: EvaluatedModel
    precomputedInferenceSource: PrecomputedInferenceSource


class EvaluationInferenceConfig(TypedDict, total=False):
    """The models that are evaluated. Evaluations of retrieval are not played here."""

    models: Sequence[EvaluationModelConfig]
    ragConfigs: Sequence[Mapping[str, Any]]


class CreateEvaluationJobRequest(TypedDict, total=False):
    """Request of CreateEvaluationJob."""

    jobName: str
    roleArn: str
    clientRequestToken: str
    applicationType: str
    evaluationConfig: EvaluationConfig
    inferenceConfig: EvaluationInferenceConfig
    outputDataConfig: S3Location
    jobTags: Tags


class ListEvaluationJobsRequest(ListRequest, total=False):
    """Request of ListEvaluationJobs."""

    applicationTypeEquals: str


class DeleteEvaluationJobsRequest(TypedDict):
    """Request of BatchDeleteEvaluationJob: ARNs."""

    jobIdentifiers: Sequence[str]


class ListFoundationModelsRequest(TypedDict, total=False):
    """Request of ListFoundationModels."""

    byProvider: str
    byCustomizationType: str
    byInferenceType: str
    byOutputModality: str


class ModelId(TypedDict):
    """A model, by id or ARN."""

    modelId: str


class InferenceConfig(TypedDict, total=False):
    """Limits of an answer. The endpoint translates other names into these."""

    maxTokens: int
    temperature: float
    topP: float
    stopSequences: Sequence[str]


class ConverseInput(TypedDict, total=False):
    """What Converse, ConverseStream and CountTokens share. Blocks are unions of many members."""

    messages: Sequence[Mapping[str, Any]]
    system: Sequence[Mapping[str, Any]]
    inferenceConfig: InferenceConfig
    toolConfig: Mapping[str, Any]
    guardrailConfig: Mapping[str, Any]
    outputConfig: Mapping[str, Any]
    promptVariables: Mapping[str, Any]
    additionalModelRequestFields: Mapping[str, Any]


class ConverseRequest(ConverseInput, total=False):
    """Request of Converse and ConverseStream."""

    modelId: str
    requestMetadata: Mapping[str, str]


class InvokeModelRequest(TypedDict, total=False):
    """Request of InvokeModel and InvokeModelWithResponseStream."""

    modelId: str
    body: bytes
    guardrailIdentifier: str
    requestMetadata: str


class InvokeModelInput(TypedDict):
    """A body whose tokens CountTokens counts."""

    body: bytes


class TokensInput(TypedDict, total=False):
    """What CountTokens counts: one of both."""

    invokeModel: InvokeModelInput
    converse: ConverseInput


class CountTokensRequest(ModelId):
    """Request of CountTokens."""

    input: TokensInput
