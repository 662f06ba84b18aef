"""Plan the changes that a request makes to a stack, and start them.

CreateStack and UpdateStack are a change set that is executed at once.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Mapping

from cloudft.endpoint.cloudformation.engine import StackEngine
from cloudft.endpoint.cloudformation.records import ChangeSetRecord, StackRecord, now
from cloudft.endpoint.cloudformation.shapes import StackRequest
from cloudft.endpoint.cloudformation.store import StackStore, refuse_unsupported
from cloudft.endpoint.cloudformation.templates import TemplateReader, check_template, load_template
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.infra.template import parse_parameters, parse_template

NO_CHANGES = (
    "The submitted information didn't contain changes. Submit different information to create a"
    " change set."
)
STACK_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,127}")
"""Names of new stacks (API reference, "CreateStack"); botocore's model has no such pattern."""
UPDATABLE_STATUSES = {
    *("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"),
    # Left as they were by DisableRollback (user guide, "Choose how to handle failures").
    *("CREATE_FAILED", "UPDATE_FAILED"),
}


class StackOperations:
    """What the operations on change sets and those on stacks share. Callers hold the lock."""

    def __init__(self, store: StackStore, engine: StackEngine, reader: TemplateReader) -> None:
        self.store = store
        self.engine = engine
        self.reader = reader

    def read_template(self, request: StackRequest) -> str | None:
        """Return the request's template; None for the stack's previous one.

        Raises ServiceError for a request that this endpoint can't fulfill. Called without the lock:
        the template may be in a bucket.
        """
        refuse_unsupported(request)
        return None if request.get("UsePreviousTemplate") else self.reader.read(request)

    def plan(
        self, request: StackRequest, kind: str, text: str | None
    ) -> tuple[StackRecord, ChangeSetRecord]:
        """Return the stack, a new one for CREATE, and its change set without ARN and name.

        Neither is stored. Raises ServiceError for what AWS would refuse.
        """
        stack = self._stack_to_change(kind, request["StackName"])
        text = stack.template if text is None else text
        template = load_template(text)
        values = _parameter_values(request, stack)
        try:
            scope = self.engine.scope(stack, template, values)
            check_template(template, values, scope, request)
            declared = parse_parameters(template)
            parameters = {name: values.get(name, p.default or "") for name, p in declared.items()}
            changes = self.engine.compute_changes(stack, text, parameters)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"Template format error: {error}"
            raise ServiceError("ValidationError", message) from error
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
        change_set = ChangeSetRecord("", "", stack.arn, kind, text, parameters, tags, changes)
        change_set.role = request.get("RoleARN")
        if not changes and (tags or stack.tags) == stack.tags:
            change_set.status, change_set.execution = "FAILED", "UNAVAILABLE"
            change_set.reason = NO_CHANGES
        return stack, change_set

    def _stack_to_change(self, kind: str, name: str) -> StackRecord:
        stack = self.store.find_stack(name)
        if kind == "CREATE":
            if stack is not None and stack.status != "REVIEW_IN_PROGRESS":
                raise ServiceError("AlreadyExistsException", f"Stack [{name}] already exists")
            if not STACK_NAME.fullmatch(name):
                rule = f"Member must satisfy regular expression pattern: {STACK_NAME.pattern}"
                message = (
                    f"Value '{name[:200]}' at 'stackName' failed to satisfy constraint: {rule}"
                )
                raise ServiceError("ValidationError", f"1 validation error detected: {message}")
            return stack or StackRecord(self.store.new_arn("stack", name), name)
        if stack is None or stack.status == "REVIEW_IN_PROGRESS":
            raise ServiceError("ValidationError", f"Stack [{name}] does not exist")
        if stack.status not in UPDATABLE_STATUSES:
            what = f"Stack:{stack.arn} is in {stack.status} state and can not be updated."
            raise ServiceError("ValidationError", what)
        return stack

    def start(self, stack: StackRecord, change_set: ChangeSetRecord, token: str | None) -> None:
        """Start to create or update the stack, in a thread."""
        before = copy.deepcopy(stack)
        stack.template, stack.parameters = change_set.template, change_set.parameters
        stack.tags = change_set.tags or stack.tags
        stack.role = change_set.role or stack.role
        stack.description = parse_template(change_set.template).get("Description")
        stack.keeps_failed = change_set.on_failure == "DO_NOTHING"
        # AWS deletes all change sets of the stack. So a second execution finds none, and can't
        # start the operation twice.
        change_sets = self.store.state.change_sets
        for other in [c for c in change_sets.values() if c.stack == stack.arn]:
            del change_sets[other.arn]
        work: Callable[[], None]
        if change_set.kind == "CREATE":
            stack.record_status("CREATE_IN_PROGRESS", "User Initiated", token)
            work = lambda: self.engine.create(stack, token, change_set.on_failure)  # noqa: E731
        else:
            stack.updated = now()
            stack.record_status("UPDATE_IN_PROGRESS", "User Initiated", token)
            work = lambda: self.engine.update(stack, before, token)  # noqa: E731
        self.store.state.save()
        threading.Thread(target=work, daemon=True).start()


def _parameter_values(request: StackRequest, stack: StackRecord) -> Mapping[str, str]:
    """Return the parameters of the request: new values and previous ones."""
    values = {}
    for parameter in request.get("Parameters", ()):
        key = parameter.get("ParameterKey", "")
        previous = parameter.get("UsePreviousValue") and key in stack.parameters
        values[key] = stack.parameters[key] if previous else parameter.get("ParameterValue", "")
    return values
