"""Create, update and delete the resources of a stack, and roll back when that fails."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.records import Change, StackRecord, StackResource, now
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    Properties,
    ResourceRequest,
)
from cloudft.endpoint.cloudformation.resources import (
    iam,
    monitoring,
    network,
    step_functions,
    storage,
)
from cloudft.endpoint.state import ACCOUNT
from cloudft.infra.intrinsics import CreatedResource, TemplateScope, sort_by_dependency
from cloudft.infra.template import TemplateNode, parse_template

__all__ = [
    "StackEngine",
    # Imported for their effect: each adds its resource types to RESOURCE_TYPES.
    "iam",
    "monitoring",
    "network",
    "step_functions",
    "storage",
]
RETAINED_ALWAYS = {"Retain"}
"""Deletion policies that keep a resource in an update or a rollback."""
RETAINED_ON_DELETION = {"Retain", "RetainExceptOnCreate"}
"""Deletion policies that keep a resource when its stack is deleted."""


@dataclass(frozen=True)
class StackEngine:
    """Works on stacks, with the services of this endpoint.

    `save` writes the state; it is called after every change of a resource. `lock` is the state's
    lock: no request reads a stack while it is held.
    """

    services: ClientFactory
    region: str
    save: Callable[[], None]
    lock: AbstractContextManager[object]

    def set_status(
        self, stack: StackRecord, status: str, reason: str | None, token: str | None
    ) -> None:
        """Set the stack's status and save it before anyone can read it.

        A crash right after must not take back a status that a client has seen.
        """
        with self.lock:
            stack.record_status(status, reason, token)
            self.save()

    def scope(
        self, stack: StackRecord, template: TemplateNode, parameters: Mapping[str, str]
    ) -> TemplateScope:
        """Return the template with these parameters, and with the resources that exist."""
        pseudo_parameters = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": self.region,
            "AWS::StackId": stack.arn,
            "AWS::StackName": stack.name,
            "AWS::URLSuffix": "amazonaws.com",
        }
        created = {
            name: CreatedResource(resource.physical, resource.attributes)
            for name, resource in stack.pieces.items()
            if resource.physical
        }
        return TemplateScope(template, parameters, pseudo_parameters, created, self._zones)

    def _zones(self) -> list[str]:
        zones = self.services("ec2").describe_availability_zones()["AvailabilityZones"]
        return [zone["ZoneName"] for zone in zones]

    def compute_changes(
        self, stack: StackRecord, text: str, parameters: Mapping[str, str]
    ) -> list[Change]:
        """Return what a template and its parameters would change.

        A resource that depends on a changed one counts as changed, since its properties may be.
        """
        template = parse_template(text)
        target = self.scope(stack, template, parameters).active_resources()
        changes = [
            Change("Add", name, declaration["Type"])
            for name, declaration in target.items()
            if not _exists(stack, name)
        ]
        before = (
            self._resolved_properties(stack, parse_template(stack.template), stack.parameters)
            if stack.pieces
            else {}
        )
        after = self._resolved_properties(stack, template, parameters) if stack.pieces else {}
        for name, resource in stack.pieces.items():
            if name not in target:
                changes.append(Change("Remove", name, resource.type, resource.physical))
            elif resource.physical and before.get(name) != after.get(name):
                known = RESOURCE_TYPES.get(resource.type)
                replacement = "False" if known and known.update else "True"
                changes.append(
                    Change("Modify", name, resource.type, resource.physical, replacement)
                )
        return changes

    def _resolved_properties(
        self, stack: StackRecord, template: TemplateNode, parameters: Mapping[str, str]
    ) -> dict[str, object]:
        """Return each resource's properties; None if they refer to one that does not exist yet."""
        scope = self.scope(stack, template, parameters)
        resolved: dict[str, object] = {}
        for name, declaration in scope.active_resources().items():
            try:
                resolved[name] = scope.resolve(declaration.get("Properties", {}))
            except ValueError:
                resolved[name] = None
        return resolved

    def create(self, stack: StackRecord, token: str | None, on_failure: str = "ROLLBACK") -> None:
        """Create all resources. Record the reason of a failure, and act on it.

        `on_failure` is ROLLBACK (remove them again), DELETE (the stack, too) or DO_NOTHING.
        """
        try:
            self._build(stack, token)
        except _ResourceFailed as failure:
            if on_failure == "DO_NOTHING":
                self.set_status(stack, "CREATE_FAILED", str(failure), token)
                return
            if on_failure == "DELETE":
                stack.deleted = now()
                self.set_status(stack, "DELETE_IN_PROGRESS", str(failure), token)
                self.delete(stack, token)
                return
            self.set_status(stack, "ROLLBACK_IN_PROGRESS", str(failure), token)
            left = self._remove_resources(
                stack, reversed(list(stack.pieces.values())), RETAINED_ALWAYS, token
            )
            self.set_status(stack, "ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE", None, token)
        else:
            self.set_status(stack, "CREATE_COMPLETE", None, token)

    def update(self, stack: StackRecord, before: StackRecord, token: str | None) -> None:
        """Apply the stack's current template.

        On a failure restore the state of `before`, unless the stack keeps what has failed.
        """
        try:
            self._build(stack, token)
        except _ResourceFailed as failure:
            if stack.keeps_failed:
                self.set_status(stack, "UPDATE_FAILED", str(failure), token)
                return
            # A rollback is another build, from the template that was there before.
            stack.template, stack.parameters = before.template, before.parameters
            self.set_status(stack, "UPDATE_ROLLBACK_IN_PROGRESS", str(failure), token)
            try:
                self._build(stack, token)
            except _ResourceFailed as rollback_failure:
                self.set_status(stack, "UPDATE_ROLLBACK_FAILED", str(rollback_failure), token)
            else:
                self.set_status(stack, "UPDATE_ROLLBACK_COMPLETE", None, token)
        else:
            self.set_status(stack, "UPDATE_COMPLETE", None, token)

    def delete(self, stack: StackRecord, token: str | None, retained: Collection[str] = ()) -> None:
        """Delete all resources, except those that their DeletionPolicy retains.

        `retained` are logical ids that stay, too.
        """
        resources = [r for r in reversed(list(stack.pieces.values())) if r.logical not in retained]
        left = self._remove_resources(stack, resources, RETAINED_ON_DELETION, token)
        if left:
            names = ", ".join(resource.logical for resource in left)
            what = f"The following resource(s) failed to delete: [{names}]."
            self.set_status(stack, "DELETE_FAILED", what, token)
        else:
            self.set_status(stack, "DELETE_COMPLETE", None, token)

    def _build(self, stack: StackRecord, token: str | None) -> None:
        """Create, update and remove resources until the stack matches its template.

        Raises _ResourceFailed.
        """
        try:
            self._build_resources(stack, token)
        except _ResourceFailed:
            raise
        except Exception as error:  # nobody waits for this thread: the stack says why it failed
            raise _ResourceFailed(f"{error}") from error

    def _build_resources(self, stack: StackRecord, token: str | None) -> None:
        template = parse_template(stack.template)
        scope = self.scope(stack, template, stack.parameters)
        target = scope.active_resources()
        for name in sort_by_dependency(target):
            # A new scope each time: it has the physical ids of the resources created before.
            scope = self.scope(stack, template, stack.parameters)
            self._deploy_resource(stack, name, target[name], scope, token)
            self.save()
        # As in CloudFormation's cleanup phase, what the template no longer has is removed last.
        extra = [resource for name, resource in stack.pieces.items() if name not in target]
        self._remove_resources(stack, reversed(extra), RETAINED_ALWAYS, token)
        stack.pieces = {name: stack.pieces[name] for name in sort_by_dependency(target)}
        stack.outputs = self.scope(stack, template, stack.parameters).resolve_outputs()

    def _deploy_resource(
        self,
        stack: StackRecord,
        name: str,
        declaration: TemplateNode,
        scope: TemplateScope,
        token: str | None,
    ) -> None:
        """Create a resource, update it, or leave it as it is. Raises _ResourceFailed."""
        old = stack.pieces[name] if _exists(stack, name) else None
        verb = "UPDATE" if old else "CREATE"
        resource = old or StackResource(name, declaration["Type"], {})
        try:
            properties = scope.resolve(declaration.get("Properties", {}))
            if old and old.properties == properties and old.type == declaration["Type"]:
                return
            stack.pieces[name] = resource
            stack.record_resource_status(resource, f"{verb}_IN_PROGRESS", None, token)
            resource = self._create_or_update(stack, resource, old, declaration["Type"], properties)
            stack.pieces[name] = resource
        except Exception as error:  # whatever a service raises is the reason of the failure
            stack.record_resource_status(resource, f"{verb}_FAILED", f"{error}", token)
            raise _ResourceFailed(f"The following resource(s) failed: [{name}].") from error
        resource.policy = declaration.get("DeletionPolicy", "Delete")
        stack.record_resource_status(resource, f"{verb}_COMPLETE", None, token)

    def _create_or_update(
        self,
        stack: StackRecord,
        resource: StackResource,
        old: StackResource | None,
        kind: str,
        properties: Properties,
    ) -> StackResource:
        """Return the resource after its update in place, or the one that replaces it."""
        resource_type = RESOURCE_TYPES.get(kind)
        if resource_type is None:
            raise ValueError(f"This endpoint does not support the resource type {kind}")
        if unknown := properties.keys() - resource_type.property_names:
            name = sorted(unknown)[0]
            raise ValueError(f"This endpoint does not support the property {name} of {kind}")
        request = ResourceRequest(
            properties, self._physical_name(stack, resource), self.services, ACCOUNT, self.region
        )
        if old and old.type == kind and resource_type.update:
            resource_type.update(request, old)
            old.properties = dict(properties)
            return old
        # Removed first, unlike on AWS: the replacement has the same physical name.
        if old:
            RESOURCE_TYPES[old.type].remove(self.services, old)
        created = resource_type.create(request)
        return StackResource(
            resource.logical, kind, dict(properties), created.ref, dict(created.attributes)
        )

    def _physical_name(self, stack: StackRecord, resource: StackResource) -> str:
        """Return a unique physical name, as CloudFormation makes it.

        It is derived from the stack and the logical id, so that a retry after a crash has the same
        name. A bucket's is in lower case.
        """
        unique = hashlib.sha256(f"{stack.arn}/{resource.logical}".encode()).hexdigest()[:12]
        name = f"{stack.name[:24]}-{resource.logical[:24]}-{unique}"
        if resource.type == "AWS::S3::Bucket":
            return re.sub(r"[^a-z0-9-]", "", name.lower())
        return name

    def _remove_resources(
        self,
        stack: StackRecord,
        resources: Iterable[StackResource],
        retained: set[str],
        token: str | None,
    ) -> list[StackResource]:
        """Delete resources, and return those that could not be deleted.

        `retained` are the deletion policies that keep a resource.
        """
        left = []
        for resource in list(resources):
            if resource.status == "DELETE_COMPLETE":
                continue
            if resource.policy in retained and resource.physical:
                stack.record_resource_status(resource, "DELETE_SKIPPED", None, token)
                continue
            if not resource.physical:
                stack.record_resource_status(resource, "DELETE_COMPLETE", None, token)
                continue
            stack.record_resource_status(resource, "DELETE_IN_PROGRESS", None, token)
            try:
                RESOURCE_TYPES[resource.type].remove(self.services, resource)
            except Exception as error:  # the resource stays, and its event has the reason
                if not _is_not_found(error):
                    stack.record_resource_status(resource, "DELETE_FAILED", str(error), token)
                    left.append(resource)
                    continue
            stack.record_resource_status(resource, "DELETE_COMPLETE", None, token)
            self.save()
        return left

    def detect_drift(self, resource: StackResource) -> tuple[str, list[str]]:
        """Return a resource's drift status, and the properties that differ from the template."""
        resource_type = RESOURCE_TYPES[resource.type]
        if resource_type.detect_drift is None:
            return "NOT_CHECKED", []
        try:
            drifted = resource_type.detect_drift(self.services, resource)
        except Exception:  # it was deleted by other means than the stack
            return "DELETED", []
        return ("MODIFIED", drifted) if drifted else ("IN_SYNC", [])


def _exists(stack: StackRecord, name: str) -> bool:
    """Return whether a resource was created: one that failed has no physical id."""
    return name in stack.pieces and bool(stack.pieces[name].physical)


def _is_not_found(error: Exception) -> bool:
    """Return whether a service reports that the resource does not exist: it needs no removal."""
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    return "NotFound" in code or code.startswith("NoSuch")


class _ResourceFailed(Exception):
    """A resource could not be created or updated; its event has the reason."""
