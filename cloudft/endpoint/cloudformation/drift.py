"""CloudFormation's operations on drift: what differs from a stack's template."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from cloudft.endpoint.cloudformation.engine import StackEngine
from cloudft.endpoint.cloudformation.records import StackRecord, StackResource, now
from cloudft.endpoint.cloudformation.shapes import (
    DriftDetectionIdentifier,
    ResourceDriftsRequest,
    StackIdentifier,
)
from cloudft.endpoint.cloudformation.store import StackStore
from cloudft.endpoint.protocols.messages import Response, ServiceError


class DriftDetection:
    """Operations on drift."""

    def __init__(self, store: StackStore, engine: StackEngine) -> None:
        self.store = store
        self.engine = engine
        self.detections: dict[str, str] = {}

    def detect_stack_drift(self, request: StackIdentifier) -> Response:
        """Start a drift detection. Its resources are compared when the result is requested."""
        with self.store.state.lock:
            stack = self.store.require_stack(request["StackName"])
        identifier = str(uuid.uuid4())
        self.detections[identifier] = stack.arn
        return {"StackDriftDetectionId": identifier}

    def describe_stack_drift_detection_status(self, request: DriftDetectionIdentifier) -> Response:
        """Return the result of a drift detection."""
        identifier = request["StackDriftDetectionId"]
        if identifier not in self.detections:
            message = f"Drift detection [{identifier}] does not exist"
            raise ServiceError("ValidationError", message)
        stack = self.store.require_stack(self.detections[identifier])
        statuses = [status for _, status, _ in self._resource_drifts(stack)]
        drifted = sum(status in ("MODIFIED", "DELETED") for status in statuses)
        return {
            "StackId": stack.arn,
            "StackDriftDetectionId": identifier,
            "StackDriftStatus": "DRIFTED" if drifted else "IN_SYNC",
            "DetectionStatus": "DETECTION_COMPLETE",
            "DriftedStackResourceCount": drifted,
            "Timestamp": now(),
        }

    def describe_stack_resource_drifts(self, request: ResourceDriftsRequest) -> Response:
        """Return the drift of each resource whose type supports drift detection."""
        stack = self.store.require_stack(request["StackName"])
        statuses = request.get("StackResourceDriftStatusFilters", ())
        return {
            "StackResourceDrifts": [
                {
                    "StackId": stack.arn,
                    "LogicalResourceId": resource.logical,
                    "PhysicalResourceId": resource.physical,
                    "ResourceType": resource.type,
                    "StackResourceDriftStatus": status,
                    "PropertyDifferences": [
                        {
                            "PropertyPath": f"/{name}",
                            "ExpectedValue": str(resource.properties.get(name)),
                            "ActualValue": "another",
                            "DifferenceType": "NOT_EQUAL",
                        }
                        for name in names
                    ],
                    "Timestamp": now(),
                }
                for resource, status, names in self._resource_drifts(stack)
                if status != "NOT_CHECKED" and (not statuses or status in statuses)
            ]
        }

    def _resource_drifts(
        self, stack: StackRecord
    ) -> Iterator[tuple[StackResource, str, list[str]]]:
        """Yield each resource with its drift status and the properties that differ."""
        for resource in list(stack.pieces.values()):
            yield (resource, *self.engine.detect_drift(resource))
