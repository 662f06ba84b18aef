"""What serves a custom model: on-demand deployments and provisioned throughput; and tags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cloudft.endpoint.pages import chosen, page
from cloudft.endpoint.state import Model, Serving, State, found, now, require
from cloudft.endpoint.wire import WireError

TERMS = {"OneMonth": 30, "SixMonths": 180}
"""Days of a commitment."""


class ServingOperations:
    """The operations of deployments, throughputs and tags."""

    def __init__(self, state: State, seconds: float = 0.0) -> None:
        self.state = state
        self.creating = timedelta(seconds=seconds)

    def _model(self, identifier: str) -> Model:
        model: Model = require(self.state.models, identifier, "custom model")
        return model

    def _one(self, things: Mapping[str, Serving], identifier: str) -> Serving:
        serving: Serving = require(things, identifier, "resource")
        return serving

    def _status(self, serving: Serving, ready: str) -> str:
        return ready if now() >= _changed(serving) + self.creating else self._word(serving)

    def _word(self, serving: Serving) -> str:
        return "Creating" if serving.modified is None else "Updating"

    def create_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve on demand."""

        def make() -> Serving:
            model = self._model(given["modelArn"])
            arn = self.state.arn("custom-model-deployment")
            name = given["modelDeploymentName"]
            return Serving(arn, name, model.arn, description=given.get("description"))

        arn, _ = self.state.create("deployment", self.state.deployments, given, make)
        return {"customModelDeploymentArn": arn}

    def get_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One deployment."""
        serving = self._one(self.state.deployments, given["customModelDeploymentIdentifier"])
        return {
            "customModelDeploymentArn": serving.arn,
            "modelDeploymentName": serving.name,
            "modelArn": serving.model_arn,
            "createdAt": serving.created,
            "lastUpdatedAt": _changed(serving),
            "status": "Creating" if self._fresh(serving) else "Active",
            "updateDetails": self._update(serving),
            "description": serving.description,
        }

    def _fresh(self, serving: Serving) -> bool:
        return self._status(serving, "Active") == "Creating"

    def _update(self, serving: Serving) -> dict[str, Any] | None:
        if serving.modified is None:
            return None
        word = self._status(serving, "UpdateCompleted")
        return {"modelArn": serving.model_arn, "updateStatus": word}

    def update_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Put another model behind the same deployment."""
        with self.state.lock:
            identifier = given["customModelDeploymentIdentifier"]
            serving = self._one(self.state.deployments, identifier)
            serving.model_arn = self._model(given["modelArn"]).arn
            serving.modified = now()
        return {"customModelDeploymentArn": serving.arn}

    def list_custom_model_deployments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        shown, more = page(self._wanted(self.state.deployments, given, "Active"), given)
        summaries = [
            {
                "customModelDeploymentArn": serving.arn,
                "customModelDeploymentName": serving.name,
                "modelArn": serving.model_arn,
                "createdAt": serving.created,
                "status": "Creating" if self._fresh(serving) else "Active",
                "lastUpdatedAt": _changed(serving),
            }
            for serving in shown
        ]
        return {"modelDeploymentSummaries": summaries, **more}

    def _wanted(
        self, things: Mapping[str, Serving], given: Mapping[str, Any], ready: str
    ) -> list[Serving]:
        with self.state.lock:
            return [
                thing
                for thing in chosen(things.values(), given)
                if given.get("modelArnEquals", thing.model_arn) == thing.model_arn
                and given.get("statusEquals") in (None, self._status(thing, ready))
            ]

    def delete_custom_model_deployment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve no more; the model stays."""
        with self.state.lock:
            identifier = given["customModelDeploymentIdentifier"]
            serving = self._one(self.state.deployments, identifier)
            del self.state.deployments[serving.arn]
            self.state.tags.pop(serving.arn, None)
        return {}

    def create_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve by the hour."""

        def make() -> Serving:
            return Serving(
                self.state.arn("provisioned-model"),
                given["provisionedModelName"],
                self._model(given["modelId"]).arn,
                units=given["modelUnits"],
                commitment=given.get("commitmentDuration"),
            )

        arn, _ = self.state.create("throughput", self.state.throughputs, given, make)
        return {"provisionedModelArn": arn}

    def _throughput(self, serving: Serving) -> dict[str, Any]:
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
            "commitmentExpirationTime": self._expires(serving),
            "creationTime": serving.created,
            "lastModifiedTime": _changed(serving),
        }

    def get_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One throughput."""
        return self._throughput(self._one(self.state.throughputs, given["provisionedModelId"]))

    def list_provisioned_model_throughputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        shown, more = page(self._wanted(self.state.throughputs, given, "InService"), given)
        return {"provisionedModelSummaries": [self._throughput(s) for s in shown], **more}

    def _expires(self, serving: Serving) -> Any:
        days = TERMS.get(serving.commitment or "")
        return serving.created + timedelta(days=days) if days else None

    def update_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Another name, or another custom model of the same base."""
        with self.state.lock:
            serving = self._one(self.state.throughputs, given["provisionedModelId"])
            name = given.get("desiredProvisionedModelName")
            if name and found(self.state.throughputs, name):
                raise WireError("ConflictException", f"The name {name} is in use")
            if "desiredModelId" in given:
                model = self._model(given["desiredModelId"])
                if model.base_model_arn != self._model(serving.model_arn).base_model_arn:
                    raise WireError("ValidationException", "The model has another base model")
                serving.model_arn = model.arn
            serving.name = name or serving.name
            serving.modified = now()
        return {}

    def delete_provisioned_model_throughput(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Serve no more. Raises ConflictException within a commitment."""
        with self.state.lock:
            serving = self._one(self.state.throughputs, given["provisionedModelId"])
            expires = self._expires(serving)
            if expires and now() < expires:
                raise WireError("ConflictException", "The commitment term has not ended")
            del self.state.throughputs[serving.arn]
            self.state.tags.pop(serving.arn, None)
        return {}

    def tag_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add tags."""
        with self.state.lock:
            self._require(given["resourceARN"])
            self.state.tag(given["resourceARN"], given["tags"])
        return {}

    def untag_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take tags away."""
        with self.state.lock:
            self._require(given["resourceARN"])
            for key in given["tagKeys"]:
                self.state.tags.get(given["resourceARN"], {}).pop(key, None)
        return {}

    def list_tags_for_resource(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The tags of one thing."""
        with self.state.lock:
            self._require(given["resourceARN"])
            tags = self.state.tags.get(given["resourceARN"], {})
            return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def _require(self, arn: str) -> None:
        if not self.state.taggable(arn):
            raise WireError("ResourceNotFoundException", f"Could not find {arn}")


def _changed(serving: Serving) -> datetime:
    return serving.modified or serving.created
