"""Compare the catalogue with the account's own lists, and with botocore's service model.

Each Region is read part by part: the foundation models, the inference profiles, the Price List. A
part that can't be read hides no other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from typing import Any

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.request_validation import load_service_model
from cloudft.backends.bedrock import price_list
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.catalogue import CUSTOMIZATION_TYPES, Model
from cloudft.types import Listing

IMPORTED = "IMPORTED"
"""The type of models that CreateCustomModel made, which is no type of a job (botocore 1.44.5)."""
LIFECYCLE_STATUSES = {"ACTIVE", "LEGACY"}
"""The statuses that cloudft distinguishes: a model past its end of life is not listed."""
TIMES = {"legacyTime": "legacy", "endOfLifeTime": "date"}
"""Member of `modelLifecycle` -> the field of the catalogue's `Lifecycle`."""
TIME_WORDS = {"legacyTime": "Legacy from", "endOfLifeTime": "end of life"}


@dataclass(frozen=True)
class CatalogueComparison:
    """One model in one Region: the catalogue's entry, the account's entry, and `same` or `drift`.

    `differences` says what drifts. A part that could not be read is one too: its `word` is
    `unread`, and `differences` has the reason.
    """

    model: str
    catalogue: str
    account: str
    word: str
    region: str = ""
    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Account:
    """What an account lists in one Region. A part that could not be read is None.

    `profiles` has the areas of the system's inference profiles by the model's id on demand;
    `prices` the amounts in USD of the Price List by alias and name.
    """

    region: str
    models: Mapping[str, Mapping[str, Any]]
    profiles: Mapping[str, Set[str]] | None
    prices: Mapping[str, Mapping[str, float]]


def compare_catalogue(
    location: Mapping[str, str | None], *, all_regions: bool = False
) -> Listing[CatalogueComparison]:
    """Return comparisons of each model that catalogue or account can customize, and of the types.

    With `all_regions`, those of every Region that the catalogue names, else of the location's.
    """
    listing, place = ListingBuilder(), AwsLocation(**location)
    places = [replace(place, region=name) for name in _regions()] if all_regions else [place]
    lines = list(compare_service_model())
    for one in places:
        account = _read_account(Aws(one), listing)
        if account is not None:
            lines += [*_compare_models(account), *_list_uncatalogued(account)]
    found = listing.build(lines)
    unread = [
        CatalogueComparison(part.what, "", "could not be read", "unread", "", (part.reason,))
        for part in found.unavailable
    ]
    return replace(found, items=(*found.items, *unread))


def _regions() -> list[str]:
    """Return the Regions in which the catalogue's models are customized."""
    return sorted({region for model in catalogue.load_models() for region in model.regions})


def compare_service_model() -> Iterator[CatalogueComparison]:
    """Yield how the customization types and life-cycle statuses of botocore differ from cloudft's.

    A type that only botocore knows can't be submitted yet; one that only cloudft knows never.
    """
    model = load_service_model("bedrock")
    job = model.operation_model("CreateModelCustomizationJob").input_shape.members
    listed = model.operation_model("ListFoundationModels")
    filters = listed.input_shape.members
    summary = listed.output_shape.members["modelSummaries"].member.members
    statuses = summary["modelLifecycle"].members["status"].enum
    on_bedrock = {name for name, row in CUSTOMIZATION_TYPES.items() if "bedrock" in row.trains_on}
    rows: tuple[tuple[str, Set[str], Sequence[str]], ...] = (
        ("customizationType", {*on_bedrock, IMPORTED}, job["customizationType"].enum),
        (
            "byCustomizationType",
            {row.name for row in CUSTOMIZATION_TYPES.values() if row.is_listed},
            filters["byCustomizationType"].enum,
        ),
        ("modelLifecycle.status", LIFECYCLE_STATUSES, statuses),
    )
    for name, known, published in rows:
        added, gone = sorted(set(published) - known), sorted(known - set(published))
        differences = [f"cloudft does not know {', '.join(added)}"] if added else []
        differences += [f"botocore does not have {', '.join(gone)}"] if gone else []
        yield CatalogueComparison(
            f"{name} of botocore {version('botocore')}",
            ", ".join(sorted(known)),
            ", ".join(sorted(published)),
            "drift" if differences else "same",
            differences=tuple(differences),
        )


def _read_account(aws: Aws, listing: ListingBuilder) -> _Account | None:
    """Return what the account lists in a Region; None where its models can't be listed."""

    def region() -> str:
        return str(aws.client("bedrock").meta.region_name)

    def read_models() -> Iterator[Mapping[str, Any]]:
        failure = "can't list the foundation models"
        yield aws.call(failure, "bedrock", "list_foundation_models")

    where = f" of {aws.location.region}" if aws.location.region else ""
    found = listing.collect(f"bedrock: foundation models{where}", read_models)
    if not found:
        return None
    models = {model["modelId"]: model for model in found[0]["modelSummaries"]}
    profiles = listing.collect(f"bedrock: inference profiles{where}", lambda: [_read_profiles(aws)])
    # Another endpoint than AWS's own has no Price List.
    is_aws = aws.client("bedrock").meta.endpoint_url.endswith(
        (".amazonaws.com", ".amazonaws.com.cn")
    )
    prices = listing.collect(f"the Price List{where}", lambda: _read_prices(aws, region(), is_aws))
    return _Account(region(), models, profiles[0] if profiles else None, dict(prices))


def _read_profiles(aws: Aws) -> Mapping[str, Set[str]]:
    """Return the areas of the system's inference profiles, by the model's id on demand."""
    areas: dict[str, set[str]] = {}
    failure, key = "can't list the inference profiles", "inferenceProfileSummaries"
    operation = "list_inference_profiles"
    for profile in aws.paginate(failure, "bedrock", operation, key, typeEquals="SYSTEM_DEFINED"):
        area, _, model = str(profile["inferenceProfileId"]).partition(".")
        areas.setdefault(model, set()).add(area)
    return areas


def _read_prices(aws: Aws, region: str, is_aws: bool) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield the Price List's amounts of each model that is customized in a Region."""
    models = [model for model in catalogue.load_models() if _is_here(model, region)]
    if not is_aws or not models:
        return
    for alias, prices in price_list.fetch_prices(aws, models, region).items():
        amounts = prices.by_name.items()
        yield alias, {name: price.usd for name, price in amounts if isinstance(price.usd, float)}


def _compare_models(account: _Account) -> Iterator[CatalogueComparison]:
    for model in catalogue.load_models():
        kinds = _listed_types(model)
        is_ended = model.lifecycle.state == "end-of-life"
        if model.bedrock_id is None or model.customization_api != "bedrock":
            continue
        if kinds or is_ended:  # RFT alone is in no list
            yield _compare_model(model, kinds, account)


def _compare_model(model: Model, kinds: Sequence[str], account: _Account) -> CatalogueComparison:
    offer = account.models.get(str(model.bedrock_id))
    listed = _account_offer(offer) if offer else "not listed"
    here = _is_here(model, account.region)
    if here:
        expected = f"{_status(model)}: {', '.join(kinds)}"
        differences = list(_differences(model, kinds, offer, account))
    else:
        expected = _absence(model, account.region)
        differences = [f"{model.bedrock_id} is listed"] if offer is not None else []
    word = "drift" if differences else "same"
    return CatalogueComparison(
        model.alias, expected, listed, word, account.region, tuple(differences)
    )


def _is_here(model: Model, region: str) -> bool:
    return region in model.regions and model.lifecycle.state != "end-of-life"


def _status(model: Model) -> str:
    return "LEGACY" if model.lifecycle.state == "legacy" else "ACTIVE"


def _listed_types(model: Model) -> list[str]:
    """Return the model's customization types that an account's list can name."""
    types = sorted(model.customization_types)
    return [name for name in types if CUSTOMIZATION_TYPES[name].is_listed]


def _absence(model: Model, region: str) -> str:
    if model.lifecycle.state == "end-of-life":
        return f"end of life {model.lifecycle.date or ''}".rstrip()
    return f"not in {region}"


def _account_offer(model: Mapping[str, Any]) -> str:
    state = model.get("modelLifecycle", {}).get("status", "ACTIVE")
    types = ", ".join(sorted(model.get("customizationsSupported", ())))
    return f"{state}: {types or 'no customization'}"


def _differences(
    model: Model, kinds: Sequence[str], offer: Mapping[str, Any] | None, account: _Account
) -> Iterator[str]:
    """Yield what the account says otherwise of a model that the catalogue has in this Region."""
    on_demand = catalogue.on_demand_id(str(model.bedrock_id))
    plain = account.models.get(on_demand)
    if offer is None:
        other = f"; {on_demand} is" if plain is not None else ""
        yield f"{model.bedrock_id} is not listed{other}"
    else:
        yield from _compare_offer(model, kinds, offer)
    if plain is not None:
        yield from _compare_on_demand(model, plain, account)
    is_legacy = offer is not None and _account_offer(offer).startswith("LEGACY")
    if is_legacy or model.lifecycle.state == "legacy":
        yield from _compare_successor(model, account)
    prices = model.prices_in(account.region)
    for name, usd in sorted(account.prices.get(model.alias, {}).items()):
        known = None if prices is None else prices.by_name.get(name)  # type: ignore[call-overload]
        if known is None or not math.isclose(known.usd, usd, rel_tol=1e-6):
            yield f"{name}: {usd} USD in the Price List, {known.usd if known else 'none'} here"


def _compare_offer(model: Model, kinds: Sequence[str], offer: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the account lists the id by which the model is customized."""
    offered = sorted(offer.get("customizationsSupported", ()))
    if offered != list(kinds):
        yield f"types: {', '.join(offered) or 'none'}, here {', '.join(kinds)}"
    life = offer.get("modelLifecycle", {})
    status = life.get("status", "ACTIVE")
    if status != _status(model):
        yield f"status: {status}, here {_status(model)}"
    for member, field in TIMES.items():
        time, known = life.get(member), getattr(model.lifecycle, field)
        day = f"{time:%Y-%m-%d}" if isinstance(time, datetime) else None
        if day is not None and day != known:
            yield f"{TIME_WORDS[member]} {day}, here {known or 'no date'}"
    types = offer.get("inferenceTypesSupported")
    if types is not None and ("PROVISIONED" in types) != ("provisioned" in model.serving):
        has = "is" if "PROVISIONED" in types else "is not"
        yield f"provisioned throughput {has} offered, here served {' and '.join(model.serving)}"


def _compare_on_demand(model: Model, plain: Mapping[str, Any], account: _Account) -> Iterator[str]:
    """Yield how the account lists the base model's own id, and the profiles of it."""
    types, region = plain.get("inferenceTypesSupported"), account.region
    if types is not None and model.in_region is not None:
        answers = "ON_DEMAND" in types
        if answers != (region in model.in_region):
            here = "needs a profile" if answers else "answers"
            says = "answers" if answers else "needs a profile"
            yield f"the base model {says} on demand in {region}, here it {here}"
    if account.profiles is None:
        return
    areas = account.profiles.get(str(plain["modelId"]), set())
    known = set(model.inference_profiles) & set(catalogue.profile_areas(region))
    if areas != known:
        shown, ours = ("; ".join(sorted(one)) or "none" for one in (areas, known))
        yield f"inference profiles: {shown}, here {ours}"


def _compare_successor(model: Model, account: _Account) -> Iterator[str]:
    """Yield what is wrong with the successor of a model that is Legacy."""
    if model.successor is None:
        yield "it is Legacy, and no successor is known here"
        return
    successor = catalogue.find_model(model.successor)
    offer = account.models.get(str(successor.bedrock_id))
    if account.region in successor.regions and offer is None:
        yield f"its successor {successor.alias} is not listed"
    elif offer is not None and not _account_offer(offer).startswith("ACTIVE"):
        yield f"its successor {successor.alias} is Legacy, too"


def _list_uncatalogued(account: _Account) -> Iterator[CatalogueComparison]:
    """Yield text models that the account can customize and the catalogue lacks."""
    known = {i for m in catalogue.load_models() for i in (m.bedrock_id, *m.other_ids)}
    for name, model in account.models.items():
        text = "TEXT" in model.get("outputModalities", ())
        if name not in known and text and model.get("customizationsSupported"):
            missing = ("add it to the catalogue",)
            yield CatalogueComparison(
                name,
                "not in the catalogue",
                _account_offer(model),
                "drift",
                account.region,
                missing,
            )
