"""The catalogue against an account's lists and botocore's service model (`models --live`)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from endpoint import AWS_KEYS, REGION, Endpoint, running_endpoint
from processes import Cli

from cloudft.account import catalogue_drift
from cloudft.account.catalogue_drift import CatalogueComparison, compare_catalogue
from cloudft.aws.client import Aws
from cloudft.backends.bedrock import price_list
from cloudft.catalogue import CUSTOMIZATION_TYPES, Prices, Source
from cloudft.errors import CloudUnreachable, PermissionDenied
from cloudft.types import Listing

MICRO = "amazon.nova-micro-v1:0:128k"
ON_DEMAND = "amazon.nova-micro-v1:0"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--as-on-aws") as made:
        yield made


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


def compare(endpoint: Endpoint, **options: Any) -> Listing[CatalogueComparison]:
    location = {"region": REGION, "profile": None, "endpoint_url": endpoint.url}
    return compare_catalogue(location, **options)


def row_of(listing: Listing[CatalogueComparison], model: str) -> CatalogueComparison:
    return next(line for line in listing.items if line.model == model)


def test_an_endpoint_that_does_as_aws_does_is_the_catalogue(endpoint: Endpoint) -> None:
    listing = compare(endpoint)
    assert listing.exit_code == 0 and not listing.unavailable
    here = [line for line in listing.items if not line.catalogue.startswith("not in")]
    assert [(line.model, line.differences) for line in here if line.word != "same"] == []
    assert row_of(listing, "nova-micro").region == REGION
    ended = {
        line.model: line.catalogue for line in listing.items if "end of life" in line.catalogue
    }
    assert ended["titan-text-lite"] == "end of life 2025-08-15"
    assert ended["nova-premier"] == "end of life 2026-09-14"


def changed_list(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Change the account's answer to ListFoundationModels: each summary by its id, or None."""
    call = Aws.call

    def changed(self: Aws, failure: str, service: str, operation: str, **more: Any) -> Any:
        answer = call(self, failure, service, operation, **more)
        if operation != "list_foundation_models":
            return answer
        by_id = {s["modelId"]: s for s in copy.deepcopy(answer["modelSummaries"])}
        change(by_id)
        return {"modelSummaries": list(by_id.values())}

    monkeypatch.setattr(Aws, "call", changed)


def time(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("identifier", "members", "expected"),
    [
        (MICRO, {"customizationsSupported": ["FINE_TUNING"]}, "types: FINE_TUNING, here DIST"),
        (MICRO, {"modelLifecycle": {"status": "LEGACY"}}, "status: LEGACY, here ACTIVE"),
        (
            MICRO,
            {"modelLifecycle": {"status": "ACTIVE", "endOfLifeTime": time("2027-05-01")}},
            "end of life 2027-05-01, here no date",
        ),
        (
            MICRO,
            {"modelLifecycle": {"status": "ACTIVE", "legacyTime": time("2026-12-01")}},
            "Legacy from 2026-12-01, here no date",
        ),
        (MICRO, {"inferenceTypesSupported": []}, "provisioned throughput is not offered"),
        (
            "amazon.nova-lite-v1:0",
            {"inferenceTypesSupported": ["INFERENCE_PROFILE"]},
            f"the base model needs a profile on demand in {REGION}, here it answers",
        ),
        (MICRO, None, f"{MICRO} is not listed; {ON_DEMAND} is"),
    ],
)
def test_what_drifts_is_named(
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    identifier: str,
    members: Mapping[str, Any] | None,
    expected: str,
) -> None:
    def change(by_id: dict[str, Any]) -> None:
        if members is None:
            del by_id[identifier]
        else:
            by_id[identifier] |= members

    changed_list(monkeypatch, change)
    row = row_of(compare(endpoint), "nova-lite" if "lite" in identifier else "nova-micro")
    assert row.word == "drift"
    assert any(difference.startswith(expected) for difference in row.differences), row


def test_a_legacy_model_whose_successor_is_not_listed(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(by_id: dict[str, Any]) -> None:
        by_id[MICRO]["modelLifecycle"] = {"status": "LEGACY"}

    changed_list(monkeypatch, change)
    row = row_of(compare(endpoint), "nova-micro")
    assert "it is Legacy, and no successor is known here" in row.differences


def test_a_model_that_the_catalogue_lacks_and_one_that_it_says_is_gone(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(by_id: dict[str, Any]) -> None:
        new = {"modelId": "amazon.nova-9-v1:0:1k", "outputModalities": ["TEXT"]}
        by_id["new"] = {**new, "customizationsSupported": ["FINE_TUNING"]}
        by_id["old"] = {"modelId": "amazon.titan-text-lite-v1:0:4k"}

    changed_list(monkeypatch, change)
    listing = compare(endpoint)
    assert row_of(listing, "amazon.nova-9-v1:0:1k").catalogue == "not in the catalogue"
    assert row_of(listing, "titan-text-lite").differences == (
        "amazon.titan-text-lite-v1:0:4k is listed",
    )


def test_prices_of_the_price_list(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(aws: Aws, models: Any, region: str) -> dict[str, Prices]:
        amounts = {"training_per_1k_tokens": 0.5, "storage_per_month": 1.95}
        prices = Prices.of(amounts, Source("list", "x", "2026-11-30"), "list", region)
        return {model.alias: prices for model in models if model.alias == "nova-micro"}

    monkeypatch.setattr(price_list, "fetch_prices", fetch)
    read = catalogue_drift._read_prices
    monkeypatch.setattr(
        catalogue_drift, "_read_prices", lambda aws, region, is_aws: read(aws, region, True)
    )
    row = row_of(compare(endpoint), "nova-micro")
    assert row.differences == ("training_per_1k_tokens: 0.5 USD in the Price List, 0.001 here",)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionDenied("AccessDeniedException: no", fix="grant it"), 4),
        (CloudUnreachable("offline", fix="try again"), 5),
    ],
)
def test_a_part_that_cannot_be_read_hides_no_other(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    call = Aws.call

    def refused(self: Aws, failure: str, service: str, operation: str, **more: Any) -> Any:
        if operation == "list_inference_profiles":
            raise error
        return call(self, failure, service, operation, **more)

    monkeypatch.setattr(Aws, "call", refused)
    listing = compare(endpoint)
    assert listing.exit_code == code
    assert [part.what for part in listing.unavailable] == [
        f"bedrock: inference profiles of {REGION}"
    ]
    assert row_of(listing, "nova-micro").word == "same"
    unread = row_of(listing, f"bedrock: inference profiles of {REGION}")
    assert (unread.word, unread.account) == ("unread", "could not be read")
    assert unread.differences


def test_a_region_that_cannot_be_read_hides_no_other(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Aws.call

    def refused(self: Aws, failure: str, service: str, operation: str, **more: Any) -> Any:
        if self.location.region == "us-west-2":
            raise PermissionDenied("AccessDeniedException: no", fix="grant it")
        return call(self, failure, service, operation, **more)

    monkeypatch.setattr(Aws, "call", refused)
    listing = compare(endpoint, all_regions=True)
    assert {line.region for line in listing.items if line.region} == {"us-east-1"}
    assert [p.what for p in listing.unavailable] == ["bedrock: foundation models of us-west-2"]
    assert listing.exit_code == 4


def test_the_types_of_botocore_are_those_of_cloudft(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(catalogue_drift.compare_service_model())
    assert [row.word for row in rows] == ["same", "same", "same"], rows
    others = {k: v for k, v in CUSTOMIZATION_TYPES.items() if k != "DISTILLATION"}
    others["INVENTED"] = CUSTOMIZATION_TYPES["REINFORCEMENT_FINE_TUNING"]
    monkeypatch.setattr(catalogue_drift, "CUSTOMIZATION_TYPES", others)
    jobs, lists, _ = catalogue_drift.compare_service_model()
    assert jobs.word == lists.word == "drift"
    assert jobs.differences == (
        "cloudft does not know DISTILLATION",
        "botocore does not have INVENTED",
    )
    assert lists.differences == ("cloudft does not know DISTILLATION",)


def test_the_command_prints_differences_and_what_could_not_be_read(
    cli: Cli, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    lines = json.loads(cli("models", "--live", "--output", "json").stdout)
    micro = next(line for line in lines if line["model"] == "nova-micro")
    assert (micro["word"], micro["region"]) == ("same", REGION)
    assert micro["catalogue"] == micro["account"] == "ACTIVE: DISTILLATION, FINE_TUNING"
    every = cli("models", "--live", "--all-regions")
    assert every.returncode == 0 and "us-west-2" in every.stdout
    denied = {"operation": "ListFoundationModels", "do": "deny", "times": 9}
    endpoint.fault(denied)
    done = cli("models", "--live", "--output", "json")
    endpoint.fault()
    assert done.returncode == 4 and "foundation models" in done.stderr
    rows = json.loads(done.stdout)
    assert {row["word"] for row in rows} == {"same", "unread"}
    assert cli("models", "--all-regions").returncode == 2
