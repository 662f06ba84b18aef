"""CloudFormation's operations on stacks and their resources."""

from __future__ import annotations

import threading

from cloudft.endpoint.cloudformation.records import StackRecord, now
from cloudft.endpoint.cloudformation.responses import (
    event_response,
    resource_response,
    stack_response,
)
from cloudft.endpoint.cloudformation.shapes import (
    CreateStackRequest,
    DeleteStackRequest,
    DescribeStacksRequest,
    GetTemplateRequest,
    ListStacksRequest,
    StackIdentifier,
    StackResourceIdentifier,
    StackResourcesRequest,
    TerminationProtectionRequest,
    UpdateStackRequest,
)
from cloudft.endpoint.cloudformation.stack_operations import StackOperations
from cloudft.endpoint.protocols.messages import Response, ServiceError


class Stacks:
    """Operations on stacks."""

    def __init__(self, operations: StackOperations) -> None:
        self.operations = operations
        self.store = operations.store
        self.state = operations.store.state

    def resume(self) -> None:
        """Mark the operations that were running when the endpoint ended as failed."""
        # Unlike a training, an interrupted stack operation is not continued: nobody knows which of
        # its calls arrived. The user deploys again, or deletes the stack.
        with self.state.lock:
            for stack in self.state.stacks.values():
                if stack.is_in_progress:
                    failed = stack.status.replace("IN_PROGRESS", "FAILED")
                    stack.record_status(failed, "The endpoint ended during the operation")

    def create_stack(self, request: CreateStackRequest) -> Response:
        """Start to create a stack. The same token creates it once."""
        on_failure = _choose_on_failure(request)
        text = self.operations.read_template(request)
        with self.state.lock:
            known = self.store.find_stack(request["StackName"])
            if known is not None:
                if _has_started(known, "CREATE_IN_PROGRESS", request.get("ClientRequestToken")):
                    return {"StackId": known.arn}
                message = f"Stack [{known.name}] already exists"
                raise ServiceError("AlreadyExistsException", message)
            stack, change_set = self.operations.plan(request, "CREATE", text)
            change_set.on_failure = on_failure
            stack.protected = bool(request.get("EnableTerminationProtection"))
            self.state.stacks[stack.arn] = stack
            self.operations.start(stack, change_set, request.get("ClientRequestToken"))
        return {"StackId": stack.arn}

    def update_stack(self, request: UpdateStackRequest) -> Response:
        """Start to update a stack. The same token updates it once."""
        text = self.operations.read_template(request)
        token = request.get("ClientRequestToken")
        with self.state.lock:
            known = self.store.find_stack(request["StackName"])
            if known is not None and _has_started(known, "UPDATE_IN_PROGRESS", token):
                return {"StackId": known.arn}
            stack, change_set = self.operations.plan(request, "UPDATE", text)
            if change_set.execution != "AVAILABLE":
                raise ServiceError("ValidationError", "No updates are to be performed.")
            if request.get("DisableRollback"):
                change_set.on_failure = "DO_NOTHING"
            self.operations.start(stack, change_set, token)
        return {"StackId": stack.arn}

    def describe_stacks(self, request: DescribeStacksRequest) -> Response:
        """Return existing stacks, or one; a deleted stack is found by its ARN only."""
        with self.state.lock:
            if "StackName" in request:
                stack = self.store.require_stack(request["StackName"])
                return {"Stacks": [stack_response(stack)]}
            existing = [s for s in self.state.stacks.values() if not s.is_deleted]
            return {"Stacks": [stack_response(stack) for stack in existing]}

    def list_stacks(self, request: ListStacksRequest) -> Response:
        """Return all stacks, deleted ones included, newest first."""
        statuses = request.get("StackStatusFilter", ())
        with self.state.lock:
            stacks = sorted(self.state.stacks.values(), key=lambda s: s.created, reverse=True)
            return {
                "StackSummaries": [
                    {
                        "StackId": stack.arn,
                        "StackName": stack.name,
                        "TemplateDescription": stack.description,
                        "CreationTime": stack.created,
                        "LastUpdatedTime": stack.updated,
                        "DeletionTime": stack.deleted,
                        "StackStatus": stack.status,
                        "StackStatusReason": stack.reason,
                    }
                    for stack in stacks
                    if not statuses or stack.status in statuses
                ]
            }

    def describe_stack_events(self, request: StackIdentifier) -> Response:
        """Return the events of a stack, newest first."""
        with self.state.lock:
            stack = self.store.require_stack(request["StackName"])
            events = [event_response(stack, event) for event in reversed(stack.events)]
        return {"StackEvents": events}

    def list_stack_resources(self, request: StackIdentifier) -> Response:
        """Return the resources of a stack, also of a deleted one."""
        with self.state.lock:
            stack = self.store.require_stack(request["StackName"])
            resources = [resource_response(stack, r) for r in stack.pieces.values()]
        return {"StackResourceSummaries": resources}

    def describe_stack_resource(self, request: StackResourceIdentifier) -> Response:
        """Return one resource of a stack."""
        logical = request["LogicalResourceId"]
        with self.state.lock:
            stack = self.store.require_stack(request["StackName"])
            if logical not in stack.pieces:
                message = f"Resource {logical} does not exist for stack {stack.name}"
                raise ServiceError("ValidationError", message)
            return {"StackResourceDetail": resource_response(stack, stack.pieces[logical])}

    def describe_stack_resources(self, request: StackResourcesRequest) -> Response:
        """Return the resources of the stack that is named, or that has a physical resource."""
        physical, logical = request.get("PhysicalResourceId"), request.get("LogicalResourceId")
        with self.state.lock:
            if "StackName" in request:
                stack = self.store.require_stack(request["StackName"])
            else:
                stack = self._stack_with_resource(physical)
            resources = [
                resource_response(stack, resource)
                for name, resource in stack.pieces.items()
                if logical in (None, name)
            ]
        return {"StackResources": resources}

    def _stack_with_resource(self, physical: str | None) -> StackRecord:
        if physical is None:
            what = "Either StackName or PhysicalResourceId must be specified."
            raise ServiceError("ValidationError", what)
        for stack in self.state.stacks.values():
            if any(physical == resource.physical for resource in stack.pieces.values()):
                return stack
        raise ServiceError("ValidationError", f"Stack for {physical} does not exist")

    def get_template(self, request: GetTemplateRequest) -> Response:
        """Return the template as it was sent: a stack's, or a change set's."""
        name = request.get("StackName")
        with self.state.lock:
            if "ChangeSetName" in request:
                text = self.store.require_change_set(request["ChangeSetName"], name).template
            elif name is not None:
                text = self.store.require_stack(name).template
            else:
                what = "Either StackName or ChangeSetName must be specified."
                raise ServiceError("ValidationError", what)
        return {"TemplateBody": text, "StagesAvailable": ["Original", "Processed"]}

    def update_termination_protection(self, request: TerminationProtectionRequest) -> Response:
        """Turn termination protection on or off."""
        with self.state.lock:
            stack = self.store.require_stack(request["StackName"])
            stack.protected = bool(request["EnableTerminationProtection"])
            self.state.save()
        return {"StackId": stack.arn}

    def delete_stack(self, request: DeleteStackRequest) -> Response:
        """Start to delete a stack. A stack that does not exist is no error, as on AWS."""
        if request.get("DeletionMode", "STANDARD") != "STANDARD":
            message = f"{request['DeletionMode']} is not offered by this endpoint"
            raise ServiceError("ValidationError", message)
        retained, token = set(request.get("RetainResources", ())), request.get("ClientRequestToken")
        with self.state.lock:
            stack = self.store.find_stack(request["StackName"])
            if stack is None or stack.is_in_progress or stack.is_deleted:
                return {}
            _require_deletable(stack, retained)
            stack.record_status("DELETE_IN_PROGRESS", "User Initiated", token)
            stack.deleted = now()
            self.state.save()
        work = threading.Thread(
            target=self.operations.engine.delete, args=(stack, token, retained), daemon=True
        )
        work.start()
        return {}


def _choose_on_failure(request: CreateStackRequest) -> str:
    """Return what a failure does: ROLLBACK, DO_NOTHING or DELETE."""
    if "DisableRollback" in request and "OnFailure" in request:
        what = "You can specify either DisableRollback or OnFailure, but not both."
        raise ServiceError("ValidationError", what)
    return "DO_NOTHING" if request.get("DisableRollback") else request.get("OnFailure", "ROLLBACK")


def _has_started(stack: StackRecord, status: str, token: str | None) -> bool:
    """Return whether a request with that token started an operation of the stack before."""
    return token is not None and any(
        event.token == token and event.status == status and event.physical == stack.arn
        for event in stack.events
    )


def _require_deletable(stack: StackRecord, retained: set[str]) -> None:
    """Raise ServiceError for a protected stack, and for resources that can't be retained."""
    if stack.protected:
        what = f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
        raise ServiceError("ValidationError", what)
    failed = {r.logical for r in stack.pieces.values() if r.status == "DELETE_FAILED"}
    if retained and not (stack.status == "DELETE_FAILED" and retained <= failed):
        what = "Invalid operation on stack: RetainResources are for resources in DELETE_FAILED"
        raise ServiceError("ValidationError", f"{what}, of a stack in DELETE_FAILED")
