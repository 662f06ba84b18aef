"""Tables of models, prices and what `check` says, for docs/reference/models.md and prices.md."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from unittest.mock import patch

from cloudft.backends.bedrock.account_checks import check_retired_offline
from cloudft.backends.bedrock.preflight import check_offline
from cloudft.backends.findings import FindingFactory
from cloudft.catalogue import Model, Prices, Source, load_import_rules, load_instances, load_models
from cloudft.catalogue.model import Lifecycle, Limits
from cloudft.catalogue.prices import CERTAINTY_TEXTS, UNITS, Certainty, Price, PriceName
from cloudft.spec.load import load_job

ROLE = "arn:aws:iam::123456789012:role/customization"
GRADER = "arn:aws:lambda:{region}:123456789012:function:grader"
SECTIONS = {
    "DISTILLATION": "distillation: {{teacher: {teacher}}}\n",
    "REINFORCEMENT_FINE_TUNING": f"reinforcement: {{{{lambda_arn: '{GRADER}'}}}}\n",
}
"""Sections that a job of that type needs."""
TRAINING_PRICES: dict[str, PriceName] = {"REINFORCEMENT_FINE_TUNING": "reinforcement_hour"}


DAY = date(2026, 11, 30)
"""Day of the life-cycle states shown: pages change with the catalogue, not by themselves."""


def format_amount(price: Price | None) -> str:
    """Return an amount without its unit; a pair as `input / output`."""
    if price is None:
        return "unknown"
    pair = price.usd if isinstance(price.usd, tuple) else (price.usd,)
    return " / ".join(map(_format_usd, pair))


def _format_usd(usd: float) -> str:
    return f"{usd:.8f}".rstrip("0").rstrip(".")


def offered_models() -> list[Model]:
    """Return the models that Bedrock customizes today, and Legacy ones, which it did until then."""
    there = (
        m for m in load_models() if m.bedrock_id and m.lifecycle.state_on(DAY) != "end-of-life"
    )
    return [model for model in there if model.customization_types]


def list_offers() -> Iterator[tuple[str, ...]]:
    """Yield a row for each model before its end of life, customization type and Region."""
    for model in offered_models():
        for kind in model.customization_types:
            for region in model.regions:
                yield _offer_row(model, kind, region)


def _offer_row(model: Model, kind: str, region: str) -> tuple[str, ...]:
    prices = model.prices_in(region)
    by_name = prices.by_name if prices else {}
    name = TRAINING_PRICES.get(kind, "training_per_1k_tokens")
    price = by_name.get(name)
    unit = "an hour" if name == "reinforcement_hour" else "per 1,000 tokens"
    teacher = ", and the teacher's inference" if kind == "DISTILLATION" else ""
    return (
        f"`{model.alias}`",
        _describe_state(model),
        f"`{kind}`",
        region,
        f"{format_amount(price)} {unit}{teacher}",
        describe_source(price),
        f"`{model.formats[kind]}`",
        describe_limits(model.limits.get(kind)),
        " or ".join(model.serving),
        check_answer(model, kind, region),
    )


def _describe_state(model: Model) -> str:
    life, state = model.lifecycle, model.lifecycle.state_on(DAY)
    name = "Legacy" if state == "legacy" else state
    return f"{name}, ends {life.date}" if life.date else name


def describe_limits(limits: Limits | None) -> str:
    """Return how many records there may be, and how long; the rest is on a page of its own."""
    if limits is None:
        return "none published"
    least = limits.train_records_min or limits.records_min
    parts = [f"{least:,} to {limits.records_max:,} records"]
    if limits.tokens_per_record:
        parts.append(f"{limits.tokens_per_record:,} tokens each")
    return ", ".join(parts)


def describe_source(price: Price | None) -> str:
    """Return number, date and certainty of a price's source."""
    return "no source" if price is None else _describe(price.source, price.certainty)


def _describe(source: Source, certainty: Certainty) -> str:
    number = price_sources().index(source) + 1
    return f"[{number}] {source.date}, {CERTAINTY_TEXTS[certainty]}"


def check_answer(model: Model, kind: str, region: str) -> str:
    """Return what `check` finds in a job of that model, type and Region, without an account."""
    teacher = model.teachers[0] if model.teachers else ""
    text = (
        f"name: table\nbase_model: {model.alias}\ncustomization_type: {kind}\n"
        "data: {train: train.jsonl}\n"
        + SECTIONS.get(kind, "").format(teacher=teacher, region=region)
        + f"bedrock: {{region: {region}, role_arn: '{ROLE}', s3_uri: s3://bucket/jobs}}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cloudft.yaml"
        path.write_text(text)
        with patch.object(Lifecycle, "state", property(lambda life: life.state_on(DAY))):
            job = load_job(path)
            findings = check_offline(job)
            if not any(finding.severity == "error" for finding in findings):
                findings += check_retired_offline(job, FindingFactory(job))
    return "; ".join(f"{one.severity}: {one.message}" for one in findings) or "ok"


def list_prices() -> Iterator[tuple[str, ...]]:
    """Yield a row for each price of a model before its end of life."""
    for model in offered_models():
        for prices in model.prices:
            yield from _price_rows(f"`{model.alias}`", prices)


def _price_rows(name: str, prices: Prices) -> Iterator[tuple[str, ...]]:
    for price_name, unit in UNITS.items():
        price = prices.by_name.get(price_name)
        if price is not None:
            region, source = prices.region or "not named", describe_source(price)
            yield (name, region, f"`{price_name}`", format_amount(price), unit, source)


def list_import_prices() -> Iterator[tuple[str, ...]]:
    """Yield a row for each version of custom model units and Region."""
    rules = load_import_rules()
    for version in sorted({version for version, _ in rules.prices}):
        for region in rules.regions:
            prices = rules.prices.get((version, region))
            if prices is None:
                yield version, region, "unknown", "unknown", "no source"
                continue
            amounts = (f"{prices.unit_minute:g}", f"{prices.unit_month:g}")
            assert prices.source is not None
            yield version, region, *amounts, _describe(prices.source, prices.certainty)


def list_instance_prices() -> Iterator[tuple[str, ...]]:
    """Yield a row for each instance type and Region with a price."""
    table = load_instances()
    for name, instance in table.by_name.items():
        gpu = f"{instance.gpus} x {instance.gpu}, {instance.gib} GiB" if instance.gpus else "none"
        for region, price in table.prices.get(name, {}).items():
            source = _describe(price.source, price.certainty)
            yield f"`{name}`", gpu, region, _format_usd(price.usd), source


@cache
def price_sources() -> list[Source]:
    """Return the sources of all prices in the tables, each once, in the order of their numbers."""
    models = [prices for model in offered_models() for prices in model.prices]
    sources = [price.source for prices in models for price in prices.by_name.values()]
    sources += [row.source for row in load_import_rules().prices.values() if row.source]
    hourly = load_instances().prices.values()
    sources += [price.source for row in hourly for price in row.values()]
    return list(dict.fromkeys(sources))
