"""Find stacks and change sets of the endpoint's state, by name or ARN."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from cloudft.endpoint.cloudformation.records import ChangeSetRecord, StackRecord
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import ACCOUNT, State


class StackStore:
    """The stacks and change sets of one Region. Callers hold the lock of `state`."""

    def __init__(self, state: State) -> None:
        self.state = state

    def find_stack(self, name: str) -> StackRecord | None:
        """Return a stack by name or ARN. A deleted stack has only its ARN: the name is free."""
        if name in self.state.stacks:
            return self.state.stacks[name]
        stacks = self.state.stacks.values()
        return next(
            (stack for stack in stacks if stack.name == name and not stack.is_deleted), None
        )

    def require_stack(self, name: str) -> StackRecord:
        """Return a stack by name or ARN. Raises ServiceError (ValidationError)."""
        stack = self.find_stack(name)
        if stack is None:
            raise ServiceError("ValidationError", f"Stack with id {name} does not exist")
        return stack

    def require_change_set(self, name: str, stack_name: str | None) -> ChangeSetRecord:
        """Return a change set by ARN, or by its name and its stack's.

        Raises ServiceError (ChangeSetNotFound).
        """
        stack = self.find_stack(stack_name) if stack_name is not None else None
        for known in self.state.change_sets.values():
            if known.arn == name or (stack and known.stack == stack.arn and known.name == name):
                return known
        raise ServiceError("ChangeSetNotFound", f"ChangeSet [{name}] does not exist")

    def new_arn(self, kind: str, name: str) -> str:
        """Return a new ARN of a `stack` or a `changeSet`."""
        return f"arn:aws:cloudformation:{self.state.region}:{ACCOUNT}:{kind}/{name}/{uuid.uuid4()}"


UNSUPPORTED = (
    *("DeploymentConfig", "DeploymentMode", "ImportExistingResources", "IncludeNestedStacks"),
    *("NotificationARNs", "ResourceTypes", "ResourcesToImport", "RetainExceptOnCreate"),
    *("RollbackTriggers", "StackPolicyBody", "StackPolicyDuringUpdateBody"),
    *("StackPolicyDuringUpdateURL", "StackPolicyURL"),
)
"""Members of requests that would change what an operation does, and that are not implemented."""


def refuse_unsupported(request: Mapping[str, object]) -> None:
    """Raise ServiceError (ValidationError) for a member that this endpoint would ignore.

    An empty or false one says what happens here anyway: CDK and the AWS CLI send such.
    """
    rollback = request.get("RollbackConfiguration")
    given = {**request, **(rollback if isinstance(rollback, dict) else {})}
    names = [name for name in UNSUPPORTED if given.get(name)]
    if names:
        message = f"{', '.join(names)} is not offered by this endpoint"
        raise ServiceError("ValidationError", message)
