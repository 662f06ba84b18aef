"""Report the state of a stack: outputs, drift from its template, and cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.backends.partial_listing import unavailable_part
from cloudft.errors import CloudRefused, CloudUnreachable
from cloudft.infra import change_sets
from cloudft.infra import template as templates
from cloudft.infra.change_sets import Sleep
from cloudft.infra.costs import ResourceCost, resource_costs
from cloudft.infra.intrinsics import TemplateScope
from cloudft.infra.ownership import SERVICE
from cloudft.types import UnavailablePart

DRIFT_POLL_S = 2.0
DRIFTED = ("MODIFIED", "DELETED")


@dataclass(frozen=True)
class Drift:
    """A resource that differs from its template. `properties` is empty for a deleted one."""

    resource: str
    type: str
    status: str
    properties: Sequence[str]


@dataclass(frozen=True)
class StackReport:
    """The state of a stack at one time.

    `drift` is None when it was not detected; `drift_unknown` is the reason. `costs` is None when
    the template can't be read. Everything that can't be read is also in `unavailable`.
    """

    stack: Stack
    drift: Sequence[Drift] | None
    drift_unknown: str | None
    costs: Sequence[ResourceCost] | None
    unavailable: tuple[UnavailablePart, ...] = ()


def get_stack_report(aws: Aws, name: str, *, drift: bool, sleep: Sleep = time.sleep) -> StackReport:
    """Return the stack, its drift and its cost.

    Raises ResourceNotFound, CloudRefused and CloudUnreachable when the stack can't be read.
    """
    stack = change_sets.find_stack(aws, name)
    if stack is None:
        raise stacks.stack_not_found(name, aws)
    drifts, drift_unknown, costs = None, "not requested", None
    unavailable: list[UnavailablePart] = []
    if drift:
        try:
            drifts, drift_unknown = _detect_drift(aws, stack, sleep), ""
        except (CloudRefused, CloudUnreachable) as error:
            drift_unknown = error.message
            unavailable.append(unavailable_part(f"the drift of {name}", error))
    try:
        costs = _stack_costs(aws, stack)
    except (CloudRefused, CloudUnreachable) as error:
        unavailable.append(unavailable_part(f"the template of {name}", error))
    return StackReport(stack, drifts, drift_unknown or None, costs, tuple(unavailable))


class StackJson(TypedDict):
    """A stack in the JSON output of `infra deploy` and `infra status`."""

    name: str
    id: str
    status: str
    reason: str | None
    outputs: Mapping[str, str]
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    protected: bool
    changed: str


def stack_to_json(stack: Stack) -> StackJson:
    """Return a stack with the keys that scripts rely on."""
    return {
        "name": stack.name,
        "id": stack.id,
        "status": stack.status,
        "reason": stack.reason,
        "outputs": stack.outputs,
        "parameters": stack.parameters,
        "tags": stack.tags,
        "protected": stack.termination_protection,
        "changed": stack.changed_at,
    }


def _detect_drift(aws: Aws, stack: Stack, sleep: Sleep) -> list[Drift]:
    failure = f"can't detect the drift of {stack.name}"
    started = aws.call(failure, SERVICE, "detect_stack_drift", StackName=stack.id)
    detection = {"StackDriftDetectionId": started["StackDriftDetectionId"]}
    operation = "describe_stack_drift_detection_status"
    while True:
        state = aws.call(failure, SERVICE, operation, **detection)
        if state["DetectionStatus"] != "DETECTION_IN_PROGRESS":
            break
        sleep(DRIFT_POLL_S)
    if state["DetectionStatus"] == "DETECTION_FAILED":
        raise CloudRefused(f"{failure}: {state.get('DetectionStatusReason')}", fix="try again.")
    return list(_list_drifts(aws, stack, failure))


class _Difference(TypedDict):
    PropertyPath: str


class _ResourceDriftFields(TypedDict, total=False):
    PropertyDifferences: list[_Difference]


class _ResourceDrift(_ResourceDriftFields):
    """A resource's drift, as DescribeStackResourceDrifts returns it."""

    LogicalResourceId: str
    ResourceType: str
    StackResourceDriftStatus: str


def _list_drifts(aws: Aws, stack: Stack, failure: str) -> Iterator[Drift]:
    # Paged by hand: botocore (1.44) has no paginator for this operation.
    token: dict[str, str] = {}
    while True:
        page = aws.call(
            failure,
            SERVICE,
            "describe_stack_resource_drifts",
            StackName=stack.id,
            StackResourceDriftStatusFilters=DRIFTED,
            **token,
        )
        yield from map(_to_drift, page["StackResourceDrifts"])
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}


def _to_drift(drift: _ResourceDrift) -> Drift:
    return Drift(
        drift["LogicalResourceId"],
        drift["ResourceType"],
        drift["StackResourceDriftStatus"],
        tuple(p["PropertyPath"].strip("/") for p in drift.get("PropertyDifferences", ())),
    )


def _stack_costs(aws: Aws, stack: Stack) -> list[ResourceCost]:
    failure = f"can't read the template of {stack.name}"
    body = aws.call(failure, SERVICE, "get_template", StackName=stack.id)["TemplateBody"]
    # boto3 returns a template in JSON as a parsed value, one in YAML as text.
    template = templates.parse_template(body) if isinstance(body, str) else body
    return template_costs(template, stack.parameters)


def template_costs(
    template: templates.TemplateNode, parameter_values: Mapping[str, str]
) -> list[ResourceCost]:
    """Return what a template's resources cost with these parameter values."""
    return resource_costs(TemplateScope(template, parameter_values, {}, {}).active_resources())
