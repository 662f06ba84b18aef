"""State what the answers of a job's models cost, before the first one is billed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from cloudft import catalogue
from cloudft.backends.capabilities import SupportsServing
from cloudft.catalogue import cost
from cloudft.errors import CloudftError, UnknownModel

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.storage.store import JobRecord


def inference_price_text(record: JobRecord, backend: Backend, profile: str | None = None) -> str:
    """Return what answers of the job's tuned and base model cost, and what serves it now.

    `profile` is the inference profile that the base model is called by. Reads the account.
    """
    return "; ".join([*_token_prices(record, profile), *_serving_prices(record, backend)])


def _token_prices(record: JobRecord, profile: str | None) -> Iterator[str]:
    from cloudft.backends.bedrock.inference_profiles import expected_model_id, requested_profile

    try:
        model = catalogue.find_model(record.base_model)
    except UnknownModel:
        yield f"of {record.base_model} {cost.NO_PRICE_KNOWN}"
        return
    place: Mapping[str, str | None] = record.request.get("place", {})
    region = place.get("region")
    prices = model.prices_in(region)
    base_id = expected_model_id(model, region, profile or requested_profile(record.spec))
    for title, name in (
        ("tuned", "tuned_per_1k_tokens"),
        ("base", cost.base_price_name(base_id)),
    ):
        pair = prices.pair(name) if prices else None  # type: ignore[arg-type]
        if pair is None or prices is None:
            yield f"{title} model: {cost.NO_PRICE_KNOWN}"
        else:
            amounts = [cost.format_usd(amount) for amount in pair]
            yield (
                f"{title} model: {amounts[0]} per 1,000 input tokens and {amounts[1]} per 1,000"
                f" output tokens ({prices.source_of(name)})"  # type: ignore[arg-type]
            )


def _serving_prices(record: JobRecord, backend: Backend) -> Iterator[str]:
    """Yield what serves the model, and its price per hour, which is billed anyway."""
    if not isinstance(backend, SupportsServing):
        return
    try:
        servings = backend.list_servings(record.backend_job_id or record.id)
    except CloudftError as error:
        yield f"what serves it can't be listed: {error.message}"
        return
    for serving in servings:
        hour = serving.usd.get("perHour")
        price = cost.NO_PRICE_KNOWN if hour is None else f"{cost.format_usd(hour)} per hour"
        yield f"{serving.kind} {serving.name} ({serving.status}): {price}"
    if not servings:
        yield f"no deployment serves the model yet: `cloudft deploy {record.id}` creates one"
