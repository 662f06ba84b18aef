"""Inference profiles: those that Bedrock defines for a model, and those that an account creates.

Source: Bedrock user guide, "Supported Regions and models for inference profiles" and the models'
cards; the catalogue has the areas of each model.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudft import catalogue
from cloudft.backends.bedrock.inference_profiles import INVOKE, PROFILE_CONDITION
from cloudft.catalogue.profile_ids import APPLICATION, GLOBAL, SYSTEM
from cloudft.endpoint.bedrock.foundation_models import FoundationModel, FoundationModels
from cloudft.endpoint.bedrock.pagination import paginate
from cloudft.endpoint.bedrock.shapes import (
    CreateProfileRequest,
    ListProfilesRequest,
    ProfileIdentifier,
)
from cloudft.endpoint.iam.policies import AccessRequest
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import ACCOUNT, InferenceProfile, State

_EU = ("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-3")
DESTINATIONS = {
    "us": ("us-east-1", "us-east-2", "us-west-2"),
    "eu": _EU,
    # The cards name none: the profiles of an account, read by GetInferenceProfile (2026).
    "apac": (
        *("ap-northeast-1", "ap-northeast-2", "ap-northeast-3"),
        *("ap-south-1", "ap-southeast-1", "ap-southeast-2"),
    ),
    "jp": ("ap-northeast-1", "ap-northeast-3"),
}
"""The Regions that a profile of an area sends requests to, beside the one that it is called in."""
MORE_DESTINATIONS = {
    "eu.amazon.nova-2-lite-v1:0": (*_EU, "eu-south-1", "eu-south-2"),
}
"""The Regions of a profile that are not those of its area. Source: the model's card, 2026-10."""


class InferenceProfiles:
    """Operations on inference profiles."""

    def __init__(self, state: State, foundation: FoundationModels) -> None:
        self.state = state
        self.foundation = foundation

    def find_model(self, identifier: str) -> FoundationModel | None:
        """Return the model of a profile's id or ARN; None if there is no such profile here.

        A profile of another area than the Region's is none.
        """
        with self.state.lock:
            profile = self._find_profile(identifier)
        return self.foundation.find_model(profile.model_arn) if profile else None

    def _find_profile(self, identifier: str) -> InferenceProfile | None:
        found = self.state.profiles.get(identifier)
        if found is not None:
            return found
        return next((p for p in self._all() if identifier in (p.arn, p.id)), None)

    def _all(self) -> Iterator[InferenceProfile]:
        """Yield the profiles of the system, then those of the account."""
        for base in self.foundation.models:
            for area in catalogue.callable_areas(base.model, self.state.region):
                yield self._system_profile(base, area)
        yield from self.state.profiles.values()

    def _system_profile(self, base: FoundationModel, area: str) -> InferenceProfile:
        identifier = f"{area}.{base.on_demand_id}"
        return InferenceProfile(
            f"arn:aws:bedrock:{self.state.region}:{ACCOUNT}:{SYSTEM}/{identifier}",
            f"{area.upper()} {base.model.title.removeprefix('Amazon ')}",
            self.foundation.arn_of(base.on_demand_id),
            area=area,
            created=self.foundation.started,
        )

    def create_inference_profile(self, request: CreateProfileRequest) -> Response:
        """Create a profile of a model, or of another profile, to separate its use and its cost."""

        def make() -> InferenceProfile:
            source = request["modelSource"]["copyFrom"]
            copied = self._find_profile(source)
            if copied is None and self.foundation.is_offered(source):
                on_demand = self.foundation.find_model(source).on_demand_id
                area, model_arn = "", self.foundation.arn_of(on_demand)
            elif copied is not None and copied.is_system:
                area, model_arn = copied.area, copied.model_arn
            else:
                raise ServiceError(
                    "ValidationException", "The provided model identifier is invalid."
                )
            name, description = request["inferenceProfileName"], request.get("description")
            arn = self.state.arn(APPLICATION)
            return InferenceProfile(arn, name, model_arn, area=area, description=description)

        arn, _ = self.state.create("profile", self.state.profiles, request, make)
        return {"inferenceProfileArn": arn, "status": "ACTIVE"}

    def get_inference_profile(self, request: ProfileIdentifier) -> Response:
        """Return one profile, by id or ARN."""
        with self.state.lock:
            return self._profile_response(self._require(request))

    def _require(self, request: ProfileIdentifier) -> InferenceProfile:
        identifier = request["inferenceProfileIdentifier"]
        profile = self._find_profile(identifier)
        if profile is None:
            message = f"Could not find the inference profile {identifier}"
            raise ServiceError("ResourceNotFoundException", message)
        return profile

    def _profile_response(self, profile: InferenceProfile) -> Response:
        return {
            "inferenceProfileName": profile.name,
            "description": profile.description,
            "createdAt": profile.created,
            "updatedAt": profile.created,
            "inferenceProfileArn": profile.arn,
            "models": [{"modelArn": arn} for arn in self._model_arns(profile)],
            "inferenceProfileId": profile.id,
            "status": "ACTIVE",
            "type": "SYSTEM_DEFINED" if profile.is_system else "APPLICATION",
        }

    def _model_arns(self, profile: InferenceProfile) -> list[str]:
        """Return the ARNs of the profile's model in each Region that it sends requests to."""
        model = profile.model_arn.rpartition("/")[2]
        near = DESTINATIONS.get(profile.area, ())
        regions = {self.state.region, *MORE_DESTINATIONS.get(f"{profile.area}.{model}", near)}
        arns = [f"arn:aws:bedrock:{region}::foundation-model/{model}" for region in sorted(regions)]
        if profile.area == GLOBAL:  # it names no Region: all that have the model
            arns.append(f"arn:aws:bedrock:::foundation-model/{model}")
        return arns

    def invoke_requests(self, identifier: str) -> list[AccessRequest]:
        """Return what an identity must be allowed to invoke by a profile; nothing if it is none.

        The profile, and its model in each Region that it sends requests to.
        """
        with self.state.lock:
            profile = self._find_profile(identifier)
            if profile is None:
                return []
            context = {PROFILE_CONDITION: profile.arn}
            models = [AccessRequest(INVOKE, arn, context) for arn in self._model_arns(profile)]
        return [AccessRequest(INVOKE, profile.arn, {}), *models]

    def list_inference_profiles(self, request: ListProfilesRequest) -> Response:
        """Return summaries of the profiles that can be used in this Region, paginated."""
        kind = request.get("typeEquals")
        with self.state.lock:
            listed = [
                profile
                for profile in self._all()
                if kind is None or (kind == "SYSTEM_DEFINED") == profile.is_system
            ]
        shown, next_page = paginate(listed, request)
        return {
            "inferenceProfileSummaries": [self._profile_response(p) for p in shown],
            **next_page,
        }

    def delete_inference_profile(self, request: ProfileIdentifier) -> Response:
        """Delete a profile of the account. Raises ValidationException for one of the system's."""
        with self.state.lock:
            profile = self._require(request)
            if profile.is_system:
                message = "A system-defined inference profile can't be deleted"
                raise ServiceError("ValidationException", message)
            del self.state.profiles[profile.arn]
            self.state.tags.pop(profile.arn, None)
        return {}
