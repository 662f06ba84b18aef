"""The sections of the job file that the Bedrock backend reads: its own, and its training types'."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from cloudft.spec.fields import (
    ACCOUNT,
    INFERENCE_PROFILE,
    KMS_KEY,
    MODEL_NAME,
    READ_NUMBER,
    REGION,
    ROLE_ARN,
    S3_URI,
    STACK_NAME,
    STATE_MACHINE_ARN,
    URL,
    Bool,
    GraderSetting,
    Paths,
)
from cloudft.spec.sections import (
    MAX_TOKENS,
    JobSection,
    Section,
    Vpc,
    register_section,
)


class BedrockSpec(Section):
    """Settings of the Bedrock backend."""

    region: REGION | None = Field(default=None, description="AWS Region of the job.")
    stack: STACK_NAME | None = Field(
        default=None,
        description="Stack of `cloudft infra deploy`; its outputs fill in what is unset here: role,"
        " S3 locations, key, network.",
    )
    via_stack: Bool = Field(
        default=False,
        description="Queue the job: the account's state machine creates it when there is capacity.",
    )
    machine_arn: STATE_MACHINE_ARN | None = Field(
        default=None,
        description="State machine of via_stack; JobMachineArn of the stack STACK-jobs if unset.",
    )
    role_arn: ROLE_ARN | None = Field(default=None, description="Role that Bedrock assumes.")
    import_role_arn: ROLE_ARN | None = Field(
        default=None, description="Role that reads a model for `cloudft import`; role_arn if unset."
    )
    s3_uri: S3_URI | None = Field(default=None, description="S3 prefix for data and output.")
    output_s3_uri: S3_URI | None = Field(
        default=None, description="S3 prefix for output, if not below s3_uri."
    )
    kms_key_id: KMS_KEY | None = Field(default=None, description="Key for the custom model.")
    s3_kms_key_id: KMS_KEY | None = Field(
        default=None, description="Key for the staged data; the bucket's own encryption if unset."
    )
    bucket_owner: ACCOUNT | None = Field(
        default=None, description="Account that owns the bucket; the role's if unset."
    )
    custom_model_name: MODEL_NAME | None = Field(
        default=None, description="Name of the custom model; derived from the job's if unset."
    )
    inference_profile: INFERENCE_PROFILE | None = Field(
        default=None,
        description="Inference profile that the base model is called by: an area (us, eu, global,"
        " ...), an id or an ARN; in-region for the model's own id. Chosen by Region if unset.",
    )
    vpc: Vpc | None = Field(default=None, description="Subnets and security groups.")
    profile: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Profile of the AWS configuration."
    )
    endpoint_url: URL | None = Field(
        default=None, description="Endpoint of every service, instead of AWS's own."
    )
    request: dict[str, Any] = Field(
        default_factory=dict,
        description="More parameters of CreateModelCustomizationJob, by the API's names.",
    )


class Distillation(Section):
    """The teacher, for DISTILLATION."""

    teacher: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None,
        description="The teacher: an alias, a Bedrock id or ARN, or those of an inference profile;"
        " on this machine also a model folder, a hub id or job:NAME. Required without answers.",
    )
    max_response_length: Annotated[int, Field(ge=1, le=MAX_TOKENS), READ_NUMBER] | None = Field(
        default=None, description="Maximum tokens of a teacher's answer."
    )
    answers: Paths = Field(
        default=(),
        description="Answers that the teacher gave already: prompts with answers, in any form that"
        " data.train may have. Only for the other prompts the teacher is called.",
    )
    temperature: Annotated[float, Field(ge=0, le=2), READ_NUMBER] = Field(
        default=0.0,
        description="Temperature of a teacher that cloudft calls; 0 takes the most likely tokens.",
    )


class Reinforcement(Section):
    """The grader, for REINFORCEMENT_FINE_TUNING."""

    grader: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="File with lambda_handler(event, context), the grader."
    )
    lambda_arn: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="The grader on AWS: the ARN of a Lambda function."
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=900), READ_NUMBER] = Field(
        default=30, description="Lambda's time limit of one call."
    )
    memory_mb: Annotated[int, Field(ge=128, le=10240), READ_NUMBER] = Field(
        default=512, description="Lambda's memory."
    )
    hyperparameters: dict[str, GraderSetting] = Field(
        default_factory=dict,
        description="By the API's names (epochCount, batchSize, reasoningEffort, ...).",
    )
    max_hours: Annotated[float, Field(gt=0, le=1000), READ_NUMBER] | None = Field(
        default=None,
        description="Most hours of training, which is billed by the hour: the bound that budget_usd"
        " checks. `cloudft watch` and `submit --wait` stop the job after it; nothing else does.",
    )


register_section(
    JobSection(
        "bedrock",
        BedrockSpec,
        "The Bedrock backend.",
        show_unset=False,
        environment={
            "AWS_DEFAULT_REGION": "region",
            "AWS_REGION": "region",  # wins over the one before it, as in the AWS SDKs
            "AWS_ENDPOINT_URL": "endpoint_url",
        },
    )
)
register_section(
    JobSection(
        "distillation",
        Distillation,
        "For DISTILLATION.",
        is_nullable=True,
        after="early_stopping",
        model_fields=("teacher",),
        path_fields=("answers",),
    )
)
register_section(
    JobSection(
        "reinforcement",
        Reinforcement,
        "For REINFORCEMENT_FINE_TUNING.",
        is_nullable=True,
        after="distillation",
        path_fields=("grader",),
    )
)
