"""The work on a stack: making, changing and removing what its template says, and going back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.stacks import machines, messages, network, permissions, storage
from cloudft.endpoint.stacks.records import Change, Piece, StackRecord
from cloudft.endpoint.stacks.types import TYPES, Asked, Services
from cloudft.endpoint.state import ACCOUNT
from cloudft.infrastructure.evaluate import Made, Scope, in_order
from cloudft.infrastructure.template import Tree, parse

__all__ = [
    "Engine",
    "machines",
    "messages",
    "network",
    "permissions",
    "storage",
]  # the rooms fill TYPES
KEPT_ALWAYS = {"Retain"}
KEPT_ON_DELETION = {"Retain", "RetainExceptOnCreate"}


@dataclass(frozen=True)
class Engine:
    """Works with the services beside it. `save` is called whenever something has happened.

    Under `lock` nobody looks at a stack.
    """

    services: Services
    region: str
    save: Callable[[], None]
    lock: AbstractContextManager[Any]

    def tell(self, stack: StackRecord, status: str, reason: str | None, token: str | None) -> None:
        """Where the stack is now: kept before anybody can see it, or a crash would take it back."""
        with self.lock:
            stack.tell(status, reason, token)
            self.save()

    def scope(self, stack: StackRecord, template: Tree, given: Mapping[str, str]) -> Scope:
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
            name: Made(piece.physical, piece.attributes)
            for name, piece in stack.pieces.items()
            if piece.physical
        }
        return Scope(template, given, pseudo, made, self._zones)

    def _zones(self) -> list[str]:
        zones = self.services("ec2").describe_availability_zones()["AvailabilityZones"]
        return [zone["ZoneName"] for zone in zones]

    def changes(self, stack: StackRecord, text: str, given: Mapping[str, str]) -> list[Change]:
        """What a template and its values would change. What depends on a change may change too."""
        template = parse(text)
        wanted = self.scope(stack, template, given).resources()
        found = [
            Change("Add", name, told["Type"])
            for name, told in wanted.items()
            if name not in stack.pieces
        ]
        before = (
            self._resolved(stack, parse(stack.template), stack.parameters) if stack.pieces else {}
        )
        after = self._resolved(stack, template, given) if stack.pieces else {}
        for name, piece in stack.pieces.items():
            if name not in wanted:
                found.append(Change("Remove", name, piece.type, piece.physical))
            elif before.get(name) != after.get(name):
                type_ = TYPES.get(piece.type)
                again = "False" if type_ and type_.update else "True"
                found.append(Change("Modify", name, piece.type, piece.physical, again))
        return found

    def _resolved(
        self, stack: StackRecord, template: Tree, given: Mapping[str, str]
    ) -> dict[str, Any]:
        """Properties of the resources that are there; None for those that wait for a new one."""
        scope = self.scope(stack, template, given)
        found: dict[str, Any] = {}
        for name, told in scope.resources().items():
            try:
                found[name] = scope.resolve(told.get("Properties", {}))
            except ValueError:
                found[name] = None
        return found

    def create(self, stack: StackRecord, token: str | None) -> None:
        """Make everything; or nothing, and say why."""
        try:
            self._build(stack, token)
        except _Failed as failure:
            self.tell(stack, "ROLLBACK_IN_PROGRESS", str(failure), token)
            left = self._remove(stack, reversed(list(stack.pieces.values())), KEPT_ALWAYS, token)
            self.tell(stack, "ROLLBACK_FAILED" if left else "ROLLBACK_COMPLETE", None, token)
        else:
            self.tell(stack, "CREATE_COMPLETE", None, token)

    def update(self, stack: StackRecord, before: StackRecord, token: str | None) -> None:
        """Make the stack what its template now says; or what it was `before`."""
        try:
            self._build(stack, token)
        except _Failed as failure:
            stack.template, stack.parameters = before.template, before.parameters
            self.tell(stack, "UPDATE_ROLLBACK_IN_PROGRESS", str(failure), token)
            try:
                self._build(stack, token)
            except _Failed as again:
                self.tell(stack, "UPDATE_ROLLBACK_FAILED", str(again), token)
            else:
                self.tell(stack, "UPDATE_ROLLBACK_COMPLETE", None, token)
        else:
            self.tell(stack, "UPDATE_COMPLETE", None, token)

    def delete(self, stack: StackRecord, token: str | None) -> None:
        """Remove everything that is not to be kept."""
        pieces = reversed(list(stack.pieces.values()))
        left = self._remove(stack, pieces, KEPT_ON_DELETION, token)
        if left:
            names = ", ".join(piece.logical for piece in left)
            what = f"The following resource(s) failed to delete: [{names}]."
            self.tell(stack, "DELETE_FAILED", what, token)
        else:
            self.tell(stack, "DELETE_COMPLETE", None, token)

    def _build(self, stack: StackRecord, token: str | None) -> None:
        template = parse(stack.template)
        scope = self.scope(stack, template, stack.parameters)
        wanted = scope.resources()
        for name in in_order(wanted):
            scope = self.scope(stack, template, stack.parameters)
            self._bring(stack, name, wanted[name], scope, token)
            self.save()
        extra = [piece for name, piece in stack.pieces.items() if name not in wanted]
        self._remove(stack, reversed(extra), KEPT_ALWAYS, token)
        stack.pieces = {name: stack.pieces[name] for name in in_order(wanted)}
        stack.outputs = self.scope(stack, template, stack.parameters).outputs()

    def _bring(
        self, stack: StackRecord, name: str, told: Tree, scope: Scope, token: str | None
    ) -> None:
        """One resource as the template says it: made, changed, or left as it is."""
        old = stack.pieces.get(name)
        verb = "UPDATE" if old else "CREATE"
        piece = old or Piece(name, told["Type"], {})
        try:
            properties = scope.resolve(told.get("Properties", {}))
            if old and old.properties == properties and old.type == told["Type"]:
                return
            stack.pieces[name] = piece
            stack.tell_of(piece, f"{verb}_IN_PROGRESS", None, token)
            stack.pieces[name] = piece = self._put(stack, piece, old, told, properties)
        except Exception as error:  # whatever a service says is the resource's reason
            reason = f"{error}"
            stack.tell_of(piece, f"{verb}_FAILED", reason, token)
            raise _Failed(f"The following resource(s) failed: [{name}].") from error
        piece.policy = told.get("DeletionPolicy", "Delete")
        stack.tell_of(piece, f"{verb}_COMPLETE", None, token)

    def _put(
        self, stack: StackRecord, piece: Piece, old: Piece | None, told: Tree, properties: Any
    ) -> Piece:
        kind = told["Type"]
        type_ = TYPES.get(kind)
        if type_ is None:
            raise ValueError(f"This endpoint does not make {kind}")
        if strange := properties.keys() - type_.known:
            raise ValueError(f"This endpoint does not know {kind}.{sorted(strange)[0]}")
        asked = Asked(properties, self._name(stack, piece), self.services, ACCOUNT, self.region)
        if old and old.type == kind and type_.update:
            type_.update(asked, old)
            old.properties = properties
            return old
        if old:
            TYPES[old.type].remove(self.services, old)
        made = type_.make(asked)
        return Piece(piece.logical, kind, properties, made.ref, dict(made.attributes))

    def _name(self, stack: StackRecord, piece: Piece) -> str:
        """A physical name as CloudFormation makes it; small letters for a bucket."""
        unique = hashlib.sha256(f"{stack.arn}/{piece.logical}".encode()).hexdigest()[:12]
        name = f"{stack.name[:24]}-{piece.logical[:24]}-{unique}"
        return re.sub(r"[^a-z0-9-]", "", name.lower()) if piece.type == "AWS::S3::Bucket" else name

    def _remove(
        self, stack: StackRecord, pieces: Iterator[Piece], kept: set[str], token: str | None
    ) -> list[Piece]:
        """Remove these; returns those that could not be."""
        left = []
        for piece in list(pieces):
            if piece.status == "DELETE_COMPLETE":
                continue
            if piece.policy in kept and piece.physical:
                stack.tell_of(piece, "DELETE_SKIPPED", None, token)
                continue
            if not piece.physical:
                stack.tell_of(piece, "DELETE_COMPLETE", None, token)
                continue
            stack.tell_of(piece, "DELETE_IN_PROGRESS", None, token)
            try:
                TYPES[piece.type].remove(self.services, piece)
            except Exception as error:  # it stays, and the stack says why
                if not _is_gone(error):
                    stack.tell_of(piece, "DELETE_FAILED", str(error), token)
                    left.append(piece)
                    continue
            stack.tell_of(piece, "DELETE_COMPLETE", None, token)
            self.save()
        return left

    def drifted(self, piece: Piece) -> tuple[str, list[str]]:
        """Whether a resource is still what the template says, and where it is not."""
        type_ = TYPES[piece.type]
        if type_.drifted is None:
            return "NOT_CHECKED", []
        try:
            found = type_.drifted(self.services, piece)
        except Exception:  # it was removed behind the stack's back
            return "DELETED", []
        return ("MODIFIED", found) if found else ("IN_SYNC", [])


def _is_gone(error: Exception) -> bool:
    """Whether a service says that there is no such thing: then nothing is left to remove."""
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    return "NotFound" in code or code.startswith("NoSuch")


class _Failed(Exception):
    """A resource could not be made; its event says why."""
