"""The core of the job file. Every field's description becomes the JSON Schema's.

Values are strict: a text is no number and a number no text. Nothing here reads the catalogue
(checks.py does) or files (staging does). The backends' sections are in their own packages
(sections.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cloudft.catalogue import DEFAULT_CUSTOMIZATION_TYPE, STATED_SOURCE, Source
from cloudft.spec.fields import (
    CUSTOMIZATION_TYPE,
    DATE,
    JOB_NAME,
    MAX_TAGS,
    MISSING,
    READ_NUMBER,
    TAG_KEY,
    TAG_VALUE,
    Bool,
    Float,
    Int,
    Number,
    Paths,
    Validation,
    check_tag_count,
    check_unique,
    check_unique_columns,
    field_error,
)
from cloudft.spec.invocation_logs import InvocationLogs
from cloudft.spec.sections import (
    MAX_TOKENS,
    NOT_STRICT,
    AnySection,
    EarlyStopping,
    Section,
    job_model,
    job_sections,
    section_field,
)
from cloudft.spec.tracking import TrackingSpec
from cloudft.types import VALIDATION, validation_role

if TYPE_CHECKING:
    from cloudft.backends.bedrock.job_section import BedrockSpec, Distillation, Reinforcement
    from cloudft.backends.job_section import ExportBase
    from cloudft.backends.local.job_section import LocalSpec, Preference
    from cloudft.backends.sagemaker.job_section import SageMakerSpec
    from cloudft.sweep.job_section import SweepSpec

Column = Literal[
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "text",
    "messages",
    "system",
    "context",
    "reasoning",
    "history",
    "tools",
]
Price = Annotated[float, Field(gt=0, le=1e6), READ_NUMBER]
PricePair = Annotated[tuple[Price, Price], NOT_STRICT]


class Mix(Section):
    """General data that is mixed into the training data."""

    path: Paths = Field(description="File, folder, glob or list of them, like data.train.")
    share: Float = Field(gt=0, lt=1, description="Its share of the resulting training data.")
    by: Literal["records", "tokens"] = Field(default="records", description="Unit of the share.")


OTHER_THAN_LOGS = ("train", "validation", "mix", "columns", "group_by")
"""Fields of `data` that say what is staged, and so are nothing beside logs."""


def _check_shares(parts: tuple[Mix, ...]) -> tuple[Mix, ...]:
    if sum(part.share for part in parts) >= 1:
        fix = "let the shares add up to less than 1"
        raise field_error("OutOfRange", "the shares leave nothing for data.train", fix)
    return parts


class DataSpec(Section):
    """Where the records are. Paths are relative to the job file's folder; `~` and globs work."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["train"]}, {"required": ["invocation_logs"]}]}
    )

    train: Paths = Field(
        default=(),
        description="Training data: file, folder, glob, list of them, or s3://. Required without"
        " invocation_logs.",
    )
    validation: Validation = Field(
        default=None,
        description="A share of train (0.1) to hold out by the seed, a file like train's, or"
        " several sets by name: {german: de.jsonl, english: en.jsonl}.",
    )
    test: Paths | None = Field(default=None, description="Never trained on; for evaluate.")
    mix: Annotated[tuple[Mix, ...], NOT_STRICT, AfterValidator(_check_shares)] = Field(
        default=(), description="General data that is mixed in against forgetting."
    )
    columns: Annotated[
        dict[Column, Annotated[str, Field(min_length=1)]], AfterValidator(check_unique_columns)
    ] = Field(
        default_factory=dict,
        description="Your column names: {prompt: question, completion: answer}.",
    )
    group_by: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="A key of train's records: those with one value stay on one side of the split.",
    )
    stratify: Bool = Field(
        default=True,
        description="Hold out the same share of every label, where the answers are labels.",
    )
    invocation_logs: InvocationLogs | None = Field(
        default=None,
        description="In place of train: logs of Bedrock's models, for distillation and"
        " reinforcement on Bedrock.",
    )

    @model_validator(mode="before")
    @classmethod
    def _require_train(cls, values: object) -> object:
        """Report a missing `train` as the missing key, where no logs are in its place."""
        if isinstance(values, Mapping) and not values.keys() & {"train", "invocation_logs"}:
            return {**values, "train": MISSING}
        return values

    @field_validator("invocation_logs")
    @classmethod
    def _check_no_other_data(
        cls, logs: InvocationLogs | None, info: ValidationInfo
    ) -> InvocationLogs | None:
        """Refuse what has no meaning beside logs: their records are chosen by the service."""
        others = [n for n in OTHER_THAN_LOGS if info.data.get(n)]
        if logs is not None and others:
            what = f"data.{others[0]} and data.invocation_logs"
            raise field_error("BadValue", f"{what} can't be in one job", "remove one of them")
        return logs

    @property
    def validation_files(self) -> dict[str, tuple[str, ...]]:
        """Return the paths of the validation data by role; nothing where a share is held out.

        One set has the role `validation`; named sets have a role each, in the order of the names.
        """
        if isinstance(self.validation, tuple):
            return {VALIDATION: self.validation}
        if isinstance(self.validation, dict):
            return {validation_role(name): paths for name, paths in self.validation.items()}
        return {}

    @property
    def held_out_files(self) -> dict[str, tuple[str, ...]]:
        """Return the paths of validation and test data by role."""
        test = {} if self.test is None else {"test": self.test}
        return self.validation_files | test


def _check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if template.count("{prompt}") != 1:
            fix = 'write {prompt} once in each, like "Please answer: {prompt}"'
            raise field_error(
                "BadValue", f"{template[:60]!r} does not have {{prompt}} exactly once", fix
            )
    return templates


class EvaluateSpec(Section):
    """How evaluate and advise evaluate the tuned model."""

    task: Literal["auto", "classification", "json", "text"] = Field(
        default="auto", description="Kind of answers; detected from the data if auto."
    )
    labels: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], NOT_STRICT, AfterValidator(check_unique)
    ] = Field(default=(), description="The labels of a classification; those of the data if empty.")
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS), READ_NUMBER] | None = Field(
        default=None,
        description="Maximum tokens of an answer; from the longest reference if unset.",
    )
    general: Paths | None = Field(
        default=None, description="General text to measure forgetting on; cloudft's own if unset."
    )
    documents: Paths | None = Field(
        default=None, description="Documents to retrieve facts from; for advise."
    )
    templates: Annotated[tuple[str, ...], NOT_STRICT, AfterValidator(_check_templates)] = Field(
        default=(),
        description='Paraphrases of the prompt, for consistency: "Please answer: {prompt}".',
    )


class PricesSpec(Section):
    """Your own prices in USD, with their source. They override every price list."""

    source: Annotated[str, Field(min_length=1, max_length=2048)] = Field(
        description="Where the prices are from: a URL, an offer."
    )
    date: DATE = Field(description="Date of the prices: 2026-11-29.")
    training_per_1k_tokens: Price | None = Field(
        default=None, description="Training the base model on Bedrock, per 1,000 tokens."
    )
    reinforcement_hour: Price | None = Field(
        default=None, description="Reinforcement fine-tuning on Bedrock, per hour."
    )
    storage_per_month: Price | None = Field(
        default=None, description="Storing the custom model on Bedrock, per month."
    )
    provisioned_unit_hour: Price | None = Field(
        default=None, description="A model unit of provisioned throughput, per hour."
    )
    provisioned_unit_hour_one_month: Price | None = Field(
        default=None, description="The same with a commitment for one month."
    )
    provisioned_unit_hour_six_months: Price | None = Field(
        default=None, description="The same with a commitment for six months."
    )
    base_per_1k_tokens: PricePair | None = Field(
        default=None, description="The base model on demand, per 1,000 tokens: [input, output]."
    )
    global_per_1k_tokens: PricePair | None = Field(
        default=None, description="The base model by its global inference profile."
    )
    batch_per_1k_tokens: PricePair | None = Field(
        default=None, description="The base model in batch inference."
    )
    tuned_per_1k_tokens: PricePair | None = Field(
        default=None, description="The tuned model on demand, per 1,000 tokens: [input, output]."
    )
    tuned_cache_read_per_1k_tokens: Price | None = Field(
        default=None, description="Tokens that the tuned model reads from its prompt cache."
    )
    instance_hour: Price | None = Field(
        default=None, description="One instance of the SageMaker job, per hour."
    )

    @property
    def price_source(self) -> Source:
        """Return the source that estimates name."""
        return Source(STATED_SOURCE, self.source, self.date)


class JobSpecBase(Section):
    """What every job has, whichever sections are registered."""

    def section(self, model: type[AnySection]) -> AnySection | None:
        """Return the section with that model; None if it is not given. Raises KeyError."""
        for name, section in job_sections().items():
            if section.model is model:
                found: AnySection | None = getattr(self, name)
                return found
        raise KeyError(f"no job-file section has the model {model.__name__}")


class JobSpec(JobSpecBase):
    """One fine-tuning job, for whichever backend runs it."""

    name: JOB_NAME = Field(
        description="Name of the job: 1 to 63 letters, digits, '+', '-' or '.'; no '_'."
    )
    customization_type: CUSTOMIZATION_TYPE = Field(
        default=DEFAULT_CUSTOMIZATION_TYPE,
        description="FINE_TUNING, CONTINUED_PRE_TRAINING, DISTILLATION; on Bedrock also"
        " REINFORCEMENT_FINE_TUNING; here and on SageMaker also PREFERENCE_OPTIMIZATION.",
    )
    base_model: str = Field(
        min_length=1,
        max_length=2048,
        description="Alias of `cloudft models`, Bedrock id or ARN, model folder, hub id, or"
        " job:NAME to start from a trained job.",
    )
    data: DataSpec = Field(description="Where the records are.")
    hyperparameters: dict[str, Number] = Field(
        default_factory=dict,
        description="Hyperparameters by Bedrock's API names, within the base model's ranges.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="Only for a base model whose service supports it."
    )
    seed: Int = Field(
        default=7, ge=0, le=2**32 - 1, description="Seed of the split and of training."
    )
    tags: Annotated[dict[TAG_KEY, TAG_VALUE], AfterValidator(check_tag_count)] = Field(
        default_factory=dict,
        description=f"Tags of AWS resources: up to {MAX_TAGS}, not starting with aws: or cloudft:.",
    )
    budget_usd: Annotated[float, Field(ge=0, le=1e9), READ_NUMBER] | None = Field(
        default=None, description="submit refuses if the estimate is above this."
    )
    prices: PricesSpec | None = Field(
        default=None, description="Your own prices, for what no price list has."
    )
    evaluate: EvaluateSpec = section_field("How the tuned model is evaluated.")
    tracking: TrackingSpec | None = Field(
        default=None,
        description="Experiment trackers that get curves and results. Not a part of the job: with"
        " or without it, the job is the same.",
    )

    # For mypy alone. sections.job_model() builds the model that has them, from the registry.
    if TYPE_CHECKING:
        bedrock: BedrockSpec
        distillation: Distillation | None
        export: ExportBase | None
        local: LocalSpec
        preference: Preference | None
        reinforcement: Reinforcement | None
        sagemaker: SageMakerSpec
        sweep: SweepSpec | None


def parse_spec(values: object) -> JobSpec:
    """Return plain values, such as a stored job's, as a job. Raises pydantic.ValidationError."""
    return job_model().model_validate(values)
