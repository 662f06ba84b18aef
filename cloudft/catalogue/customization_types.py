"""Customization types: the table that says what each needs, and where it trains.

To add a type, add a row here. Its section of the job file, if it has one, is registered in
`backends/bedrock/job_section.py`, its part of the request in `backends/bedrock/customizations.py`,
and the models that support it name it in `catalogue/families/*.yaml`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CustomizationType:
    """A customization type by Bedrock's name of it.

    `data` is what a record has: a prompt with its answer (`labeled`), text alone (`text`), a prompt
    alone (`prompts`), or a prompt with a better and a worse answer (`preferences`). `formats` are
    the record formats that a model may want its training data in; `open_weight_format` is that of
    an open-weight model, which the local trainer trains, and `open_weight_content` is what its
    records may have besides texts.
    `trains_on` names backends. `section` is the job-file section that the type needs and no other
    type may have; `section_fix` says what to write there. `has_own_hyperparameters` is True where
    the hyperparameters are in that section too. `is_listed` is True where ListFoundationModels can
    say that a model supports the type. `sagemaker_techniques` are the techniques by which
    SageMaker's serverless customization does the same.
    """

    name: str
    data: Literal["labeled", "text", "prompts", "preferences"]
    formats: tuple[str, ...]
    trains_on: frozenset[str]
    open_weight_format: str | None = None
    open_weight_content: tuple[str, ...] = ()
    section: str | None = None
    section_fix: str = ""
    has_own_hyperparameters: bool = False
    is_listed: bool = True
    sagemaker_techniques: tuple[str, ...] = ()


EVERYWHERE = frozenset({"local", "sagemaker", "bedrock"})
NOT_BEDROCK = frozenset({"local", "sagemaker"})
_TYPES = (
    CustomizationType(
        name="FINE_TUNING",
        data="labeled",
        formats=("prompt-completion", "converse", "claude-messages"),
        trains_on=EVERYWHERE,
        open_weight_format="converse",
        open_weight_content=("tools", "reasoning", "weights"),
        sagemaker_techniques=("SFT",),
    ),
    CustomizationType(
        name="CONTINUED_PRE_TRAINING",
        data="text",
        formats=("input",),
        trains_on=EVERYWHERE,
        open_weight_format="input",
    ),
    CustomizationType(
        name="DISTILLATION",
        data="prompts",
        formats=("distillation",),
        trains_on=EVERYWHERE,
        open_weight_format="distillation",
        section="distillation",
        section_fix="name the teacher model.",
    ),
    CustomizationType(
        name="REINFORCEMENT_FINE_TUNING",
        data="prompts",
        formats=("reinforcement",),
        trains_on=EVERYWHERE,
        open_weight_format="reinforcement",
        open_weight_content=("tools",),
        section="reinforcement",
        section_fix="name the grader.",
        has_own_hyperparameters=True,
        # `customizationsSupported` has no name for it (botocore 1.44.5).
        is_listed=False,
        sagemaker_techniques=("RLVR", "RLAIF"),
    ),
    CustomizationType(
        name="PREFERENCE_OPTIMIZATION",
        data="preferences",
        formats=("preference",),
        trains_on=NOT_BEDROCK,
        open_weight_format="preference",
        open_weight_content=("tools", "reasoning"),
        # No name of Bedrock's: its API has no such type (botocore 1.44.5, CustomizationType).
        is_listed=False,
        sagemaker_techniques=("DPO",),
    ),
)
CUSTOMIZATION_TYPES: dict[str, CustomizationType] = {row.name: row for row in _TYPES}
"""Types by name, in the order in which they are offered; the first is the job file's default."""
DEFAULT_CUSTOMIZATION_TYPE = _TYPES[0].name


def trains_on(backend: str) -> list[str]:
    """Return the names of the types that a backend trains."""
    return [row.name for row in CUSTOMIZATION_TYPES.values() if backend in row.trains_on]


def is_text_only(customization_type: str) -> bool:
    """Return whether the type's records are text alone; False for a type that is not known."""
    return _data_of(customization_type) == "text"


def is_preference(customization_type: str) -> bool:
    """Return whether its records are pairs of answers; False for a type not known."""
    return _data_of(customization_type) == "preferences"


def is_labeled(customization_type: str) -> bool:
    """Return whether its records have a prompt and an answer; False for a type not known."""
    return _data_of(customization_type) in ("labeled", "preferences")


def _data_of(customization_type: str) -> str | None:
    # A record or a plan of another build of cloudft may name a type that this one lacks.
    row = CUSTOMIZATION_TYPES.get(customization_type)
    return None if row is None else row.data
