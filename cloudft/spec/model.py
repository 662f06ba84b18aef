"""The job file's shape. Every field's description becomes the JSON Schema's.

Values are strict: a word is no number and a number no word. Nothing here looks at the catalogue
(checks.py does) or at files (staging does).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cloudft.catalogue import STATED_SOURCE, Source
from cloudft.spec.fields import (
    ACCOUNT,
    CUSTOMIZATION_TYPE,
    DATE,
    GROUP_ID,
    IMAGE_URI,
    INSTANCE_TYPE,
    JOB_NAME,
    KMS_KEY,
    MAX_TAGS,
    MODEL_NAME,
    READ_NUMBER,
    REGION,
    ROLE_ARN,
    S3_URI,
    STACK_NAME,
    STATE_MACHINE_ARN,
    SUBNET_ID,
    TAG_KEY,
    TAG_VALUE,
    URL,
    Bool,
    Float,
    Fsdp,
    GraderSetting,
    Int,
    Number,
    Paths,
    Processes,
    TargetModules,
    Validation,
    check_tag_count,
    check_unique,
    check_unique_columns,
    field_error,
)

Column = Literal["prompt", "completion", "instruction", "input", "output", "text", "messages"]
MAX_TOKENS = 10_000_000
"""Above the context of every model; a number beyond it is a slip."""
NOT_STRICT = Field(strict=False)  # YAML has lists, no tuples; what is in them stays strict

Price = Annotated[float, Field(gt=0, le=1e6), READ_NUMBER]
PricePair = Annotated[tuple[Price, Price], NOT_STRICT]


class Section(BaseModel):
    """A mapping of the job file: no unknown keys, no guessed types, no changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Mix(Section):
    """General data that is mixed into the training data."""

    path: Paths = Field(description="File, folder, glob or list of them, like data.train.")
    share: Float = Field(gt=0, lt=1, description="Its share of the resulting training data.")
    by: Literal["records", "tokens"] = Field(
        default="records", description="What the share is counted in."
    )


def _leaves_room(parts: tuple[Mix, ...]) -> tuple[Mix, ...]:
    if sum(part.share for part in parts) >= 1:
        fix = "let the shares add up to less than 1"
        raise field_error("OutOfRange", "the shares leave no room for data.train", fix)
    return parts


class DataSpec(Section):
    """Where the records are. Paths are relative to the job file's folder; `~` and globs work."""

    train: Paths = Field(description="Training data: file, folder, glob, list of them, or s3://.")
    validation: Validation = Field(
        default=None,
        description="A share of train (0.1) to hold out by the seed, or a file like train's.",
    )
    test: Paths | None = Field(default=None, description="Never trained on; for evaluate.")
    mix: Annotated[tuple[Mix, ...], NOT_STRICT, AfterValidator(_leaves_room)] = Field(
        default=(), description="General data against forgetting."
    )
    columns: Annotated[
        dict[Column, Annotated[str, Field(min_length=1)]], AfterValidator(check_unique_columns)
    ] = Field(
        default_factory=dict,
        description="Your column names: {prompt: question, completion: answer}.",
    )
    group_by: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="A key of train's records: those of one value stay on one side of the split.",
    )
    stratify: Bool = Field(
        default=True,
        description="Hold out the same share of every label, where the answers are labels.",
    )


class EarlyStopping(Section):
    """When to stop before the last epoch."""

    patience: Int = Field(
        ge=1, le=10_000, description="Evaluations without improvement before stopping."
    )
    threshold: Float = Field(
        ge=0, le=1000, description="The least fall of the loss that counts as one."
    )


class Vpc(Section):
    """The network of a Bedrock job. Bedrock wants both lists."""

    subnet_ids: Annotated[tuple[SUBNET_ID, ...], NOT_STRICT, AfterValidator(check_unique)] = Field(
        min_length=1, max_length=16, description="1 to 16 subnets."
    )
    security_group_ids: Annotated[
        tuple[GROUP_ID, ...], NOT_STRICT, AfterValidator(check_unique)
    ] = Field(min_length=1, max_length=5, description="1 to 5 security groups.")


class Distillation(Section):
    """Who teaches, for DISTILLATION."""

    teacher: Annotated[str, Field(min_length=1, max_length=2048)] = Field(
        description="Bedrock id or ARN of the teacher, or of an inference profile."
    )
    max_response_length: Annotated[int, Field(ge=1, le=MAX_TOKENS), READ_NUMBER] | None = Field(
        default=None, description="Tokens of a teacher's answer at most."
    )


class Reinforcement(Section):
    """Who judges, and how, for REINFORCEMENT_FINE_TUNING."""

    lambda_arn: Annotated[str, Field(min_length=1, max_length=512)] = Field(
        description="The grader: the ARN of a Lambda function."
    )
    hyperparameters: dict[str, GraderSetting] = Field(
        default_factory=dict,
        description="By the API's names (epochCount, batchSize, reasoningEffort, ...).",
    )


class BedrockSpec(Section):
    """Settings of the Bedrock backend."""

    region: REGION | None = Field(default=None, description="AWS Region of the job.")
    stack: STACK_NAME | None = Field(
        default=None,
        description="Stack of `cloudft infra deploy`; it says what is left unsaid here: role,"
        " places, key, network.",
    )
    via_stack: Bool = Field(
        default=False,
        description="The account's own state machine creates the job, as its turn comes.",
    )
    machine_arn: STATE_MACHINE_ARN | None = Field(
        default=None,
        description="The machine of via_stack; JobMachineArn of the stack STACK-jobs if unset.",
    )
    role_arn: ROLE_ARN | None = Field(default=None, description="Role that Bedrock takes on.")
    import_role_arn: ROLE_ARN | None = Field(
        default=None, description="Role that reads a model for `cloudft import`; role_arn if unset."
    )
    s3_uri: S3_URI | None = Field(default=None, description="Where data and output go.")
    output_s3_uri: S3_URI | None = Field(
        default=None, description="Where output goes, if elsewhere than s3_uri."
    )
    kms_key_id: KMS_KEY | None = Field(default=None, description="Key for the custom model.")
    s3_kms_key_id: KMS_KEY | None = Field(
        default=None, description="Key for the staged data; the bucket's own encryption if unset."
    )
    bucket_owner: ACCOUNT | None = Field(
        default=None, description="Account that owns the bucket; the role's if unset."
    )
    custom_model_name: MODEL_NAME | None = Field(
        default=None, description="Name of the custom model; made from the job's if unset."
    )
    vpc: Vpc | None = Field(default=None, description="Subnets and security groups.")
    profile: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Profile of the AWS configuration."
    )
    endpoint_url: URL | None = Field(
        default=None, description="Another endpoint than AWS's own, for every service."
    )
    request: dict[str, Any] = Field(
        default_factory=dict,
        description="Further members of CreateModelCustomizationJob, by the API's names; they win.",
    )


class Lora(Section):
    """Low-rank adapters."""

    r: Int = Field(default=16, ge=1, le=16_384, description="Rank.")
    alpha: Float = Field(
        default=32, gt=0, le=1_000_000, description="Scale: the update is times alpha / r."
    )
    dropout: Float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: TargetModules = Field(
        default="all-linear", description="Which layers: all-linear, or names."
    )


class LocalSpec(Section):
    """Settings of the local backend."""

    model: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Open-weight stand-in for a closed model: alias, folder, or hub id.",
    )
    method: Literal["lora", "qlora", "full"] = Field(default="lora", description="What is trained.")
    lora: Lora = Field(default_factory=Lora, description="For the methods lora and qlora.")
    hyperparameters: dict[str, Number] = Field(
        default_factory=dict, description="Overrides for the stand-in, shown in every report."
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="Early stopping of local runs, whatever the base model has."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="Where.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="Precision.")
    max_length: Annotated[int, Field(ge=8, le=MAX_TOKENS), READ_NUMBER] | None = Field(
        default=None, description="Tokens of a record at most; the model's context if unset."
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536), READ_NUMBER] | None = Field(
        default=None, description="Records at once in memory; does not change the result."
    )
    processes: Processes = Field(
        default=1,
        description="Trainers that share each batch; auto is one for each GPU.",
    )
    fsdp: Fsdp = Field(
        default="auto",
        description="Shard the model over the trainers (FSDP); auto: where one GPU can't hold it.",
    )
    eval_steps: Annotated[int, Field(ge=1, le=1_000_000_000), READ_NUMBER] | None = Field(
        default=None, description="Steps between evaluations; each epoch's end if unset."
    )
    max_truncated_share: Float = Field(
        default=0.05, ge=0, le=1, description="Fail when more records than this are cut short."
    )


def _one_gap(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if template.count("{prompt}") != 1:
            fix = 'write {prompt} once in each, like "Please answer: {prompt}"'
            raise field_error("BadValue", f"{template[:60]!r} does not hold the prompt once", fix)
    return templates


class EvaluateSpec(Section):
    """How the tuned model is judged, by evaluate and advise."""

    task: Literal["auto", "classification", "json", "text"] = Field(
        default="auto", description="What the answers are; found from the data if auto."
    )
    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], NOT_STRICT, AfterValidator(check_unique)
    ] = Field(default=(), description="The labels of a classification; those of the data if empty.")
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS), READ_NUMBER] | None = Field(
        default=None, description="Of an answer at most; by the longest reference if unset."
    )
    general: Paths | None = Field(
        default=None, description="General text to measure forgetting on; cloudft's own if unset."
    )
    documents: Paths | None = Field(
        default=None, description="Documents with the facts to answer from; for advise."
    )
    templates: Annotated[tuple[str, ...], NOT_STRICT, AfterValidator(_one_gap)] = Field(
        default=(), description='Other ways to ask, for consistency: "Please answer: {prompt}".'
    )


class SageMakerSpec(Section):
    """Settings of the SageMaker backend. `local` says what is trained, and how."""

    region: REGION | None = Field(default=None, description="AWS Region; bedrock.region if unset.")
    stack: STACK_NAME | None = Field(
        default=None,
        description="Stack of `cloudft infra deploy`; it says what is left unsaid here: role,"
        " place, key, network. bedrock.stack if unset and role_arn or s3_uri is left out.",
    )
    role_arn: ROLE_ARN | None = Field(default=None, description="Role that SageMaker takes on.")
    s3_uri: S3_URI | None = Field(default=None, description="Where data and output go.")
    instance_type: INSTANCE_TYPE | None = Field(
        default=None, description="Such as ml.g5.2xlarge; the cheapest that fits if unset."
    )
    instance_count: Int = Field(default=1, ge=1, le=64, description="Machines.")
    image_uri: IMAGE_URI | None = Field(
        default=None,
        description="A PyTorch training image; the SageMaker SDK's own choice if unset.",
    )
    pytorch_version: Annotated[str, Field(pattern=r"^\d+(\.\d+){1,2}$")] | None = Field(
        default=None, description="Of the image that the SDK chooses; its newest if unset."
    )
    spot: Bool = Field(default=False, description="Spare machines, which may be taken away.")
    max_runtime_seconds: Annotated[int, Field(ge=60, le=28 * 86400), READ_NUMBER] | None = Field(
        default=None,
        description="The job is stopped after this; by budget_usd, or a day, if unset.",
    )
    max_wait_seconds: Annotated[int, Field(ge=60, le=28 * 86400), READ_NUMBER] | None = Field(
        default=None,
        description="With spot: waiting and running together; twice the running if unset.",
    )
    keep_alive_seconds: Int = Field(
        default=0, ge=0, le=3600, description="Keep the machine warm so long for the next job."
    )
    volume_gb: Annotated[int, Field(ge=1, le=16384), READ_NUMBER] | None = Field(
        default=None, description="Disk; by the weights' size if unset."
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
        default=False, description="No network: the image must have all that the trainer needs."
    )
    profile: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Profile of the AWS configuration; bedrock.profile if unset."
    )
    endpoint_url: URL | None = Field(
        default=None, description="Another endpoint than AWS's own; bedrock.endpoint_url if unset."
    )


class PricesSpec(Section):
    """Prices that you state, in USD, with where you read them. They win over every list."""

    source: Annotated[str, Field(min_length=1, max_length=2048)] = Field(
        description="Where you read them: an address, an offer."
    )
    date: DATE = Field(description="When: 2026-11-29.")
    training_per_1k_tokens: Price | None = Field(
        default=None, description="Training the base model on Bedrock, 1,000 tokens."
    )
    storage_per_month: Price | None = Field(
        default=None, description="The custom model on Bedrock, a month."
    )
    provisioned_unit_hour: Price | None = Field(
        default=None, description="A model unit of provisioned throughput, an hour."
    )
    base_per_1k_tokens: PricePair | None = Field(
        default=None, description="The base model on demand: 1,000 tokens in and out, as a list."
    )
    tuned_per_1k_tokens: PricePair | None = Field(
        default=None, description="The tuned model on demand: 1,000 tokens in and out, as a list."
    )
    instance_hour: Price | None = Field(
        default=None, description="One machine of the SageMaker job, an hour of training."
    )

    @property
    def price_source(self) -> Source:
        """Where they were read."""
        return Source(STATED_SOURCE, self.source, self.date)


class JobSpec(Section):
    """One fine-tuning job, for whichever backend runs it."""

    name: JOB_NAME = Field(
        description="Name of the job: 1 to 63 letters, digits, '+', '-' or '.'; no '_'."
    )
    customization_type: CUSTOMIZATION_TYPE = Field(
        default="FINE_TUNING",
        description="FINE_TUNING, CONTINUED_PRE_TRAINING; on Bedrock also DISTILLATION"
        " and REINFORCEMENT_FINE_TUNING.",
    )
    base_model: str = Field(
        min_length=1,
        max_length=2048,
        description="Alias of `cloudft models`, Bedrock id or ARN, model folder, or hub id.",
    )
    data: DataSpec = Field(description="Where the records are.")
    hyperparameters: dict[str, Number] = Field(
        default_factory=dict,
        description="By Bedrock's API names, within the base model's ranges.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="Only for a base model whose service has it."
    )
    distillation: Distillation | None = Field(default=None, description="For DISTILLATION.")
    reinforcement: Reinforcement | None = Field(
        default=None, description="For REINFORCEMENT_FINE_TUNING."
    )
    seed: Int = Field(default=7, ge=0, le=2**32 - 1, description="Of the split and of training.")
    tags: Annotated[dict[TAG_KEY, TAG_VALUE], AfterValidator(check_tag_count)] = Field(
        default_factory=dict,
        description=f"Tags of what is made on AWS: {MAX_TAGS} at most, none of aws: or cloudft:.",
    )
    budget_usd: Annotated[float, Field(ge=0, le=1e9), READ_NUMBER] | None = Field(
        default=None, description="submit refuses when its estimate is above this."
    )
    prices: PricesSpec | None = Field(
        default=None, description="Prices that you state, for what no source here has."
    )
    evaluate: EvaluateSpec = Field(
        default_factory=EvaluateSpec, description="How the tuned model is judged."
    )
    bedrock: BedrockSpec = Field(default_factory=BedrockSpec, description="The Bedrock backend.")
    local: LocalSpec = Field(default_factory=LocalSpec, description="The local backend.")
    sagemaker: SageMakerSpec = Field(
        default_factory=SageMakerSpec, description="The SageMaker backend."
    )
