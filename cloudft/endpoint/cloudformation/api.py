"""The operations of CloudFormation that change sets, their stacks and their drift need."""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cloudft.endpoint.cloudformation.engine import StackEngine
from cloudft.endpoint.cloudformation.records import ChangeSetRecord, StackRecord, StackResource, now
from cloudft.endpoint.cloudformation.responses import (
    change_response,
    key_value_list,
    resource_response,
    stack_response,
)
from cloudft.endpoint.protocols.messages import ServiceError
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
Parameters = Mapping[str, Any]


class CloudFormation:
    """Stacks and change sets of one Region."""

    def __init__(self, state: State, engine: StackEngine) -> None:
        self.state = state
        self.engine = engine
        self.drift_detections: dict[str, str] = {}

    def begin(self) -> None:
        """What was under way when the endpoint ended has failed."""
        with self.state.lock:
            for stack in self.state.stacks.values():
                if stack.is_in_progress:
                    failed = stack.status.replace("IN_PROGRESS", "FAILED")
                    stack.record_status(failed, "The endpoint ended meanwhile")

    def create_change_set(self, given: Parameters) -> dict[str, Any]:
        """Work out what a template would change. The stack of a first one is there, empty."""
        with self.state.lock:
            kind, name = given.get("ChangeSetType", "UPDATE"), given["StackName"]
            old = self._existing_change_set(given)
            if old is not None:
                return {"Id": old.arn, "StackId": old.stack}
            stack = self._stack_for_change_set(kind, name)
            text = self._template_text(given, stack)
            values = self._parameter_values(given, stack)
            self._validate_template(given, stack, text, values)
            made = self._build_change_set(given, stack, kind, text, values)
            self.state.stacks[stack.arn] = stack
            self.state.change_sets[made.arn] = made
            self.state.save()
        return {"Id": made.arn, "StackId": stack.arn}

    def _existing_change_set(self, given: Parameters) -> ChangeSetRecord | None:
        """The change set that the same token made. Raises AlreadyExistsException."""
        stack = self._find_stack(given["StackName"])
        for known in self.state.change_sets.values():
            if stack and known.stack == stack.arn and known.name == given["ChangeSetName"]:
                if known.token and known.token == given.get("ClientToken"):
                    return known
                what = f"ChangeSet {known.name} cannot be created as it already exists"
                raise ServiceError("AlreadyExistsException", what)
        return None

    def _stack_for_change_set(self, kind: str, name: str) -> StackRecord:
        stack = self._find_stack(name)
        if kind == "CREATE":
            if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
                raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
            return stack or StackRecord(self._new_arn("stack", name), name)
        if stack is None or stack.status == "REVIEW_IN_PROGRESS":
            raise _no_stack(name)
        if stack.status not in UPDATABLE_STATUSES:
            what = f"Stack:{stack.arn} is in {stack.status} state and can not be updated."
            raise ServiceError("ValidationError", what)
        return stack

    def _template_text(self, given: Parameters, stack: StackRecord) -> str:
        if given.get("UsePreviousTemplate"):
            return stack.template
        if "TemplateBody" not in given:
            raise ServiceError(
                "ValidationError", "TemplateBody is needed: this endpoint fetches none."
            )
        text = str(given["TemplateBody"])
        if len(text.encode()) > MAX_BODY_BYTES:
            raise ServiceError(
                "ValidationError",
                "1 validation error detected: Value at 'templateBody' failed to satisfy constraint:"
                f" Member must have length less than or equal to {MAX_BODY_BYTES}",
            )
        return text

    def _parameter_values(self, given: Parameters, stack: StackRecord) -> dict[str, str]:
        """The parameters that were given: by value, or as they were."""
        found = {}
        for pair in given.get("Parameters", ()):
            key = pair["ParameterKey"]
            before = pair.get("UsePreviousValue") and key in stack.parameters
            found[key] = stack.parameters[key] if before else pair.get("ParameterValue", "")
        return found

    def _validate_template(
        self, given: Parameters, stack: StackRecord, text: str, values: dict[str, str]
    ) -> None:
        try:
            template = parse_template(text)
            broken = [*find_parameter_errors(template, values)]
            if not broken:
                scope = self.engine.scope(stack, template, values)
                broken = [*scope.failed_rules()]
                types = {told["Type"] for told in scope.active_resources().values()}
        except (ResolveError, ValueError, KeyError) as error:
            raise ServiceError("ValidationError", f"Template format error: {error}") from error
        if broken:
            raise ServiceError("ValidationError", "; ".join(broken))
        allowed = set(given.get("Capabilities", ()))
        if any(t.startswith("AWS::IAM::") for t in types) and not allowed:
            what = "Requires capabilities : [CAPABILITY_IAM]"
            raise ServiceError("InsufficientCapabilitiesException", what)

    def _build_change_set(
        self, given: Parameters, stack: StackRecord, kind: str, text: str, values: dict[str, str]
    ) -> ChangeSetRecord:
        known = parse_parameters(parse_template(text))
        whole = {name: values.get(name, p.default or "") for name, p in known.items()}
        tags = {tag["Key"]: tag["Value"] for tag in given.get("Tags", ())}
        made = ChangeSetRecord(
            arn=self._new_arn("changeSet", given["ChangeSetName"]),
            name=given["ChangeSetName"],
            stack=stack.arn,
            kind=kind,
            template=text,
            parameters=whole,
            tags=tags,
            changes=self.engine.compute_changes(stack, text, whole),
            token=given.get("ClientToken"),
        )
        if not made.changes and (made.tags or stack.tags) == stack.tags:
            made.status, made.execution, made.reason = "FAILED", "UNAVAILABLE", NO_CHANGES
        return made

    def describe_change_set(self, given: Parameters) -> dict[str, Any]:
        """One change set, all of it on one page."""
        with self.state.lock:
            found = self._require_change_set(given)
            stack = self.state.stacks[found.stack]
            changes = [
                {"Type": "Resource", "ResourceChange": change_response(c)} for c in found.changes
            ]
            return {
                "ChangeSetId": found.arn,
                "ChangeSetName": found.name,
                "StackId": found.stack,
                "StackName": stack.name,
                "CreationTime": found.created,
                "Parameters": key_value_list("Parameter", found.parameters),
                "Status": found.status,
                "StatusReason": found.reason,
                "ExecutionStatus": found.execution,
                "Changes": changes,
            }

    def execute_change_set(self, given: Parameters) -> dict[str, Any]:
        """Do it. With a token that it was executed with before: nothing more."""
        with self.state.lock:
            found = self._require_change_set(given)
            if found.execution != "AVAILABLE":
                what = f"ChangeSet [{found.arn}] cannot be executed in its current status"
                raise ServiceError("InvalidChangeSetStatus", f"{what} of [{found.status}]")
            stack = self.state.stacks[found.stack]
            before, token = copy.deepcopy(stack), given.get("ClientRequestToken")
            stack.template, stack.parameters = found.template, found.parameters
            stack.tags = found.tags or stack.tags
            stack.description = parse_template(found.template).get("Description")
            for other in [c for c in self.state.change_sets.values() if c.stack == stack.arn]:
                del self.state.change_sets[other.arn]  # AWS removes them all
            work: Callable[[], None]
            if found.kind == "CREATE":
                stack.record_status("CREATE_IN_PROGRESS", "User Initiated", token)
                work = lambda: self.engine.create(stack, token)  # noqa: E731
            else:
                stack.updated = now()
                stack.record_status("UPDATE_IN_PROGRESS", "User Initiated", token)
                work = lambda: self.engine.update(stack, before, token)  # noqa: E731
            self.state.save()
        threading.Thread(target=work, daemon=True).start()
        return {}

    def list_change_sets(self, given: Parameters) -> dict[str, Any]:
        """The change sets of a stack."""
        with self.state.lock:
            stack = self._require_stack(given["StackName"])
            sets = [c for c in self.state.change_sets.values() if c.stack == stack.arn]
            return {
                "Summaries": [
                    {
                        "StackId": stack.arn,
                        "StackName": stack.name,
                        "ChangeSetId": found.arn,
                        "ChangeSetName": found.name,
                        "ExecutionStatus": found.execution,
                        "Status": found.status,
                        "StatusReason": found.reason,
                        "CreationTime": found.created,
                    }
                    for found in sets
                ]
            }

    def delete_change_set(self, given: Parameters) -> dict[str, Any]:
        """Forget it. The empty stack of a first one stays, as AWS leaves it."""
        with self.state.lock:
            found = self._require_change_set(given)
            del self.state.change_sets[found.arn]
        return {}

    def describe_stacks(self, given: Parameters) -> dict[str, Any]:
        """Stacks that are there; one that was deleted by its ARN alone."""
        with self.state.lock:
            if "StackName" in given:
                stack = self._require_stack(given["StackName"])
                return {"Stacks": [stack_response(stack)]}
            return {
                "Stacks": [
                    stack_response(s) for s in self.state.stacks.values() if not s.is_deleted
                ]
            }

    def list_stacks(self, given: Parameters) -> dict[str, Any]:
        """All stacks, deleted ones too, the newest first."""
        wanted = given.get("StackStatusFilter", ())
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
                    if not wanted or stack.status in wanted
                ]
            }

    def describe_stack_events(self, given: Parameters) -> dict[str, Any]:
        """What has happened, the newest first."""
        with self.state.lock:
            stack = self._require_stack(given["StackName"])
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

    def list_stack_resources(self, given: Parameters) -> dict[str, Any]:
        """The resources of a stack, of a deleted one too."""
        with self.state.lock:
            stack = self._require_stack(given["StackName"])
            return {"StackResourceSummaries": [resource_response(p) for p in stack.pieces.values()]}

    def get_template(self, given: Parameters) -> dict[str, Any]:
        """The template as it was sent."""
        with self.state.lock:
            return {"TemplateBody": self._require_stack(given["StackName"]).template}

    def update_termination_protection(self, given: Parameters) -> dict[str, Any]:
        """Forbid its deletion, or allow it again."""
        with self.state.lock:
            stack = self._require_stack(given["StackName"])
            stack.protected = bool(given["EnableTerminationProtection"])
            self.state.save()
        return {"StackId": stack.arn}

    def delete_stack(self, given: Parameters) -> dict[str, Any]:
        """Remove what a stack made. One that is not there is no error."""
        with self.state.lock:
            stack = self._find_stack(given["StackName"])
            if stack is None or stack.is_in_progress:
                return {}
            if stack.protected:
                what = (
                    f"Stack [{stack.name}] cannot be deleted while TerminationProtection is enabled"
                )
                raise ServiceError("ValidationError", what)
            token = given.get("ClientRequestToken")
            stack.record_status("DELETE_IN_PROGRESS", "User Initiated", token)
            stack.deleted = now()
            self.state.save()
        work = threading.Thread(target=self.engine.delete, args=(stack, token), daemon=True)
        work.start()
        return {}

    def detect_stack_drift(self, given: Parameters) -> dict[str, Any]:
        """Look at the resources that can be looked at. It is done when this answers."""
        with self.state.lock:
            stack = self._require_stack(given["StackName"])
        identifier = str(uuid.uuid4())
        self.drift_detections[identifier] = stack.arn
        return {"StackDriftDetectionId": identifier}

    def describe_stack_drift_detection_status(self, given: Parameters) -> dict[str, Any]:
        """What the look has found."""
        stack = self._require_stack(self.drift_detections[given["StackDriftDetectionId"]])
        off = [
            p for p, status, _ in self._resource_drifts(stack) if status in ("MODIFIED", "DELETED")
        ]
        return {
            "StackId": stack.arn,
            "StackDriftDetectionId": given["StackDriftDetectionId"],
            "StackDriftStatus": "DRIFTED" if off else "IN_SYNC",
            "DetectionStatus": "DETECTION_COMPLETE",
            "DriftedStackResourceCount": len(off),
            "Timestamp": now(),
        }

    def describe_stack_resource_drifts(self, given: Parameters) -> dict[str, Any]:
        """Each resource that was looked at."""
        stack = self._require_stack(given["StackName"])
        wanted = given.get("StackResourceDriftStatusFilters", ())
        return {
            "StackResourceDrifts": [
                {
                    "StackId": stack.arn,
                    "LogicalResourceId": piece.logical,
                    "PhysicalResourceId": piece.physical,
                    "ResourceType": piece.type,
                    "StackResourceDriftStatus": status,
                    "PropertyDifferences": [
                        {
                            "PropertyPath": f"/{name}",
                            "ExpectedValue": str(piece.properties.get(name)),
                            "ActualValue": "another",
                            "DifferenceType": "NOT_EQUAL",
                        }
                        for name in names
                    ],
                    "Timestamp": now(),
                }
                for piece, status, names in self._resource_drifts(stack)
                if status != "NOT_CHECKED" and (not wanted or status in wanted)
            ]
        }

    def _resource_drifts(
        self, stack: StackRecord
    ) -> Iterator[tuple[StackResource, str, list[str]]]:
        for piece in list(stack.pieces.values()):
            yield (piece, *self.engine.detect_drift(piece))

    def _find_stack(self, name: str) -> StackRecord | None:
        """By ARN also one that is gone."""
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

    def _require_change_set(self, given: Parameters) -> ChangeSetRecord:
        name = given["ChangeSetName"]
        stack = self._find_stack(given["StackName"]) if "StackName" in given else None
        for found in self.state.change_sets.values():
            if found.arn == name or (stack and found.stack == stack.arn and found.name == name):
                return found
        raise ServiceError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist")

    def _new_arn(self, kind: str, name: str) -> str:
        return f"arn:aws:cloudformation:{self.state.region}:{ACCOUNT}:{kind}/{name}/{uuid.uuid4()}"


def _no_stack(name: str) -> ServiceError:
    return ServiceError("ValidationError", f"Stack [{name}] does not exist")
