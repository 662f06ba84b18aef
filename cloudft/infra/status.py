"""A stack as it stands: outputs, what has drifted from its template, what it costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.backends.partial_listing import unavailable_part
from cloudft.errors import CloudRefused, CloudUnreachable
from cloudft.infra import change_sets
from cloudft.infra import template as templates
from cloudft.infra.change_sets import SERVICE, Sleep
from cloudft.infra.costs import ResourceCost, resource_costs
from cloudft.infra.intrinsics import TemplateScope
from cloudft.types import UnavailablePart


@dataclass(frozen=True)
class Drift:
    """A resource that is not what its template says. `properties` is empty for one that is gone."""

    resource: str
    type: str
    status: str
    properties: Sequence[str]


@dataclass(frozen=True)
class StackReport:
    """One look. `drift` None: it was not looked for, or could not be; `why` says so.

    `costs` is None where the template can't be read. What can't be read is `unavailable`, too.
    """

    stack: Stack
    drift: Sequence[Drift] | None
    drift_unknown: str | None
    costs: Sequence[ResourceCost] | None
    unavailable: tuple[UnavailablePart, ...] = ()


def get_stack_report(aws: Aws, name: str, *, drift: bool, sleep: Sleep = time.sleep) -> StackReport:
    """The stack, its drift and its cost.

    Raises AwsNotFound, AwsRefused and AwsUnreachable where the stack itself can't be read.
    """
    stack = change_sets.find_stack(aws, name)
    if stack is None:
        raise stacks.stack_not_found(name, aws)
    found, why, priced = None, "not asked", None
    missing: list[UnavailablePart] = []
    if drift:
        try:
            found, why = _detect_drift(aws, stack, sleep), ""
        except (CloudRefused, CloudUnreachable) as error:
            why = error.message
            missing.append(unavailable_part(f"the drift of {name}", error))
    try:
        priced = _stack_costs(aws, stack)
    except (CloudRefused, CloudUnreachable) as error:
        missing.append(unavailable_part(f"the template of {name}", error))
    return StackReport(stack, found, why or None, priced, tuple(missing))


def _detect_drift(aws: Aws, stack: Stack, sleep: Sleep) -> list[Drift]:
    what = f"the drift of {stack.name} can't be looked at"
    begun = aws.call(what, SERVICE, "detect_stack_drift", StackName=stack.id)
    which = {"StackDriftDetectionId": begun["StackDriftDetectionId"]}
    operation = "describe_stack_drift_detection_status"
    while (told := aws.call(what, SERVICE, operation, **which))["DetectionStatus"] == (
        "DETECTION_IN_PROGRESS"
    ):
        sleep(2.0)
    if told["DetectionStatus"] == "DETECTION_FAILED":
        raise CloudRefused(f"{what}: {told.get('DetectionStatusReason')}", fix="try again.")
    return list(_list_drifts(aws, stack, what))


def _list_drifts(aws: Aws, stack: Stack, what: str) -> list[Drift]:
    found: list[Drift] = []
    more: dict[str, Any] = {"StackResourceDriftStatusFilters": ["MODIFIED", "DELETED"]}
    while True:
        operation = "describe_stack_resource_drifts"
        page = aws.call(what, SERVICE, operation, StackName=stack.id, **more)
        found += [_to_drift(one) for one in page["StackResourceDrifts"]]
        if not page.get("NextToken"):
            return found
        more["NextToken"] = page["NextToken"]


def _to_drift(told: Mapping[str, Any]) -> Drift:
    return Drift(
        told["LogicalResourceId"],
        told["ResourceType"],
        told["StackResourceDriftStatus"],
        tuple(p["PropertyPath"].strip("/") for p in told.get("PropertyDifferences", ())),
    )


def _stack_costs(aws: Aws, stack: Stack) -> list[ResourceCost]:
    what = f"the template of {stack.name} can't be read"
    told = aws.call(what, SERVICE, "get_template", StackName=stack.id)["TemplateBody"]
    template = templates.parse_template(told) if isinstance(told, str) else told
    return template_costs(template, stack.parameters)


def template_costs(
    template: templates.TemplateNode, parameter_values: Mapping[str, str]
) -> list[ResourceCost]:
    """What a template with those parameters costs while it stands."""
    return resource_costs(TemplateScope(template, parameter_values, {}, {}).active_resources())
