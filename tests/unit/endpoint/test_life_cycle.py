"""The endpoint's models by the clock: active, Legacy, past their end of life."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.foundation_models import END_OF_LIFE, FoundationModels
from cloudft.endpoint.bedrock.inference_profiles import InferenceProfiles
from cloudft.endpoint.bedrock.runtime import BedrockRuntime
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import Model, State

REGION = "us-east-1"
TITAN = "amazon.titan-text-lite-v1:0:4k"
PREMIER = "amazon.nova-premier-v1:0"
NONE: Any = None


class Clock:
    """A clock that a test sets."""

    def __init__(self, day: str) -> None:
        self.set(day)

    def set(self, day: str) -> None:
        """Set the time."""
        self.time = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock("2025-01-30")


@pytest.fixture
def models(clock: Clock) -> Iterator[FoundationModels]:
    yield FoundationModels(REGION, as_on_aws=True, clock=clock)


def listed(models: FoundationModels, identifier: str) -> Any:
    """Return what the list says of a model's life cycle; None where the list lacks it."""
    summaries = models.list_foundation_models({})["modelSummaries"]
    return next((s["modelLifecycle"] for s in summaries if s["modelId"] == identifier), None)


def test_a_model_becomes_legacy_and_then_vanishes_while_the_endpoint_runs(
    models: FoundationModels, clock: Clock
) -> None:
    midnight = datetime(2025, 8, 15, tzinfo=timezone.utc)
    active = listed(models, TITAN)
    assert active["status"] == "ACTIVE" and active["endOfLifeTime"] == midnight
    assert active["legacyTime"] == datetime(2025, 1, 31, tzinfo=timezone.utc)
    assert models.require_customizable(TITAN, "FINE_TUNING").model.alias == "titan-text-lite"
    clock.set("2025-01-31")
    assert listed(models, TITAN)["status"] == "LEGACY"
    with pytest.raises(ServiceError, match="Legacy") as caught:
        models.require_customizable(TITAN, "FINE_TUNING")
    assert caught.value.code == "ValidationException"
    clock.set("2025-08-14T23:59:59")
    assert models.find_model(TITAN)
    clock.set("2025-08-15")
    assert listed(models, TITAN) is None
    for call in (
        lambda: models.require_customizable(TITAN, "FINE_TUNING"),
        lambda: models.get_foundation_model({"modelIdentifier": "amazon.titan-text-lite-v1"}),
        lambda: models.get_foundation_model_availability({"modelId": TITAN}),
    ):
        with pytest.raises(ServiceError) as caught:
            call()
        assert (caught.value.code, caught.value.message) == (
            "ResourceNotFoundException",
            END_OF_LIFE,
        )


def test_without_as_on_aws_every_model_is_active_and_its_dates_are_named() -> None:
    models = FoundationModels(REGION, as_on_aws=False, clock=Clock("2026-11-30"))
    life = listed(models, TITAN)
    assert life["status"] == "ACTIVE" and life["endOfLifeTime"].year == 2025
    assert listed(models, "amazon.nova-lite-v1:0")["endOfLifeTime"] is None


@pytest.mark.parametrize("identifier", [PREMIER, f"us.{PREMIER}", "amazon.nova-premier-v1"])
def test_inference_after_the_end_of_life(
    models: FoundationModels, clock: Clock, identifier: str
) -> None:
    state = State(REGION)
    deployments = Deployments(state, models)
    runtime = BedrockRuntime(state, InferenceProfiles(state, models), NONE, deployments, NONE)
    clock.set("2026-09-14")
    with pytest.raises(ServiceError) as caught:
        runtime.resolve_model(identifier)
    assert caught.value.code == "ResourceNotFoundException"
    assert caught.value.message == END_OF_LIFE


def test_a_tuned_model_ends_with_its_base_and_gets_no_throughput_while_that_is_legacy(
    models: FoundationModels, clock: Clock
) -> None:
    state = State(REGION)
    model = Model("arn:aws:bedrock:x:custom-model/a/b", "tuned", models.arn_of(TITAN), "job")
    state.models[model.arn] = model
    deployments = Deployments(state, models)
    request: Any = {"provisionedModelName": "pt", "modelId": "tuned", "modelUnits": 1}
    clock.set("2025-02-01")
    with pytest.raises(ServiceError, match="Legacy"):
        deployments.create_provisioned_model_throughput(request)
    assert not state.throughputs
    clock.set("2025-01-30")
    arn = deployments.create_provisioned_model_throughput(request)["provisionedModelArn"]
    clock.set("2025-09-01")
    runtime = BedrockRuntime(state, InferenceProfiles(state, models), NONE, deployments, NONE)
    with pytest.raises(ServiceError, match="end of its life"):
        runtime.resolve_model(arn)
