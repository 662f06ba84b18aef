"""IAM's policy simulator, which moto lacks: everything is allowed but what is named."""

from __future__ import annotations

from typing import Any

import pytest

RESPONSE = """<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
<SimulatePrincipalPolicyResult><EvaluationResults>{results}</EvaluationResults>
</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"""
RESULT = """<member><EvalActionName>{action}</EvalActionName>
<EvalDecision>{decision}</EvalDecision></member>"""


def patch_policy_simulator(patch: pytest.MonkeyPatch, *denied: str) -> None:
    """Add IAM's policy simulator to moto; it denies the named actions and allows all others."""
    from moto.iam.responses import IamResponse

    def simulate_principal_policy(self: Any) -> str:
        results = [
            RESULT.format(action=a, decision="implicitDeny" if a in denied else "allowed")
            for a in self._get_params()["ActionNames"]
        ]
        return RESPONSE.format(results="".join(results))

    name = simulate_principal_policy.__name__
    patch.setattr(IamResponse, name, simulate_principal_policy, raising=False)
