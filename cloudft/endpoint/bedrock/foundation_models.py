"""The foundation models that the endpoint offers: those of cloudft's catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cloudft import catalogue
from cloudft.endpoint.bedrock.shapes import (
    ListFoundationModelsRequest,
    ModelId,
    ModelIdentifier,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError

PROVIDERS = {"amazon": "Amazon", "meta": "Meta", "anthropic": "Anthropic", "cohere": "Cohere"}

INFERENCE_TYPES = ["ON_DEMAND", "PROVISIONED"]


@dataclass(frozen=True)
class FoundationModel:
    """An offered model: the id under which it is customized, and its catalogue entry."""

    identifier: str
    model: catalogue.Model


class FoundationModels:
    """Operations on foundation models, and the stand-ins that play them.

    With `as_on_aws`, models past their end of life are not offered. `stand_ins` maps a model's id
    or alias to an open model; `stand_in` is used for all others.
    """

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
            and model.customization_api == "bedrock"
            and (model.lifecycle.state != "end-of-life" or not as_on_aws)
        ]

    def arn(self, base: FoundationModel) -> str:
        """Return the model's ARN. It has no account: foundation models belong to none."""
        return f"arn:aws:bedrock:{self.region}::foundation-model/{base.identifier}"

    def stand_in(self, identifier: str) -> str:
        """Return the open model that is trained, and answers, in place of this one."""
        base = self.find_model(identifier)
        names = (base.identifier, *base.model.other_ids, base.model.alias)
        return next((self._stand_ins[n] for n in names if n in self._stand_ins), self._stand_in)

    def find_model(self, identifier: str) -> FoundationModel:
        """Return the model of an id or ARN, with or without its context suffix (`:4k`).

        Raises ResourceNotFoundException.
        """
        place, _, name = identifier.rpartition("foundation-model/")
        # An ARN of another Region names nothing here, as on AWS.
        here = place in ("", f"arn:aws:bedrock:{self.region}::")
        for base in self.models if here else ():
            if name in (base.identifier, *base.model.other_ids) or base.identifier.startswith(
                f"{name}:"
            ):
                return base
        raise ServiceError(
            "ResourceNotFoundException",
            "Could not resolve the foundation model from the provided model identifier.",
        )

    def require_customizable(self, identifier: str, kind: str) -> FoundationModel:
        """Return the model if it supports that customization type. Raises ValidationException."""
        try:
            base = self.find_model(identifier)
        except ServiceError as error:
            raise ServiceError("ValidationException", error.message) from error
        if kind not in base.model.customization_types:
            raise ServiceError("ValidationException", f"The model does not support {kind}.")
        return base

    def list_foundation_models(self, request: ListFoundationModelsRequest) -> Response:
        """Return summaries of all models: this list has no pages."""
        return {"modelSummaries": list(self._summaries(request))}

    def _summaries(self, request: ListFoundationModelsRequest) -> Iterator[Response]:
        kind, inference = request.get("byCustomizationType"), request.get("byInferenceType")
        provider = request.get("byProvider")
        for base in self.models:
            if (
                (kind is None or kind in _listed_types(base))
                and (provider is None or provider.lower() == _provider(base).lower())
                and (inference is None or inference in INFERENCE_TYPES)
                and request.get("byOutputModality", "TEXT") == "TEXT"
            ):
                yield self._model_response(base)

    def _model_response(self, base: FoundationModel) -> Response:
        return {
            "modelArn": self.arn(base),
            "modelId": base.identifier,
            "modelName": base.model.title,
            "providerName": _provider(base),
            "inputModalities": ["TEXT"],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "customizationsSupported": _listed_types(base),
            "inferenceTypesSupported": INFERENCE_TYPES,
            "modelLifecycle": {"status": "ACTIVE"},
        }

    def get_foundation_model(self, request: ModelIdentifier) -> Response:
        """Return one model."""
        return {"modelDetails": self._model_response(self.find_model(request["modelIdentifier"]))}

    def get_foundation_model_availability(self, request: ModelId) -> Response:
        """Return whether the caller may use a model: here, always."""
        return {
            "modelId": self.find_model(request["modelId"]).identifier,
            "agreementAvailability": {"status": "AVAILABLE"},
            "authorizationStatus": "AUTHORIZED",
            "entitlementAvailability": "AVAILABLE",
            "regionAvailability": "AVAILABLE",
        }


def _listed_types(base: FoundationModel) -> list[str]:
    types = base.model.customization_types
    return [name for name in types if catalogue.CUSTOMIZATION_TYPES[name].is_listed]


def _provider(base: FoundationModel) -> str:
    provider = base.identifier.partition(".")[0]
    return PROVIDERS.get(provider, provider)
