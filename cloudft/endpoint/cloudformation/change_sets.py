"""CloudFormation's operations on change sets."""

from __future__ import annotations

from cloudft.endpoint.cloudformation.records import ChangeSetRecord
from cloudft.endpoint.cloudformation.responses import change_response, key_value_list
from cloudft.endpoint.cloudformation.shapes import (
    ChangeSetIdentifier,
    CreateChangeSetRequest,
    ExecuteChangeSetRequest,
    StackIdentifier,
)
from cloudft.endpoint.cloudformation.stack_operations import StackOperations
from cloudft.endpoint.protocols.messages import Response, ServiceError


class ChangeSets:
    """Operations on change sets."""

    def __init__(self, operations: StackOperations) -> None:
        self.operations = operations
        self.store = operations.store
        self.state = operations.store.state

    def create_change_set(self, request: CreateChangeSetRequest) -> Response:
        """Compute what a template would change. A first change set creates an empty stack."""
        kind = request.get("ChangeSetType", "UPDATE")
        if kind == "IMPORT":
            raise ServiceError("ValidationError", "IMPORT is not offered by this endpoint")
        text = self.operations.read_template(request)
        with self.state.lock:
            existing = self._existing_change_set(request)
            if existing is not None:
                return {"Id": existing.arn, "StackId": existing.stack}
            stack, change_set = self.operations.plan(request, kind, text)
            change_set.name = request["ChangeSetName"]
            change_set.arn = self.store.new_arn("changeSet", change_set.name)
            change_set.token = request.get("ClientToken")
            change_set.description = request.get("Description")
            change_set.on_failure = request.get("OnStackFailure", "ROLLBACK")
            self.state.stacks[stack.arn] = stack
            self.state.change_sets[change_set.arn] = change_set
            self.state.save()
        return {"Id": change_set.arn, "StackId": stack.arn}

    def _existing_change_set(self, request: CreateChangeSetRequest) -> ChangeSetRecord | None:
        """Return the change set that the same token created. Raises AlreadyExistsException."""
        stack = self.store.find_stack(request["StackName"])
        for known in self.state.change_sets.values():
            if stack and known.stack == stack.arn and known.name == request["ChangeSetName"]:
                if known.token and known.token == request.get("ClientToken"):
                    return known
                what = f"ChangeSet {known.name} cannot be created as it already exists"
                raise ServiceError("AlreadyExistsException", what)
        return None

    def _require(self, request: ChangeSetIdentifier) -> ChangeSetRecord:
        return self.store.require_change_set(request["ChangeSetName"], request.get("StackName"))

    def describe_change_set(self, request: ChangeSetIdentifier) -> Response:
        """Return one change set, all of it on one page."""
        with self.state.lock:
            change_set = self._require(request)
            stack = self.state.stacks[change_set.stack]
            changes = [
                {"Type": "Resource", "ResourceChange": change_response(change)}
                for change in change_set.changes
            ]
            return {
                "ChangeSetId": change_set.arn,
                "ChangeSetName": change_set.name,
                "StackId": change_set.stack,
                "StackName": stack.name,
                "Description": change_set.description,
                "CreationTime": change_set.created,
                "Parameters": key_value_list("Parameter", change_set.parameters),
                "Tags": [{"Key": key, "Value": value} for key, value in change_set.tags.items()],
                "Status": change_set.status,
                "StatusReason": change_set.reason,
                "ExecutionStatus": change_set.execution,
                "OnStackFailure": change_set.on_failure,
                "Changes": changes,
            }

    def execute_change_set(self, request: ExecuteChangeSetRequest) -> Response:
        """Start to create or update the stack. Raises InvalidChangeSetStatus."""
        with self.state.lock:
            change_set = self._require(request)
            if change_set.execution != "AVAILABLE":
                what = f"ChangeSet [{change_set.arn}] cannot be executed in its current status"
                raise ServiceError("InvalidChangeSetStatus", f"{what} of [{change_set.status}]")
            if request.get("DisableRollback"):
                change_set.on_failure = "DO_NOTHING"
            stack = self.state.stacks[change_set.stack]
            self.operations.start(stack, change_set, request.get("ClientRequestToken"))
        return {}

    def list_change_sets(self, request: StackIdentifier) -> Response:
        """Return the change sets of a stack."""
        with self.state.lock:
            stack = self.store.require_stack(request["StackName"])
            return {
                "Summaries": [
                    {
                        "StackId": stack.arn,
                        "StackName": stack.name,
                        "ChangeSetId": change_set.arn,
                        "ChangeSetName": change_set.name,
                        "Description": change_set.description,
                        "ExecutionStatus": change_set.execution,
                        "Status": change_set.status,
                        "StatusReason": change_set.reason,
                        "CreationTime": change_set.created,
                    }
                    for change_set in self.state.change_sets.values()
                    if change_set.stack == stack.arn
                ]
            }

    def delete_change_set(self, request: ChangeSetIdentifier) -> Response:
        """Delete a change set. The empty stack of a first one stays, as on AWS."""
        with self.state.lock:
            del self.state.change_sets[self._require(request).arn]
        return {}
