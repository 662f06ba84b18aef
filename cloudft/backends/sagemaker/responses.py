"""Responses of the SageMaker API, with the members that are read (botocore 1.44.5)."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict


class S3DataSource(TypedDict):
    """Where a channel's data lies."""

    S3Uri: str


class DataSource(TypedDict, total=False):
    """The data of a channel: in S3, or on a file system."""

    S3DataSource: S3DataSource


class Channel(TypedDict):
    """One input channel of a training job."""

    ChannelName: str
    DataSource: DataSource


class OutputDataConfig(TypedDict, total=False):
    """Where a training job writes its output."""

    S3OutputPath: str
    KmsKeyId: str


class ModelArtifacts(TypedDict):
    """The archive that a completed training job wrote."""

    S3ModelArtifacts: str


class ResourceConfig(TypedDict, total=False):
    """The instances of a training job."""

    InstanceType: str
    InstanceCount: int
    VolumeSizeInGB: int
    VolumeKmsKeyId: str
    KeepAlivePeriodInSeconds: int


class StoppingCondition(TypedDict, total=False):
    """The time limits of a training job."""

    MaxRuntimeInSeconds: int
    MaxWaitTimeInSeconds: int


class WarmPoolStatus(TypedDict):
    """Whether the instances of an ended training job are kept for the next one."""

    Status: str


class _TrainingJob(TypedDict):
    TrainingJobName: str
    TrainingJobArn: str
    TrainingJobStatus: str
    CreationTime: datetime


class TrainingJob(_TrainingJob, total=False):
    """A training job, as DescribeTrainingJob or an item of ListTrainingJobs describes it.

    Items of the list have no more than name, ARN, times, status and warm pool.
    """

    SecondaryStatus: str
    HyperParameters: dict[str, str]
    InputDataConfig: list[Channel]
    OutputDataConfig: OutputDataConfig
    ModelArtifacts: ModelArtifacts
    ResourceConfig: ResourceConfig
    StoppingCondition: StoppingCondition
    ServerlessJobConfig: dict[str, object]
    OutputModelPackageArn: str
    RoleArn: str
    WarmPoolStatus: WarmPoolStatus
    FailureReason: str
    BillableTimeInSeconds: int
    BillableTokenCount: int
    TrainingEndTime: datetime
    LastModifiedTime: datetime
