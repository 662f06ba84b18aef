"""IAM's policy simulator, by the policies in IAM beside this endpoint.

It says what the policies say, also without `--authorization`, where jobs may do everything. Source:
IAM API reference, "SimulatePrincipalPolicy" and "SimulateCustomPolicy".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from cloudft.endpoint.iam.authorizer import ANONYMOUS_PRINCIPAL, PolicyAuthorizer, PrincipalPolicies
from cloudft.endpoint.iam.policies import (
    ALLOWED,
    AccessRequest,
    Statement,
    evaluate_policies,
    list_statements,
)
from cloudft.endpoint.protocols.messages import Parameters, Response, ServiceError

DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
"""Results on a page."""
UNSUPPORTED = (
    *("OrderedOrganizationPolicyInputList", "PolicyExclusionList", "ResourceHandlingOption"),
    *("ResourceOwner", "ResourcePolicy"),
)
"""Members of requests that would change decisions, and that are not implemented."""


class PolicySimulator:
    """The operations of the policy simulator."""

    def __init__(self, authorizer: PolicyAuthorizer) -> None:
        self.authorizer = authorizer

    def simulate_principal_policy(self, parameters: Parameters) -> Parameters:
        """Return the decision on each action and each resource, for a user, a group or a role."""
        principal = parameters["PolicySourceArn"]
        if principal == ANONYMOUS_PRINCIPAL:
            return _answer(parameters, lambda _: {"EvalDecision": ALLOWED})
        found = self.authorizer.read_policies(principal)
        added = list(_input_statements(parameters, "PolicyInputList"))
        boundary = _input_boundary(parameters)
        policies = PrincipalPolicies(
            [*found.statements, *added],
            found.boundary if boundary is None else boundary,
            found.own_keys,
        )
        return _answer(parameters, lambda request: _decide(policies, request))

    def simulate_custom_policy(self, parameters: Parameters) -> Parameters:
        """Return the decision on each action and each resource, by the policies of the request."""
        statements = list(_input_statements(parameters, "PolicyInputList"))
        policies = PrincipalPolicies(statements, _input_boundary(parameters), {})
        return _answer(parameters, lambda request: _decide(policies, request))


def _answer(parameters: Parameters, decide: Callable[[AccessRequest], Response]) -> Parameters:
    """Return one page of decisions. Raises ServiceError."""
    if given := [name for name in UNSUPPORTED if parameters.get(name)]:
        message = f"{', '.join(given)} is not offered by this endpoint"
        raise ServiceError("ValidationError", message)
    size = min(parameters.get("MaxItems", DEFAULT_PAGE), LARGEST_PAGE)
    marker = parameters.get("Marker", "0")
    if not marker.isdecimal():
        raise ServiceError("ValidationError", "Invalid Marker")
    requests, start = list(_access_requests(parameters)), int(marker)
    end = start + size
    results = [
        {
            "EvalActionName": request.action,
            "EvalResourceName": request.resource,
            "MatchedStatements": [],
            "MissingContextValues": [],
            **decide(request),
        }
        for request in requests[start:end]
    ]
    is_truncated = end < len(requests)
    return {
        "EvaluationResults": results,
        "IsTruncated": is_truncated,
        "Marker": str(end) if is_truncated else None,
    }


def _access_requests(parameters: Parameters) -> Iterator[AccessRequest]:
    context = {
        entry["ContextKeyName"]: entry.get("ContextKeyValues", [])
        for entry in parameters.get("ContextEntries", ())
        if "ContextKeyName" in entry
    }
    for action in parameters["ActionNames"]:
        for resource in parameters.get("ResourceArns") or ["*"]:
            yield AccessRequest(action, resource, context)


def _decide(policies: PrincipalPolicies, request: AccessRequest) -> Response:
    try:
        decision: Response = {"EvalDecision": policies.decide(request)}
        if policies.boundary is not None:
            complete = policies.complete(request)
            within = evaluate_policies(policies.boundary, complete) == ALLOWED
            decision["PermissionsBoundaryDecisionDetail"] = {"AllowedByPermissionsBoundary": within}
    except (ValueError, KeyError) as error:
        raise ServiceError("PolicyEvaluation", str(error)) from error
    return decision


def _input_statements(parameters: Parameters, member: str) -> Iterator[Statement]:
    """Yield the statements of policies in a request. Raises ServiceError (InvalidInput)."""
    for text in parameters.get(member, ()):
        try:
            document = json.loads(text)
            statements = list_statements(document)
        except (ValueError, AttributeError):
            raise ServiceError("InvalidInput", f"{member} has a policy that is no JSON") from None
        if not all(isinstance(s, dict) and "Effect" in s for s in statements):
            raise ServiceError("InvalidInput", f"{member} has a statement without an Effect")
        yield from statements


def _input_boundary(parameters: Parameters) -> Sequence[Statement] | None:
    member = "PermissionsBoundaryPolicyInputList"
    return list(_input_statements(parameters, member)) if parameters.get(member) else None
