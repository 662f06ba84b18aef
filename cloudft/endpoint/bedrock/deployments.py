"""On-demand deployments and provisioned throughput of custom models, and tags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.shapes import (
    CreateDeploymentRequest,
    CreateThroughputRequest,
    DeploymentIdentifier,
    ListServingRequest,
    ResourceArn,
    TagResourceRequest,
    ThroughputIdentifier,
    UntagResourceRequest,
    UpdateDeploymentRequest,
    UpdateThroughputRequest,
)
from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.service_quotas import require_quota_for
from cloudft.endpoint.state import (
    Model,
    ModelDeployment,
    State,
    find_by_arn_or_name,
    now,
    require_resource,
)

COMMITMENT_DAYS = {"OneMonth": 30, "SixMonths": 180}
"""Length of a commitment term, in days."""
UPDATE_PHASE = "updateDetails"
"""The operation of a fault that makes an update fail."""


class Deployments:
    """Operations on deployments, provisioned throughput and tags.

    A new or changed deployment becomes ready after `seconds`; until then an updated one serves the
    model that it served before. The status is computed from the time of the last change whenever it
    is read: there is no timer to lose in a restart.
    """

    def __init__(
        self,
        state: State,
        foundation: FoundationModels,
        seconds: float = 0.0,
        faults: FaultInjector | None = None,
    ) -> None:
        self.state = state
        self.foundation = foundation
        self.creation_time = timedelta(seconds=seconds)
        self.faults = faults or FaultInjector()

    def _model(self, identifier: str) -> Model:
        model: Model = require_resource(self.state.models, identifier, "custom model")
        if model.status != "Active":
            raise ServiceError("ValidationException", f"The model is {model.status}")
        return model

    def is_ready(self, deployment: ModelDeployment) -> bool:
        """Return whether a deployment answers: not while it is made for the first time."""
        return self._status(deployment, "ready") != "Creating"

    def _require_serving(
        self, deployments: Mapping[str, ModelDeployment], identifier: str
    ) -> ModelDeployment:
        deployment: ModelDeployment = require_resource(deployments, identifier, "resource")
        return deployment

    def _status(self, deployment: ModelDeployment, ready: str) -> str:
        if now() >= _last_modified(deployment) + self.creation_time:
            return ready
        return self._pending_status(deployment)

    def _pending_status(self, deployment: ModelDeployment) -> str:
        return "Creating" if deployment.modified is None else "Updating"

    def create_custom_model_deployment(self, request: CreateDeploymentRequest) -> Response:
        """Deploy a custom model on demand."""

        def make() -> ModelDeployment:
            model = self._model(request["modelArn"])
            name = request["modelDeploymentName"]
            self._require_quota(name)
            arn = self.state.arn("custom-model-deployment")
            return ModelDeployment(arn, name, model.arn, description=request.get("description"))

        arn, _ = self.state.create("deployment", self.state.deployments, request, make)
        return {"customModelDeploymentArn": arn}

    def _require_quota(self, name: str) -> None:
        """Raise ServiceError where there may be no further deployment of a new name."""
        deployments = self.state.deployments
        if find_by_arn_or_name(deployments, name):
            return  # the name is in use: that is the error
        require_quota_for(self.state, "deployments", len(deployments))
        creating = sum(self._is_creating(deployment) for deployment in deployments.values())
        require_quota_for(self.state, "creating-deployments", creating)

    def get_custom_model_deployment(self, request: DeploymentIdentifier) -> Response:
        """Return one deployment."""
        identifier = request["customModelDeploymentIdentifier"]
        deployment = self._require_serving(self.state.deployments, identifier)
        return {
            "customModelDeploymentArn": deployment.arn,
            "modelDeploymentName": deployment.name,
            "modelArn": deployment.served_model_arn,
            "createdAt": deployment.created,
            "lastUpdatedAt": _last_modified(deployment),
            "status": "Creating" if self._is_creating(deployment) else "Active",
            "updateDetails": self._update_details(deployment),
            "description": deployment.description,
        }

    def _is_creating(self, deployment: ModelDeployment) -> bool:
        return self._status(deployment, "Active") == "Creating"

    def _update_details(self, deployment: ModelDeployment) -> Response | None:
        if deployment.desired_model_arn is None:
            return None
        status = "UpdateFailed" if deployment.update_failure else "UpdateCompleted"
        status = "Updating" if deployment.is_updating else status
        return {"modelArn": deployment.desired_model_arn, "updateStatus": status}

    def update_custom_model_deployment(self, request: UpdateDeploymentRequest) -> Response:
        """Replace the model of a deployment."""
        with self.state.lock:
            identifier = request["customModelDeploymentIdentifier"]
            deployment = self._require_serving(self.state.deployments, identifier)
            arn = self._model(request["modelArn"]).arn
            self._require_not_pending(deployment)
            self._begin_update(deployment, arn)
        return {"customModelDeploymentArn": deployment.arn}

    def _require_not_pending(self, deployment: ModelDeployment) -> None:
        """Raise ServiceError (ValidationException) while a deployment is made or updated.

        Source, for provisioned throughput: Bedrock user guide, "Modify a Provisioned Throughput".
        The service model lists no conflict among the errors of either update.
        """
        status = self._status(deployment, "ready")
        if status != "ready":
            raise ServiceError("ValidationException", f"The resource is {status}")

    def _begin_update(self, deployment: ModelDeployment, model_arn: str) -> None:
        """Have a deployment serve another model, from the end of the update on."""
        fault = self.faults.take_due_fault(UPDATE_PHASE)
        is_failing = fault is not None and fault.do == "fail"
        deployment.model_arn = deployment.served_model_arn
        deployment.desired_model_arn = model_arn
        deployment.modified = now()
        deployment.update_ends = deployment.modified + self.creation_time
        deployment.update_failure = fault.message if fault and is_failing else None

    def list_custom_model_deployments(self, request: ListServingRequest) -> Response:
        """Return summaries of the deployments, paginated."""
        shown, next_page = paginate(
            self._matching(self.state.deployments, request, "Active"), request
        )
        summaries = [
            {
                "customModelDeploymentArn": deployment.arn,
                "customModelDeploymentName": deployment.name,
                "modelArn": deployment.served_model_arn,
                "createdAt": deployment.created,
                "status": "Creating" if self._is_creating(deployment) else "Active",
                "lastUpdatedAt": _last_modified(deployment),
            }
            for deployment in shown
        ]
        return {"modelDeploymentSummaries": summaries, **next_page}

    def _matching(
        self, deployments: Mapping[str, ModelDeployment], request: ListServingRequest, ready: str
    ) -> list[ModelDeployment]:
        with self.state.lock:
            return [
                deployment
                for deployment in filter_by_name_and_time(deployments.values(), request)
                if request.get("modelArnEquals") in (None, deployment.served_model_arn)
                and request.get("statusEquals") in (None, self._list_status(deployment, ready))
            ]

    def _list_status(self, deployment: ModelDeployment, ready: str) -> str:
        # Provisioned throughput alone has units: a deployment whose update failed is Active.
        return self._status(
            deployment, self._final_status(deployment) if deployment.units else ready
        )

    def delete_custom_model_deployment(self, request: DeploymentIdentifier) -> Response:
        """Delete a deployment; the model stays."""
        with self.state.lock:
            identifier = request["customModelDeploymentIdentifier"]
            deployment = self._require_serving(self.state.deployments, identifier)
            del self.state.deployments[deployment.arn]
            self.state.tags.pop(deployment.arn, None)
        return {}

    def create_provisioned_model_throughput(self, request: CreateThroughputRequest) -> Response:
        """Deploy a custom model on provisioned throughput."""

        def make() -> ModelDeployment:
            model_arn = self._provisioned_model_arn(request["modelId"])
            self._require_active_base(model_arn)
            return ModelDeployment(
                self.state.arn("provisioned-model"),
                request["provisionedModelName"],
                model_arn,
                units=request["modelUnits"],
                commitment=request.get("commitmentDuration"),
            )

        arn, _ = self.state.create("throughput", self.state.throughputs, request, make)
        return {"provisionedModelArn": arn}

    def _provisioned_model_arn(self, identifier: str) -> str:
        """Return the ARN of what throughput is bought for: a custom model, or a base model."""
        if ":custom-model/" in identifier or not self.foundation.is_offered(identifier):
            self.foundation.raise_if_ended(identifier)
            return self._model(identifier).arn
        base = self.foundation.find_model(identifier)
        return self.foundation.arn_of(base.identifier)

    def _require_active_base(self, arn: str) -> None:
        """Raise ServiceError for new throughput of a model, or of a tuned one, that is Legacy."""
        model = self.state.models.get(arn)
        base = model.base_model_arn if model else arn
        if base:  # a model that CreateCustomModel made has none
            self.foundation.require_active(self.foundation.find_model(base))

    def _base_model_arn(self, throughput: ModelDeployment) -> str:
        model = self.state.models.get(throughput.served_model_arn)
        return model.base_model_arn if model else throughput.served_model_arn

    def _throughput_response(self, throughput: ModelDeployment) -> Response:
        return {
            "provisionedModelName": throughput.name,
            "provisionedModelArn": throughput.arn,
            "modelArn": throughput.served_model_arn,
            "desiredModelArn": throughput.desired_model_arn or throughput.model_arn,
            "foundationModelArn": self._base_model_arn(throughput),
            "modelUnits": throughput.units,
            "desiredModelUnits": throughput.units,
            "status": self._status(throughput, self._final_status(throughput)),
            "commitmentDuration": throughput.commitment,
            "commitmentExpirationTime": self._commitment_end(throughput),
            "creationTime": throughput.created,
            "lastModifiedTime": _last_modified(throughput),
        }

    def _final_status(self, throughput: ModelDeployment) -> str:
        """Return its status when nothing is under way.

        Source of Failed after a failed update: Bedrock user guide, "Modify a Provisioned
        Throughput".
        """
        return "Failed" if throughput.update_failure else "InService"

    def get_provisioned_model_throughput(self, request: ThroughputIdentifier) -> Response:
        """Return one provisioned throughput."""
        throughput = self._require_serving(self.state.throughputs, request["provisionedModelId"])
        failure = None if throughput.is_updating else throughput.update_failure
        return {**self._throughput_response(throughput), "failureMessage": failure}

    def list_provisioned_model_throughputs(self, request: ListServingRequest) -> Response:
        """Return summaries of provisioned throughput, paginated."""
        matching = self._matching(self.state.throughputs, request, "InService")
        shown, next_page = paginate(matching, request)
        summaries = [self._throughput_response(throughput) for throughput in shown]
        return {"provisionedModelSummaries": summaries, **next_page}

    def _commitment_end(self, throughput: ModelDeployment) -> datetime | None:
        days = COMMITMENT_DAYS.get(throughput.commitment or "")
        return throughput.created + timedelta(days=days) if days else None

    def update_provisioned_model_throughput(self, request: UpdateThroughputRequest) -> Response:
        """Rename provisioned throughput, or replace its model by another of the same base."""
        with self.state.lock:
            identifier = request["provisionedModelId"]
            throughput = self._require_serving(self.state.throughputs, identifier)
            name = request.get("desiredProvisionedModelName")
            if name and find_by_arn_or_name(self.state.throughputs, name):
                raise ServiceError("ConflictException", f"The name {name} is in use")
            self._require_not_pending(throughput)
            if "desiredModelId" in request:
                self._begin_update(
                    throughput, self._replacement(throughput, request["desiredModelId"])
                )
            throughput.name = name or throughput.name
            throughput.modified = now()
        return {}

    def _replacement(self, throughput: ModelDeployment, identifier: str) -> str:
        """Return the ARN of the model that throughput is to serve: a custom model or its base.

        Raises ServiceError (ValidationException) for throughput of a base model, whose model can't
        be changed (botocore's documentation of `desiredModelId`).
        """
        base = self._base_model_arn(throughput)
        if throughput.served_model_arn == base:
            message = "The model of provisioned throughput for a base model can't be changed"
            raise ServiceError("ValidationException", message)
        arn = self._provisioned_model_arn(identifier)
        model = self.state.models.get(arn)
        if (model.base_model_arn if model else arn) != base:
            raise ServiceError("ValidationException", "The model has another base model")
        return arn

    def delete_provisioned_model_throughput(self, request: ThroughputIdentifier) -> Response:
        """Delete provisioned throughput. Raises ConflictException within a commitment term.

        The same while it is being updated: Bedrock user guide, "Modify a Provisioned Throughput".
        """
        with self.state.lock:
            identifier = request["provisionedModelId"]
            throughput = self._require_serving(self.state.throughputs, identifier)
            if self._status(throughput, "ready") == "Updating":
                raise ServiceError("ConflictException", "The provisioned throughput is Updating")
            end = self._commitment_end(throughput)
            if end and now() < end:
                raise ServiceError("ConflictException", "The commitment term has not ended")
            del self.state.throughputs[throughput.arn]
            self.state.tags.pop(throughput.arn, None)
        return {}

    def tag_resource(self, request: TagResourceRequest) -> Response:
        """Add tags to a resource."""
        with self.state.lock:
            self._require_taggable(request["resourceARN"])
            self.state.tag(request["resourceARN"], request["tags"])
        return {}

    def untag_resource(self, request: UntagResourceRequest) -> Response:
        """Remove tags from a resource."""
        with self.state.lock:
            self._require_taggable(request["resourceARN"])
            for key in request["tagKeys"]:
                self.state.tags.get(request["resourceARN"], {}).pop(key, None)
        return {}

    def list_tags_for_resource(self, request: ResourceArn) -> Response:
        """Return the tags of a resource."""
        with self.state.lock:
            self._require_taggable(request["resourceARN"])
            tags = self.state.tags.get(request["resourceARN"], {})
            return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}

    def _require_taggable(self, arn: str) -> None:
        if not self.state.is_taggable(arn):
            raise ServiceError("ResourceNotFoundException", f"Could not find {arn}")


def _last_modified(deployment: ModelDeployment) -> datetime:
    return deployment.modified or deployment.created
