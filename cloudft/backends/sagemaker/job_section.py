"""The section of the job file that the SageMaker backend reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudft.spec.fields import (
    ACCOUNT,
    HUB_CONTENT,
    IMAGE_URI,
    INSTANCE_TYPE,
    KMS_KEY,
    MLFLOW_ARN,
    MODEL_PACKAGE_GROUP,
    READ_NUMBER,
    REGION,
    ROLE_ARN,
    S3_URI,
    SEQUENCE_LENGTH,
    STACK_NAME,
    URL,
    Bool,
    GraderSetting,
    Int,
)
from cloudft.spec.sections import JobSection, Section, Vpc, register_section


class Serverless(Section):
    """SageMaker's own customization of a model of its public hub, without a machine of yours."""

    model: HUB_CONTENT | None = Field(
        default=None,
        description="Name of the model's content in SageMakerPublicHub; base_model's if unset.",
    )
    model_package_group: MODEL_PACKAGE_GROUP = Field(
        description="Model package group that gets the tuned model: its name or ARN."
    )
    method: Literal["lora", "full"] = Field(
        default="lora", description="Tune an adapter, or all weights."
    )
    accept_eula: Bool = Field(
        default=False, description="Accept the license of a model that has one to accept."
    )
    sequence_length: SEQUENCE_LENGTH | None = Field(
        default=None,
        description="Longest record in tokens, in thousands (8K): selects SageMaker's recipe.",
    )
    hyperparameters: dict[str, GraderSetting] = Field(
        default_factory=dict, description="By the names of SageMaker's recipe (lora_rank, seed)."
    )
    mlflow_arn: MLFLOW_ARN | None = Field(
        default=None, description="MLflow app that records the metrics; none is created if unset."
    )


class SageMakerSpec(Section):
    """Settings of the SageMaker backend. `local` says what is trained, and how."""

    region: REGION | None = Field(default=None, description="AWS Region; bedrock.region if unset.")
    stack: STACK_NAME | None = Field(
        default=None,
        description="Stack of `cloudft infra deploy`; its outputs fill in what is unset here: role,"
        " S3 location, key, network. bedrock.stack if unset and role_arn or s3_uri is left out.",
    )
    role_arn: ROLE_ARN | None = Field(default=None, description="Role that SageMaker assumes.")
    s3_uri: S3_URI | None = Field(default=None, description="S3 prefix for data and output.")
    instance_type: INSTANCE_TYPE | None = Field(
        default=None, description="For example ml.g5.2xlarge; the cheapest that fits if unset."
    )
    instance_count: Int = Field(default=1, ge=1, le=64, description="Machines.")
    image_uri: IMAGE_URI | None = Field(
        default=None,
        description="A PyTorch training image; the SageMaker SDK's own choice if unset.",
    )
    pytorch_version: Annotated[str, Field(pattern=r"^\d+(\.\d+){1,2}$")] | None = Field(
        default=None, description="PyTorch version of the SDK's image; its newest if unset."
    )
    spot: Bool = Field(default=False, description="Use spot capacity, which can be interrupted.")
    max_runtime_seconds: Annotated[int, Field(ge=60, le=28 * 86400), READ_NUMBER] | None = Field(
        default=None,
        description="Stop the job after this; derived from budget_usd, or a day, if unset.",
    )
    max_wait_seconds: Annotated[int, Field(ge=60, le=28 * 86400), READ_NUMBER] | None = Field(
        default=None,
        description="With spot: waiting plus running; twice max_runtime_seconds if unset.",
    )
    keep_alive_seconds: Int = Field(
        default=0, ge=0, le=21600, description="Keep the machine warm for the next job."
    )
    volume_gb: Annotated[int, Field(ge=1, le=16384), READ_NUMBER] | None = Field(
        default=None, description="Disk; derived from the size of the weights if unset."
    )
    kms_key_id: KMS_KEY | None = Field(default=None, description="Key for output and disk.")
    s3_kms_key_id: KMS_KEY | None = Field(
        default=None, description="Key for the staged data; the bucket's own encryption if unset."
    )
    bucket_owner: ACCOUNT | None = Field(
        default=None, description="Account that owns the bucket; the role's if unset."
    )
    vpc: Vpc | None = Field(default=None, description="Subnets and security groups.")
    network_isolation: Bool = Field(
        default=False, description="No network: the image must have everything the trainer needs."
    )
    serverless: Serverless | None = Field(
        default=None, description="Let SageMaker tune the model, instead of cloudft's trainer."
    )
    profile: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Profile of the AWS configuration; bedrock.profile if unset."
    )
    endpoint_url: URL | None = Field(
        default=None, description="Endpoint instead of AWS's own; bedrock.endpoint_url if unset."
    )


register_section(JobSection("sagemaker", SageMakerSpec, "The SageMaker backend.", show_unset=False))
