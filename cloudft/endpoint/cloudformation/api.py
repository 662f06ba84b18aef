"""CloudFormation's operations on change sets, their stacks, and drift."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator

from cloudft.endpoint.cloudformation.engine import StackEngine
from cloudft.endpoint.cloudformation.records import ChangeSetRecord, StackRecord, StackResource, now
from cloudft.endpoint.cloudformation.responses import (
    change_response,
    key_value_list,
    resource_response,
    stack_response,
)
from cloudft.endpoint.cloudformation.shapes import (
    ChangeSetIdentifier,
    CreateChangeSetRequest,
    DeleteStackRequest,
    DescribeStacksRequest,
    DriftDetectionIdentifier,
    ExecuteChangeSetRequest,
    ListStacksRequest,
    ResourceDriftsRequest,
    StackIdentifier,
    TerminationProtectionRequest,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import ACCOUNT, State
from cloudft.infra.intrinsics import ResolveError
from cloudft.infra.template import (
    MAX_BODY_BYTES,
    find_parameter_errors,
    parse_parameters,
    parse_template,
)

NO_CHANGES = (
    "The submitted information didn't contain changes. Submit different information to create a"
    " change set."
)
UPDATABLE_STATUSES = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"}


class CloudFormation:
    """Operations on the stacks and change sets of one Region."""

    def __init__(self, state: State, engine: StackEngine) -> None:
        self.state = state
        self.engine = engine
        self.drift_detections: dict[str, str] = {}

    def resume(self) -> None:
        """Mark the operations that were running when the endpoint ended as failed."""
        # Unlike a training, an interrupted stack operation is not continued: nobody knows which of
        # its calls arrived. The user deploys again, or deletes the stack.
        with self.state.lock:
            for stack in self.state.stacks.values():
                if stack.is_in_progress:
                    failed = stack.status.replace("IN_PROGRESS", "FAILED")
                    stack.record_status(failed, "The endpoint ended during the operation")

    def create_change_set(self, request: CreateChangeSetRequest) -> Response:
        """Compute what a template would change. A first change set creates an empty stack."""
        with self.state.lock:
            kind, name = request.get("ChangeSetType", "UPDATE"), request["StackName"]
            existing = self._existing_change_set(request)
            if existing is not None:
                return {"Id": existing.arn, "StackId": existing.stack}
            stack = self._stack_for_change_set(kind, name)
            text = self._template_text(request, stack)
            values = self._parameter_values(request, stack)
            self._validate_template(request, stack, text, values)
            change_set = self._build_change_set(request, stack, kind, text, values)
            self.state.stacks[stack.arn] = stack
            self.state.change_sets[change_set.arn] = change_set
            self.state.save()
        return {"Id": change_set.arn, "StackId": stack.arn}

    def _existing_change_set(self, request: CreateChangeSetRequest) -> ChangeSetRecord | None:
        """Return the change set that the same token created. Raises AlreadyExistsException."""
        stack = self._find_stack(request["StackName"])
        for known in self.state.change_sets.values():
            if stack and known.stack == stack.arn and known.name == request["ChangeSetName"]:
                if known.token and known.token == request.get("ClientToken"):
                    return known
                what = f"ChangeSet {known.name} cannot be created as it already exists"
                raise ServiceError("AlreadyExistsException", what)
        return None

    def _stack_for_change_set(self, kind: str, name: str) -> StackRecord:
        """Return the stack to change, a new one for CREATE. Raises ServiceError."""
        stack = self._find_stack(name)
        if kind == "CREATE":
            if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
                raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
            return stack or StackRecord(self._new_arn("stack", name), name)
        if stack is None or stack.status == "REVIEW_IN_PROGRESS":
            raise ServiceError("ValidationError", f"Stack [{name}] does not exist")
        if stack.status not in UPDATABLE_STATUSES:
            what = f"Stack:{stack.arn} is in {stack.status} state and can not be updated."
            raise ServiceError("ValidationError", what)
        return stack

    def _template_text(self, request: CreateChangeSetRequest, stack: StackRecord) -> str:
        if request.get("UsePreviousTemplate"):
            return stack.template
        if "TemplateBody" not in request:
            raise ServiceError(
                "ValidationError", "TemplateBody is required: this endpoint reads no TemplateURL."
            )
        text = str(request["TemplateBody"])
        if len(text.encode()) > MAX_BODY_BYTES:
            raise ServiceError(
                "ValidationError",
                "1 validation error detected: Value at 'templateBody' failed to satisfy constraint:"
                f" Member must have length less than or equal to {MAX_BODY_BYTES}",
            )
        return text

    def _parameter_values(
        self, request: CreateChangeSetRequest, stack: StackRecord
    ) -> dict[str, str]:
        """Return the parameters of the request: new values and previous ones."""
        values = {}
        for parameter in request.get("Parameters", ()):
            key = parameter["ParameterKey"]
            previous = parameter.get("UsePreviousValue") and key in stack.parameters
            values[key] = stack.parameters[key] if previous else parameter.get("ParameterValue", "")
        return values

    def _validate_template(
        self,
        request: CreateChangeSetRequest,
        stack: StackRecord,
        text: str,
        values: dict[str, str],
    ) -> None:
        """Raise ServiceError for a template, parameters or capabilities that AWS would refuse."""
        try:
            template = parse_template(text)
            problems = [*find_parameter_errors(template, values)]
            if not problems:
                scope = self.engine.scope(stack, template, values)
                problems = [*scope.failed_rules()]
                types = {resource["Type"] for resource in scope.active_resources().values()}
        except (ResolveError, ValueError, KeyError) as error:
            raise ServiceError("ValidationError", f"Template format error: {error}") from error
        if problems:
            raise ServiceError("ValidationError", "; ".join(problems))
        capabilities = set(request.get("Capabilities", ()))
        if any(t.startswith("AWS::IAM::") for t in types) and not capabilities:
            what = "Requires capabilities : [CAPABILITY_IAM]"
            raise ServiceError("InsufficientCapabilitiesException", what)

    def _build_change_set(
        self,
        request: CreateChangeSetRequest,
        stack: StackRecord,
        kind: str,
        text: str,
        values: dict[str, str],
    ) -> ChangeSetRecord:
        declared = parse_parameters(parse_template(text))
        parameters = {name: values.get(name, p.default or "") for name, p in declared.items()}
        change_set = ChangeSetRecord(
            arn=self._new_arn("changeSet", request["ChangeSetName"]),
            name=request["ChangeSetName"],
            stack=stack.arn,
            kind=kind,
            template=text,
            parameters=parameters,
            tags={tag["Key"]: tag["Value"] for tag in request.get("Tags", ())},
            changes=self.engine.compute_changes(stack, text, parameters),
            token=request.get("ClientToken"),
        )
        if not change_set.changes and (change_set.tags or stack.tags) == stack.tags:
            change_set.status, change_set.execution = "FAILED", "UNAVAILABLE"
            change_set.reason = NO_CHANGES
        return change_set

    def describe_change_set(self, request: ChangeSetIdentifier) -> Response:
        """Return one change set, all of it on one page."""
        with self.state.lock:
            change_set = self._require_change_set(request)
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
                "CreationTime": change_set.created,
                "Parameters": key_value_list("Parameter", change_set.parameters),
                "Status": change_set.status,
                "StatusReason": change_set.reason,
                "ExecutionStatus": change_set.execution,
                "Changes": changes,
            }

    def execute_change_set(self, request: ExecuteChangeSetRequest) -> Response:
        """Start to create or update the stack. Raises InvalidChangeSetStatus."""
        with self.state.lock:
            change_set = self._require_change_set(request)
            if change_set.execution != "AVAILABLE":
                what = f"ChangeSet [{change_set.arn}] cannot be executed in its current status"
                raise ServiceError("InvalidChangeSetStatus", f"{what} of [{change_set.status}]")
            stack = self.state.stacks[change_set.stack]
            before, token = copy.deepcopy(stack), request.get("ClientRequestToken")
            stack.template, stack.parameters = change_set.template, change_set.parameters
            stack.tags = change_set.tags or stack.tags
            stack.description = parse_template(change_set.template).get("Description")
            # AWS deletes all change sets of the stack. So a second execution finds none, and can't
            # start the operation twice.
            for other in [c for c in self.state.change_sets.values() if c.stack == stack.arn]:
                del self.state.change_sets[other.arn]
            work: Callable[[], None]
            if change_set.kind == "CREATE":
                stack.record_status("CREATE_IN_PROGRESS", "User Initiated", token)
                work = lambda: self.engine.create(stack, token)  # noqa: E731
            else:
                stack.updated = now()
                stack.record_status("UPDATE_IN_PROGRESS", "User Initiated", token)
                work = lambda: self.engine.update(stack, before, token)  # noqa: E731
            self.state.save()
        threading.Thread(target=work, daemon=True).start()
        return {}

    def list_change_sets(self, request: StackIdentifier) -> Response:
        """Return the change sets of a stack."""
        with self.state.lock:
            stack = self._require_stack(request["StackName"])
            return {
                "Summaries": [
                    {
                        "StackId": stack.arn,
                        "StackName": stack.name,
                        "ChangeSetId": change_set.arn,
                        "ChangeSetName": change_set.name,
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
            del self.state.change_sets[self._require_change_set(request).arn]
        return {}

    def describe_stacks(self, request: DescribeStacksRequest) -> Response:
        """Return existing stacks, or one; a deleted stack is found by its ARN only."""
        with self.state.lock:
            if "StackName" in request:
                return {"Stacks": [stack_response(self._require_stack(request["StackName"]))]}
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
                        "CreationTime": stack.created,
                        "DeletionTime": stack.deleted,
                        "StackStatus": stack.status,
                    }
                    for stack in stacks
                    if not statuses or stack.status in statuses
                ]
            }

    def describe_stack_events(self, request: StackIdentifier) -> Response:
        """Return the events of a stack, newest first."""
        with self.state.lock:
            stack = self._require_stack(request["StackName"])
            return {
                "StackEvents": [
                    {
                        "StackId": stack.arn,
                        "StackName": stack.name,
                        "EventId": event.id,
                        "LogicalResourceId": event.logical,
                        "PhysicalResourceId": event.physical,
                        "ResourceType": event.type,
                        "Timestamp": event.at,
                        "ResourceStatus": event.status,
                        "ResourceStatusReason": event.reason,
                        "ClientRequestToken": event.token,
                    }
                    for event in reversed(stack.events)
                ]
            }

    def list_stack_resources(self, request: StackIdentifier) -> Response:
        """Return the resources of a stack, also of a deleted one."""
        with self.state.lock:
            stack = self._require_stack(request["StackName"])
            return {"StackResourceSummaries": [resource_response(r) for r in stack.pieces.values()]}

    def get_template(self, request: StackIdentifier) -> Response:
        """Return the template as it was sent."""
        with self.state.lock:
            return {"TemplateBody": self._require_stack(request["StackName"]).template}

    def update_termination_protection(self, request: TerminationProtectionRequest) -> Response:
        """Turn termination protection on or off."""
        with self.state.lock:
            stack = self._require_stack(request["StackName"])
            stack.protected = bool(request["EnableTerminationProtection"])
            self.state.save()
        return {"StackId": stack.arn}

    def delete_stack(self, request: DeleteStackRequest) -> Response:
        """Start to delete a stack. A stack that does not exist is no error, as on AWS."""
        with self.state.lock:
            stack = self._find_stack(request["StackName"])
            if stack is None or stack.is_in_progress:
                return {}
            if stack.protected:
                what = (
                    f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
                )
                raise ServiceError("ValidationError", what)
            token = request.get("ClientRequestToken")
            stack.record_status("DELETE_IN_PROGRESS", "User Initiated", token)
            stack.deleted = now()
            self.state.save()
        work = threading.Thread(target=self.engine.delete, args=(stack, token), daemon=True)
        work.start()
        return {}

    def detect_stack_drift(self, request: StackIdentifier) -> Response:
        """Start a drift detection. Its resources are compared when the result is requested."""
        with self.state.lock:
            stack = self._require_stack(request["StackName"])
        identifier = str(uuid.uuid4())
        self.drift_detections[identifier] = stack.arn
        return {"StackDriftDetectionId": identifier}

    def describe_stack_drift_detection_status(self, request: DriftDetectionIdentifier) -> Response:
        """Return the result of a drift detection."""
        identifier = request["StackDriftDetectionId"]
        stack = self._require_stack(self.drift_detections[identifier])
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
        stack = self._require_stack(request["StackName"])
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

    def _find_stack(self, name: str) -> StackRecord | None:
        """Return a stack by name or ARN. A deleted stack has only its ARN: the name is free."""
        if name in self.state.stacks:
            return self.state.stacks[name]
        stacks = self.state.stacks.values()
        return next(
            (stack for stack in stacks if stack.name == name and not stack.is_deleted), None
        )

    def _require_stack(self, name: str) -> StackRecord:
        stack = self._find_stack(name)
        if stack is None:
            raise ServiceError("ValidationError", f"Stack with id {name} does not exist")
        return stack

    def _require_change_set(self, request: ChangeSetIdentifier) -> ChangeSetRecord:
        name = request["ChangeSetName"]
        stack = self._find_stack(request["StackName"]) if "StackName" in request else None
        for known in self.state.change_sets.values():
            if known.arn == name or (stack and known.stack == stack.arn and known.name == name):
                return known
        raise ServiceError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist")

    def _new_arn(self, kind: str, name: str) -> str:
        return f"arn:aws:cloudformation:{self.state.region}:{ACCOUNT}:{kind}/{name}/{uuid.uuid4()}"
