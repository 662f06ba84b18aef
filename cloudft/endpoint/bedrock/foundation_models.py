"""The foundation models that the endpoint offers: those of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft import catalogue
from cloudft.endpoint.protocols.messages import ServiceError

PROVIDERS = {"amazon": "Amazon", "meta": "Meta", "anthropic": "Anthropic", "cohere": "Cohere"}
LISTED_CUSTOMIZATION_TYPES = {"FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION"}
"""What `customizationsSupported` may hold: the API's enum lacks reinforcement fine-tuning."""


@dataclass(frozen=True)
class FoundationModel:
    """One offered model: its customization id and what it can do."""

    identifier: str
    model: catalogue.Model


class FoundationModels:
    """The listing. With `as_on_aws`, models past their end of life are not offered."""

    def __init__(
        self,
        region: str,
        *,
        as_on_aws: bool,
        stand_in: str = "",
        stand_ins: Mapping[str, str] | None = None,
    ) -> None:
        self.region = region
        self._stand_in = stand_in
        self._stand_ins = stand_ins or {}
        self.models = [
            FoundationModel(model.bedrock_id, model)
            for model in catalogue.load_models()
            if model.bedrock_id
            and model.family != "openai-compatible"
            and (model.lifecycle.state != "end-of-life" or not as_on_aws)
        ]

    def arn(self, base: FoundationModel) -> str:
        """The model's ARN: foundation models belong to no account."""
        return f"arn:aws:bedrock:{self.region}::foundation-model/{base.identifier}"

    def stand_in(self, identifier: str) -> str:
        """The open model that is trained and asked in the place of this one."""
        base = self.find_model(identifier)
        names = (base.identifier, *base.model.other_ids, base.model.alias)
        return next((self._stand_ins[n] for n in names if n in self._stand_ins), self._stand_in)

    def find_model(self, identifier: str) -> FoundationModel:
        """The model of that id or ARN, with or without its context suffix."""
        name = identifier.rpartition("foundation-model/")[2]
        for base in self.models:
            if name in (base.identifier, *base.model.other_ids) or base.identifier.startswith(
                f"{name}:"
            ):
                return base
        raise ServiceError(
            "ResourceNotFoundException",
            "Could not resolve the foundation model from the provided model identifier.",
        )

    def require_customizable(self, identifier: str, kind: str) -> FoundationModel:
        """The model, when it can be customized so."""
        try:
            base = self.find_model(identifier)
        except ServiceError as error:
            raise ServiceError("ValidationException", error.message) from error
        if kind not in base.model.customization_types:
            raise ServiceError("ValidationException", f"The model does not support {kind}.")
        return base

    def list_foundation_models(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All of them: this list has no pages."""
        return {"modelSummaries": list(self._summaries(given))}

    def _summaries(self, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for base in self.models:
            told = self._model_response(base)
            kind = given.get("byCustomizationType")
            provider, way = given.get("byProvider"), given.get("byInferenceType")
            if (
                (kind is None or kind in told["customizationsSupported"])
                and (provider is None or provider.lower() == told["providerName"].lower())
                and (way is None or way in told["inferenceTypesSupported"])
                and given.get("byOutputModality", "TEXT") == "TEXT"
            ):
                yield told

    def _model_response(self, base: FoundationModel) -> dict[str, Any]:
        supported = [k for k in base.model.customization_types if k in LISTED_CUSTOMIZATION_TYPES]
        provider = base.identifier.partition(".")[0]
        return {
            "modelArn": self.arn(base),
            "modelId": base.identifier,
            "modelName": base.model.title,
            "providerName": PROVIDERS.get(provider, provider),
            "inputModalities": ["TEXT"],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "customizationsSupported": supported,
            "inferenceTypesSupported": ["ON_DEMAND", "PROVISIONED"],
            "modelLifecycle": {"status": "ACTIVE"},
        }

    def get_foundation_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One of them."""
        return {"modelDetails": self._model_response(self.find_model(given["modelIdentifier"]))}

    def get_foundation_model_availability(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the caller may use it: here, always."""
        return {
            "modelId": self.find_model(given["modelId"]).identifier,
            "agreementAvailability": {"status": "AVAILABLE"},
            "authorizationStatus": "AUTHORIZED",
            "entitlementAvailability": "AVAILABLE",
            "regionAvailability": "AVAILABLE",
        }
