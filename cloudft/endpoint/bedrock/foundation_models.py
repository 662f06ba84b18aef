"""The foundation models that the endpoint offers: those of cloudft's catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from cloudft import catalogue
from cloudft.endpoint.bedrock.shapes import (
    ListFoundationModelsRequest,
    ModelId,
    ModelIdentifier,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import now

END_OF_LIFE = (
    "This model version has reached the end of its life."
    " Please refer to the AWS documentation for more details."
)
"""With a ResourceNotFoundException. Sources: BerriAI/litellm, pull request 42053 (2026-09-19, from
GetFoundationModel); griptape-ai/griptape-nodes-engine, issue 4498 (2026-05-04, from Converse)."""
PROVIDERS = {"amazon": "Amazon", "meta": "Meta", "anthropic": "Anthropic", "cohere": "Cohere"}


@dataclass(frozen=True)
class FoundationModel:
    """An offered model: the id under which it is customized, its catalogue entry, the Region."""

    identifier: str
    model: catalogue.Model
    region: str

    @property
    def on_demand_id(self) -> str:
        """Return the id under which it answers on demand, without the context suffix."""
        return catalogue.on_demand_id(self.identifier)

    @property
    def needs_profile(self) -> bool:
        """Return whether its own id does not answer here: it is called by inference profiles."""
        return not catalogue.answers_in_region(self.model, self.region)


class FoundationModels:
    """Operations on foundation models, and the stand-ins that play them.

    They are those that `api` customizes. With `as_on_aws`, a model is Legacy, and later not
    offered, from the days that the catalogue has; without it every model is active. `clock` returns
    the time, in UTC. `stand_ins` maps a model's id or alias to an open model; `stand_in` is used
    for all others.
    """

    def __init__(
        self,
        region: str,
        *,
        as_on_aws: bool,
        stand_in: str = "",
        stand_ins: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = now,
        api: catalogue.CustomizationApi = "bedrock",
    ) -> None:
        self.region = region
        self.started = clock()
        self._clock, self._as_on_aws = clock, as_on_aws
        self._stand_in = stand_in
        self._stand_ins = stand_ins or {}
        self._all = [
            FoundationModel(model.bedrock_id, model, region)
            for model in catalogue.load_models()
            if model.bedrock_id and model.customization_api == api
        ]

    @property
    def models(self) -> list[FoundationModel]:
        """Return the models that are offered now."""
        return [base for base in self._all if self._state(base) != "end-of-life"]

    def _state(self, base: FoundationModel) -> str:
        """Return the model's life-cycle state now: it may change while the endpoint runs."""
        if not self._as_on_aws:
            return "active"
        return base.model.lifecycle.state_on(self._clock().date())

    def raise_if_ended(self, identifier: str) -> None:
        """Raise ServiceError (ResourceNotFoundException) for a model that was offered once.

        `identifier` is an id or ARN of a model, or of an inference profile of it.
        """
        name = identifier.rpartition("/")[2]
        area, _, rest = name.partition(".")
        for base in self._all:
            if self._state(base) != "end-of-life":
                continue
            if _has_name(base, name) or (
                area in base.model.inference_profiles and _has_name(base, rest)
            ):
                raise ServiceError("ResourceNotFoundException", END_OF_LIFE)

    def arn(self, base: FoundationModel) -> str:
        """Return the model's ARN. It has no account: foundation models belong to none."""
        return self.arn_of(base.identifier)

    def arn_of(self, identifier: str) -> str:
        """Return the ARN of a model's id."""
        return f"arn:aws:bedrock:{self.region}::foundation-model/{identifier}"

    def is_offered(self, identifier: str) -> bool:
        """Return whether there is a model of that id or ARN."""
        try:
            self.find_model(identifier)
        except ServiceError:
            return False
        return True

    def stand_in(self, identifier: str) -> str:
        """Return the open model that is trained, and answers, in place of this one."""
        base = self.find_model(identifier)
        names = (base.identifier, *base.model.other_ids, base.model.alias)
        return next((self._stand_ins[n] for n in names if n in self._stand_ins), self._stand_in)

    def find_model(self, identifier: str) -> FoundationModel:
        """Return the model of an id or ARN, with or without its context suffix (`:4k`).

        Raises ResourceNotFoundException, also for a model past its end of life.
        """
        place, _, name = identifier.rpartition("foundation-model/")
        # An ARN of another Region names nothing here, as on AWS.
        here = place in ("", f"arn:aws:bedrock:{self.region}::")
        for base in self.models if here else ():
            if _has_name(base, name):
                return base
        if here:
            self.raise_if_ended(name)
        raise ServiceError(
            "ResourceNotFoundException",
            "Could not resolve the foundation model from the provided model identifier.",
        )

    def require_customizable(self, identifier: str, kind: str) -> FoundationModel:
        """Return the model if it supports that customization type.

        Raises ValidationException, and ResourceNotFoundException for a model past its end of life.
        """
        try:
            base = self.find_model(identifier)
        except ServiceError as error:
            if error.message == END_OF_LIFE:
                raise
            raise ServiceError("ValidationException", error.message) from error
        self.require_active(base)
        if kind not in base.model.customization_types:
            raise ServiceError("ValidationException", f"The model does not support {kind}.")
        return base

    def require_active(self, base: FoundationModel) -> None:
        """Raise ServiceError (ValidationException) for a model that is Legacy.

        It takes no new customization job and no new provisioned throughput (Bedrock user guide,
        "Model lifecycle", 2026-10). The words are not AWS's: no source has them.
        """
        if self._state(base) == "legacy":
            message = f"{base.identifier} is a Legacy model: it can't be customized or provisioned"
            raise ServiceError("ValidationException", message)

    def require_on_demand(self, identifier: str) -> FoundationModel:
        """Return the model of an id or ARN that answers here without an inference profile.

        Raises ServiceError. Source of the words: anthropics/anthropic-sdk-python, issue 894.
        """
        base = self.find_model(identifier)
        if base.needs_profile:
            raise ServiceError(
                "ValidationException",
                f"Invocation of model ID {base.on_demand_id} with on-demand throughput isn\u2019t"
                " supported. Retry your request with the ID or ARN of an inference profile that"
                " contains this model.",
            )
        return base

    def list_foundation_models(self, request: ListFoundationModelsRequest) -> Response:
        """Return summaries of all models: this list has no pages."""
        return {"modelSummaries": list(self._summaries(request))}

    def _summaries(self, request: ListFoundationModelsRequest) -> Iterator[Response]:
        kind, inference = request.get("byCustomizationType"), request.get("byInferenceType")
        provider = request.get("byProvider")
        for base in self.models:
            if provider is not None and provider.lower() != _provider(base).lower():
                continue
            for identifier in dict.fromkeys((base.on_demand_id, base.identifier)):
                if (
                    (kind is None or kind in _listed_types(base, identifier))
                    and (inference is None or inference in _inference_types(base, identifier))
                    and request.get("byOutputModality", "TEXT") == "TEXT"
                ):
                    yield self._model_response(base, identifier)

    def _model_response(self, base: FoundationModel, identifier: str) -> Response:
        return {
            "modelArn": self.arn_of(identifier),
            "modelId": identifier,
            "modelName": base.model.title,
            "providerName": _provider(base),
            "inputModalities": ["TEXT"],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "customizationsSupported": _listed_types(base, identifier),
            "inferenceTypesSupported": _inference_types(base, identifier),
            "modelLifecycle": self._lifecycle_response(base),
        }

    def _lifecycle_response(self, base: FoundationModel) -> Response:
        """Return the state, and the days that the catalogue has. No source has a model's launch."""
        life = base.model.lifecycle
        return {
            "status": "LEGACY" if self._state(base) == "legacy" else "ACTIVE",
            "legacyTime": _midnight(life.legacy),
            "endOfLifeTime": _midnight(life.date),
        }

    def get_foundation_model(self, request: ModelIdentifier) -> Response:
        """Return one model."""
        base, name = self._find_listed(request["modelIdentifier"])
        return {"modelDetails": self._model_response(base, name)}

    def _find_listed(self, identifier: str) -> tuple[FoundationModel, str]:
        """Return a model, and which of its two ids that is."""
        base = self.find_model(identifier)
        is_whole = identifier.rpartition("foundation-model/")[2] == base.identifier
        return base, base.identifier if is_whole else base.on_demand_id

    def get_foundation_model_availability(self, request: ModelId) -> Response:
        """Return whether the caller may use a model: here, always."""
        return {
            "modelId": self._find_listed(request["modelId"])[1],
            "agreementAvailability": {"status": "AVAILABLE"},
            "authorizationStatus": "AUTHORIZED",
            "entitlementAvailability": "AVAILABLE",
            "regionAvailability": "AVAILABLE",
        }


def _has_name(base: FoundationModel, name: str) -> bool:
    """Return whether that is one of the model's ids, with or without version and suffix."""
    identifier = base.identifier
    names = (identifier, *base.model.other_ids)
    return bool(name) and (name in names or identifier.startswith(f"{name}:"))


def _midnight(day: str | None) -> datetime | None:
    return None if day is None else datetime.fromisoformat(day).replace(tzinfo=timezone.utc)


def _inference_types(base: FoundationModel, identifier: str) -> list[str]:
    """Return how an id is called. Bedrock lists a model under its plain id and under another with
    the context suffix, for customization and provisioned throughput.
    """
    on_demand = ["INFERENCE_PROFILE"] if base.needs_profile else ["ON_DEMAND"]
    # Those past their end, of which the catalogue knows no serving, were all provisioned.
    provisioned = (
        ["PROVISIONED"] if "provisioned" in (base.model.serving or ("provisioned",)) else []
    )
    if base.on_demand_id == base.identifier:
        return [*on_demand, *provisioned]
    return provisioned if identifier == base.identifier else on_demand


def _listed_types(base: FoundationModel, identifier: str) -> list[str]:
    if identifier != base.identifier:
        return []
    types = base.model.customization_types
    return [name for name in types if catalogue.CUSTOMIZATION_TYPES[name].is_listed]


def _provider(base: FoundationModel) -> str:
    provider = base.identifier.partition(".")[0]
    return PROVIDERS.get(provider, provider)
