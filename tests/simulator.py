"""IAM's policy simulator, which moto lacks: everything is allowed but what is named."""

from __future__ import annotations

from typing import Any

import pytest

ANSWER = """<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
<SimulatePrincipalPolicyResult><EvaluationResults><member>
<EvalActionName>{action}</EvalActionName><EvalDecision>{decision}</EvalDecision>
</member></EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"""


def simulate(patch: pytest.MonkeyPatch, *denied: str) -> None:
    """Teach moto the operation."""
    from moto.iam.responses import IamResponse

    def simulate_principal_policy(self: Any) -> str:
        action = self._get_params()["ActionNames"][0]
        decision = "implicitDeny" if action in denied else "allowed"
        return ANSWER.format(action=action, decision=decision)

    name = simulate_principal_policy.__name__
    patch.setattr(IamResponse, name, simulate_principal_policy, raising=False)
