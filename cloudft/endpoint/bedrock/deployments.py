"""What serves a custom model: on-demand deployments and provisioned throughput; and tags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import (
    Model,
    ModelDeployment,
    State,
    find_by_arn_or_name,
    now,
    require_resource,
)

COMMITMENT_DAYS = {"OneMonth": 30, "SixMonths": 180}
"""Days of a commitment."""


class Deployments:
    """The operations of deployments, throughputs and tags."""

    def __init__(self, state: State, seconds: float = 0.0) -> None:
        self.state = state
        self.creation_time = timedelta(seconds=seconds)

    def _model(self, identifier: str) -> Model:
        model: Model = require_resource(self.state.models, identifier, "custom model")
        return model

    def _require_serving(
        self, things: Mapping[str, ModelDeployment], identifier: str
    ) -> ModelDeployment:
        serving: ModelDeployment = require_resource(things, identifier, "resource")
        return serving

    def _status(self, serving: ModelDeployment, ready: str) -> str:
        return (
            ready
            if now() >= _last_modified(serving) + self.creation_time
            else self._pending_status(serving)
        )

    def _pending_status(self, serving: ModelDeployment) -> str:
        return "Creating" if serving.modified is None else "Updating"

    def create_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve on demand."""

        def make() -> ModelDeployment:
            model = self._model(given["modelArn"])
            arn = self.state.arn("custom-model-deployment")
            name = given["modelDeploymentName"]
            return ModelDeployment(arn, name, model.arn, description=given.get("description"))

        arn, _ = self.state.create("deployment", self.state.deployments, given, make)
        return {"customModelDeploymentArn": arn}

    def get_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One deployment."""
        serving = self._require_serving(
            self.state.deployments, given["customModelDeploymentIdentifier"]
        )
        return {
            "customModelDeploymentArn": serving.arn,
            "modelDeploymentName": serving.name,
            "modelArn": serving.model_arn,
            "createdAt": serving.created,
            "lastUpdatedAt": _last_modified(serving),
            "status": "Creating" if self._is_creating(serving) else "Active",
            "updateDetails": self._update_details(serving),
            "description": serving.description,
        }

    def _is_creating(self, serving: ModelDeployment) -> bool:
        return self._status(serving, "Active") == "Creating"

    def _update_details(self, serving: ModelDeployment) -> dict[str, Any] | None:
        if serving.modified is None:
            return None
        word = self._status(serving, "UpdateCompleted")
        return {"modelArn": serving.model_arn, "updateStatus": word}

    def update_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Put another model behind the same deployment."""
        with self.state.lock:
            identifier = given["customModelDeploymentIdentifier"]
            serving = self._require_serving(self.state.deployments, identifier)
            serving.model_arn = self._model(given["modelArn"]).arn
            serving.modified = now()
        return {"customModelDeploymentArn": serving.arn}

    def list_custom_model_deployments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        shown, more = paginate(self._matching(self.state.deployments, given, "Active"), given)
        summaries = [
            {
                "customModelDeploymentArn": serving.arn,
                "customModelDeploymentName": serving.name,
                "modelArn": serving.model_arn,
                "createdAt": serving.created,
                "status": "Creating" if self._is_creating(serving) else "Active",
                "lastUpdatedAt": _last_modified(serving),
            }
            for serving in shown
        ]
        return {"modelDeploymentSummaries": summaries, **more}

    def _matching(
        self, things: Mapping[str, ModelDeployment], given: Mapping[str, Any], ready: str
    ) -> list[ModelDeployment]:
        with self.state.lock:
            return [
                thing
                for thing in filter_by_name_and_time(things.values(), given)
                if given.get("modelArnEquals", thing.model_arn) == thing.model_arn
                and given.get("statusEquals") in (None, self._status(thing, ready))
            ]

    def delete_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve no more; the model stays."""
        with self.state.lock:
            identifier = given["customModelDeploymentIdentifier"]
            serving = self._require_serving(self.state.deployments, identifier)
            del self.state.deployments[serving.arn]
            self.state.tags.pop(serving.arn, None)
        return {}

    def create_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve by the hour."""

        def make() -> ModelDeployment:
            return ModelDeployment(
                self.state.arn("provisioned-model"),
                given["provisionedModelName"],
                self._model(given["modelId"]).arn,
                units=given["modelUnits"],
                commitment=given.get("commitmentDuration"),
            )

        arn, _ = self.state.create("throughput", self.state.throughputs, given, make)
        return {"provisionedModelArn": arn}

    def _throughput_response(self, serving: ModelDeployment) -> dict[str, Any]:
        model = self._model(serving.model_arn)
        return {
            "provisionedModelName": serving.name,
            "provisionedModelArn": serving.arn,
            "modelArn": serving.model_arn,
            "desiredModelArn": serving.model_arn,
            "foundationModelArn": model.base_model_arn,
            "modelUnits": serving.units,
            "desiredModelUnits": serving.units,
            "status": self._status(serving, "InService"),
            "commitmentDuration": serving.commitment,
            "commitmentExpirationTime": self._commitment_end(serving),
            "creationTime": serving.created,
            "lastModifiedTime": _last_modified(serving),
        }

    def get_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One throughput."""
        return self._throughput_response(
            self._require_serving(self.state.throughputs, given["provisionedModelId"])
        )

    def list_provisioned_model_throughputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        shown, more = paginate(self._matching(self.state.throughputs, given, "InService"), given)
        return {"provisionedModelSummaries": [self._throughput_response(s) for s in shown], **more}

    def _commitment_end(self, serving: ModelDeployment) -> Any:
        days = COMMITMENT_DAYS.get(serving.commitment or "")
        return serving.created + timedelta(days=days) if days else None

    def update_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Another name, or another custom model of the same base."""
        with self.state.lock:
            serving = self._require_serving(self.state.throughputs, given["provisionedModelId"])
            name = given.get("desiredProvisionedModelName")
            if name and find_by_arn_or_name(self.state.throughputs, name):
                raise ServiceError("ConflictException", f"The name {name} is in use")
            if "desiredModelId" in given:
                model = self._model(given["desiredModelId"])
                if model.base_model_arn != self._model(serving.model_arn).base_model_arn:
                    raise ServiceError("ValidationException", "The model has another base model")
                serving.model_arn = model.arn
            serving.name = name or serving.name
            serving.modified = now()
        return {}

    def delete_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve no more. Raises ConflictException within a commitment."""
        with self.state.lock:
            serving = self._require_serving(self.state.throughputs, given["provisionedModelId"])
            expires = self._commitment_end(serving)
            if expires and now() < expires:
                raise ServiceError("ConflictException", "The commitment term has not ended")
            del self.state.throughputs[serving.arn]
            self.state.tags.pop(serving.arn, None)
        return {}

    def tag_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add tags."""
        with self.state.lock:
            self._require_taggable(given["resourceARN"])
            self.state.tag(given["resourceARN"], given["tags"])
        return {}

    def untag_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take tags away."""
        with self.state.lock:
            self._require_taggable(given["resourceARN"])
            for key in given["tagKeys"]:
                self.state.tags.get(given["resourceARN"], {}).pop(key, None)
        return {}

    def list_tags_for_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The tags of one thing."""
        with self.state.lock:
            self._require_taggable(given["resourceARN"])
            tags = self.state.tags.get(given["resourceARN"], {})
            return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def _require_taggable(self, arn: str) -> None:
        if not self.state.is_taggable(arn):
            raise ServiceError("ResourceNotFoundException", f"Could not find {arn}")


def _last_modified(serving: ModelDeployment) -> datetime:
    return serving.modified or serving.created
