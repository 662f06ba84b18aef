"""The section of the job file that the local trainer reads, and what is checked of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudft.catalogue import load_local_hyperparameters
from cloudft.spec.checks import CheckContext, check_hyperparameters, find_named_model
from cloudft.spec.fields import (
    READ_NUMBER,
    AutoOrBool,
    Float,
    Int,
    Number,
    Processes,
    TargetModules,
)
from cloudft.spec.sections import (
    MAX_TOKENS,
    EarlyStopping,
    JobSection,
    Section,
    register_section,
    section_field,
)
from cloudft.spec.yaml_source import FieldPath, JobTree
from cloudft.types import Finding


class Lora(Section):
    """Low-rank adapters."""

    r: Int = Field(default=16, ge=1, le=16_384, description="Rank.")
    alpha: Float = Field(
        default=32, gt=0, le=1_000_000, description="Scale: the update is multiplied by alpha / r."
    )
    dropout: Float = Field(default=0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: TargetModules = Field(
        default="all-linear",
        description="Layers to adapt: all-linear, or names of linear layers and stacked experts.",
    )


class LocalReinforcement(Section):
    """How REINFORCEMENT_FINE_TUNING learns here, by the names of TRL's GRPOConfig."""

    temperature: Float = Field(
        default=1.0, gt=0, le=10, description="Temperature of the sampled answers."
    )
    beta: Float = Field(
        default=0.0, ge=0, le=100, description="Weight of the divergence (KL) from the base model."
    )
    epsilon: Float = Field(
        default=0.2, gt=0, lt=1, description="How far one batch may move a token's probability."
    )
    num_iterations: Annotated[int, Field(ge=1, le=100), READ_NUMBER] = Field(
        default=1, description="Optimizer steps on each batch of answers."
    )
    loss_type: Literal["dapo", "bnpo", "grpo", "dr_grpo"] = Field(
        default="dapo", description="How tokens and answers are weighted."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="Whose standard deviation divides the rewards."
    )


class LocalSpec(Section):
    """Settings of the local backend."""

    model: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Open-weight stand-in for a closed model: alias, folder, or hub id.",
    )
    method: Literal["lora", "qlora", "full"] = Field(default="lora", description="Training method.")
    lora: Lora = section_field("For the methods lora and qlora.")
    hyperparameters: dict[str, Number] = Field(
        default_factory=dict, description="Overrides for the stand-in, shown in every report."
    )
    reinforcement: LocalReinforcement = section_field("For REINFORCEMENT_FINE_TUNING.")
    early_stopping: EarlyStopping | None = Field(
        default=None, description="Early stopping of local runs, whatever the base model has."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="Device.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="Precision.")
    max_length: Annotated[int, Field(ge=8, le=MAX_TOKENS), READ_NUMBER] | None = Field(
        default=None, description="Maximum tokens of a record; the model's context if unset."
    )
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536), READ_NUMBER] | None = Field(
        default=None, description="Records per forward pass; does not change the result."
    )
    processes: Processes = Field(
        default=1,
        description="Trainer processes that share each batch; auto: one per GPU.",
    )
    fsdp: AutoOrBool = Field(
        default="auto",
        description="Shard the model over the processes (FSDP); auto: if one GPU can't hold it.",
    )
    packed: AutoOrBool = Field(
        default="auto",
        description="Train on packed records, the fast path; auto: where the model supports it.",
    )
    eval_steps: Annotated[int, Field(ge=1, le=1_000_000_000), READ_NUMBER] | None = Field(
        default=None, description="Steps between evaluations; each epoch's end if unset."
    )
    max_truncated_share: Float = Field(
        default=0.05, ge=0, le=1, description="Fail if a larger share of the records is truncated."
    )


class Preference(Section):
    """How pairs of answers are learned, for PREFERENCE_OPTIMIZATION. Names and defaults are TRL's.

    `label_smoothing` and `simpo_gamma` are None if they are not given: a method may have none.
    """

    method: Literal["dpo", "simpo", "orpo"] = Field(
        default="dpo",
        description="dpo compares with the model before training; simpo and orpo do not.",
    )
    beta: Float = Field(
        default=0.1,
        gt=0,
        le=100,
        description="Weight of the difference between the answers; simpo usually takes 2 to 2.5.",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5), READ_NUMBER] | None = Field(
        default=None, description="Share of pairs that may be the wrong way round; 0 if unset."
    )
    simpo_gamma: Annotated[float, Field(ge=0, le=100), READ_NUMBER] | None = Field(
        default=None, description="Margin that SimPO aims at; 0.5 if unset."
    )


def check_preference(values: JobTree, context: CheckContext) -> list[Finding]:
    """Return an error for each parameter that the method has not."""
    method = values.get("method", "dpo")
    lacking = {"dpo": ("simpo_gamma",), "orpo": ("label_smoothing", "simpo_gamma")}
    return [
        context.source_map.make_finding(
            "UnusedValue",
            ("preference", name),
            f"preference.{name} has no meaning for the method {method}",
            "remove it, or set preference.method: simpo",
        )
        for name in lacking.get(str(method), ())
        if values.get(name) is not None
    ]


def check(values: JobTree, context: CheckContext) -> list[Finding]:
    """Return what is wrong with the stand-in, its hyperparameters and the LoRA settings."""
    findings = _check_stand_in(values, context)
    findings += check_hyperparameters(
        ("local", "hyperparameters"),
        values.get("hyperparameters"),
        load_local_hyperparameters(context.customization_type),
        "the local trainer",
        context.source_map,
    )
    if values.get("method") == "full" and values.get("lora"):
        message = "local.lora has no effect with local.method: full"
        fix = "remove local.lora, or set local.method to lora"
        key = ("local", "lora")
        finding = context.source_map.make_finding("UnusedValue", key, message, fix, "warning")
        findings.append(finding)
    return findings


def _check_stand_in(values: JobTree, context: CheckContext) -> list[Finding]:
    """Return an error if `local.model` has no weights that can be trained here."""
    key: FieldPath = ("local", "model")
    findings: list[Finding] = []
    model = find_named_model(key, values.get("model"), context, findings)
    if model is not None and not model.is_open_weight:
        message = f"{model.alias} is not open-weight: it can't be trained on this machine"
        fix = "name an open-weight stand-in such as smollm2-135m"
        findings.append(context.source_map.make_finding("NotOpenWeight", key, message, fix))
    return findings


register_section(
    JobSection(
        "local",
        LocalSpec,
        "The local backend.",
        check=check,
        has_hyperparameters=True,
        model_fields=("model",),
    )
)
register_section(
    JobSection(
        "preference",
        Preference,
        "For PREFERENCE_OPTIMIZATION.",
        is_nullable=True,
        after="early_stopping",
        check=check_preference,
    )
)
