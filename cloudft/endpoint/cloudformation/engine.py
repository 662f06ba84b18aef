"""The work on a stack: making, changing and removing what its template says, and going back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.cloudformation.records import Change, StackRecord, StackResource
from cloudft.endpoint.cloudformation.resource_types import (
    RESOURCE_TYPES,
    ClientFactory,
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
    "iam",
    "monitoring",
    "network",
    "step_functions",
    "storage",
]  # the rooms fill TYPES
RETAINED_ALWAYS = {"Retain"}
RETAINED_ON_DELETION = {"Retain", "RetainExceptOnCreate"}


@dataclass(frozen=True)
class StackEngine:
    """Works with the services beside it. `save` is called whenever something has happened.

    Under `lock` nobody looks at a stack.
    """

    services: ClientFactory
    region: str
    save: Callable[[], None]
    lock: AbstractContextManager[Any]

    def set_status(
        self, stack: StackRecord, status: str, reason: str | None, token: str | None
    ) -> None:
        """Where the stack is now: kept before anybody can see it, or a crash would take it back."""
        with self.lock:
            stack.record_status(status, reason, token)
            self.save()

    def scope(
        self, stack: StackRecord, template: TemplateNode, given: Mapping[str, str]
    ) -> TemplateScope:
        """The template with the stack's values, and with what of it is there."""
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": self.region,
            "AWS::StackId": stack.arn,
            "AWS::StackName": stack.name,
            "AWS::URLSuffix": "amazonaws.com",
        }
        made = {
            name: CreatedResource(piece.physical, piece.attributes)
            for name, piece in stack.pieces.items()
            if piece.physical
        }
        return TemplateScope(template, given, pseudo, made, self._zones)

    def _zones(self) -> list[str]:
        zones = self.services("ec2").describe_availability_zones()["AvailabilityZones"]
        return [zone["ZoneName"] for zone in zones]

    def compute_changes(
        self, stack: StackRecord, text: str, given: Mapping[str, str]
    ) -> list[Change]:
        """What a template and its values would change. What depends on a change may change too."""
        template = parse_template(text)
        wanted = self.scope(stack, template, given).active_resources()
        found = [
            Change("Add", name, told["Type"])
            for name, told in wanted.items()
            if name not in stack.pieces
        ]
        before = (
            self._resolved_properties(stack, parse_template(stack.template), stack.parameters)
            if stack.pieces
            else {}
        )
        after = self._resolved_properties(stack, template, given) if stack.pieces else {}
        for name, piece in stack.pieces.items():
            if name not in wanted:
                found.append(Change("Remove", name, piece.type, piece.physical))
            elif before.get(name) != after.get(name):
                type_ = RESOURCE_TYPES.get(piece.type)
                again = "False" if type_ and type_.update else "True"
                found.append(Change("Modify", name, piece.type, piece.physical, again))
        return found

    def _resolved_properties(
        self, stack: StackRecord, template: TemplateNode, given: Mapping[str, str]
    ) -> dict[str, Any]:
        """Properties of the resources that are there; None for those that wait for a new one."""
        scope = self.scope(stack, template, given)
        found: dict[str, Any] = {}
        for name, told in scope.active_resources().items():
            try:
                found[name] = scope.resolve(told.get("Properties", {}))
            except ValueError:
                found[name] = None
        return found

    def create(self, stack: StackRecord, token: str | None) -> None:
        """Make everything; or nothing, and say why."""
        try:
            self._build(stack, token)
        except _ResourceFailed as failure:
            self.set_status(stack, "ROLLBACK_IN_PROGRESS", str(failure), token)
            left = self._remove_resources(
                stack, reversed(list(stack.pieces.values())), RETAINED_ALWAYS, token
            )
            self.set_status(stack, "ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE", None, token)
        else:
            self.set_status(stack, "CREATE_COMPLETE", None, token)

    def update(self, stack: StackRecord, before: StackRecord, token: str | None) -> None:
        """Make the stack what its template now says; or what it was `before`."""
        try:
            self._build(stack, token)
        except _ResourceFailed as failure:
            stack.template, stack.parameters = before.template, before.parameters
            self.set_status(stack, "UPDATE_ROLLBACK_IN_PROGRESS", str(failure), token)
            try:
                self._build(stack, token)
            except _ResourceFailed as again:
                self.set_status(stack, "UPDATE_ROLLBACK_FAILED", str(again), token)
            else:
                self.set_status(stack, "UPDATE_ROLLBACK_COMPLETE", None, token)
        else:
            self.set_status(stack, "UPDATE_COMPLETE", None, token)

    def delete(self, stack: StackRecord, token: str | None) -> None:
        """Remove everything that is not to be kept."""
        pieces = reversed(list(stack.pieces.values()))
        left = self._remove_resources(stack, pieces, RETAINED_ON_DELETION, token)
        if left:
            names = ", ".join(piece.logical for piece in left)
            what = f"The following resource(s) failed to delete: [{names}]."
            self.set_status(stack, "DELETE_FAILED", what, token)
        else:
            self.set_status(stack, "DELETE_COMPLETE", None, token)

    def _build(self, stack: StackRecord, token: str | None) -> None:
        template = parse_template(stack.template)
        scope = self.scope(stack, template, stack.parameters)
        wanted = scope.active_resources()
        for name in sort_by_dependency(wanted):
            scope = self.scope(stack, template, stack.parameters)
            self._deploy_resource(stack, name, wanted[name], scope, token)
            self.save()
        extra = [piece for name, piece in stack.pieces.items() if name not in wanted]
        self._remove_resources(stack, reversed(extra), RETAINED_ALWAYS, token)
        stack.pieces = {name: stack.pieces[name] for name in sort_by_dependency(wanted)}
        stack.outputs = self.scope(stack, template, stack.parameters).resolve_outputs()

    def _deploy_resource(
        self,
        stack: StackRecord,
        name: str,
        told: TemplateNode,
        scope: TemplateScope,
        token: str | None,
    ) -> None:
        """One resource as the template says it: made, changed, or left as it is."""
        old = stack.pieces.get(name)
        verb = "UPDATE" if old else "CREATE"
        piece = old or StackResource(name, told["Type"], {})
        try:
            properties = scope.resolve(told.get("Properties", {}))
            if old and old.properties == properties and old.type == told["Type"]:
                return
            stack.pieces[name] = piece
            stack.record_resource_status(piece, f"{verb}_IN_PROGRESS", None, token)
            stack.pieces[name] = piece = self._create_or_update(stack, piece, old, told, properties)
        except Exception as error:  # whatever a service says is the resource's reason
            reason = f"{error}"
            stack.record_resource_status(piece, f"{verb}_FAILED", reason, token)
            raise _ResourceFailed(f"The following resource(s) failed: [{name}].") from error
        piece.policy = told.get("DeletionPolicy", "Delete")
        stack.record_resource_status(piece, f"{verb}_COMPLETE", None, token)

    def _create_or_update(
        self,
        stack: StackRecord,
        piece: StackResource,
        old: StackResource | None,
        told: TemplateNode,
        properties: Any,
    ) -> StackResource:
        kind = told["Type"]
        type_ = RESOURCE_TYPES.get(kind)
        if type_ is None:
            raise ValueError(f"This endpoint does not make {kind}")
        if strange := properties.keys() - type_.property_names:
            raise ValueError(f"This endpoint does not know {kind}.{sorted(strange)[0]}")
        asked = ResourceRequest(
            properties, self._physical_name(stack, piece), self.services, ACCOUNT, self.region
        )
        if old and old.type == kind and type_.update:
            type_.update(asked, old)
            old.properties = properties
            return old
        if old:
            RESOURCE_TYPES[old.type].remove(self.services, old)
        made = type_.create(asked)
        return StackResource(piece.logical, kind, properties, made.ref, dict(made.attributes))

    def _physical_name(self, stack: StackRecord, piece: StackResource) -> str:
        """A physical name as CloudFormation makes it; small letters for a bucket."""
        unique = hashlib.sha256(f"{stack.arn}/{piece.logical}".encode()).hexdigest()[:12]
        name = f"{stack.name[:24]}-{piece.logical[:24]}-{unique}"
        return re.sub(r"[^a-z0-9-]", "", name.lower()) if piece.type == "AWS::S3::Bucket" else name

    def _remove_resources(
        self, stack: StackRecord, pieces: Iterator[StackResource], kept: set[str], token: str | None
    ) -> list[StackResource]:
        """Remove these; returns those that could not be."""
        left = []
        for piece in list(pieces):
            if piece.status == "DELETE_COMPLETE":
                continue
            if piece.policy in kept and piece.physical:
                stack.record_resource_status(piece, "DELETE_SKIPPED", None, token)
                continue
            if not piece.physical:
                stack.record_resource_status(piece, "DELETE_COMPLETE", None, token)
                continue
            stack.record_resource_status(piece, "DELETE_IN_PROGRESS", None, token)
            try:
                RESOURCE_TYPES[piece.type].remove(self.services, piece)
            except Exception as error:  # it stays, and the stack says why
                if not _is_not_found(error):
                    stack.record_resource_status(piece, "DELETE_FAILED", str(error), token)
                    left.append(piece)
                    continue
            stack.record_resource_status(piece, "DELETE_COMPLETE", None, token)
            self.save()
        return left

    def detect_drift(self, piece: StackResource) -> tuple[str, list[str]]:
        """Whether a resource is still what the template says, and where it is not."""
        type_ = RESOURCE_TYPES[piece.type]
        if type_.detect_drift is None:
            return "NOT_CHECKED", []
        try:
            found = type_.detect_drift(self.services, piece)
        except Exception:  # it was removed behind the stack's back
            return "DELETED", []
        return ("MODIFIED", found) if found else ("IN_SYNC", [])


def _is_not_found(error: Exception) -> bool:
    """Whether a service says that there is no such thing: then nothing is left to remove."""
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    return "NotFound" in code or code.startswith("NoSuch")


class _ResourceFailed(Exception):
    """A resource could not be made; its event says why."""
