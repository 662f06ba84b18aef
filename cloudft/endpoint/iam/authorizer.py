"""Who may do what, by the policies that stand in IAM beside this endpoint.

With `--authorization`, jobs reach S3, and write their logs, as their role: what its policies don't
allow is refused, and so is a role that does not trust the job's service. IAM's policy simulator is
answered from the same policies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import ClientError

from cloudft.endpoint.iam.policies import (
    ALLOWED,
    AccessRequest,
    Statement,
    allows_assume_role,
    evaluate_policies,
    list_statements,
)
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import ACCOUNT

BEDROCK_PRINCIPAL, SAGEMAKER_PRINCIPAL = "bedrock.amazonaws.com", "sagemaker.amazonaws.com"
S3_ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
}
"""What each call of S3 needs; another call is not a job's to make."""
KMS_ACTIONS = {"s3:GetObject": "kms:Decrypt", "s3:PutObject": "kms:GenerateDataKey"}
"""What is needed of the key of an encrypted bucket besides."""
LOGS_OPERATIONS = {"CreateLogGroup", "CreateLogStream", "PutLogEvents"}
"""The calls of CloudWatch Logs that a job makes; each is an action of its own name."""
ANONYMOUS_PRINCIPAL = f"arn:aws:sts::{ACCOUNT}:user/moto"
"""What moto calls those whose key is no user's: here they may do everything."""
ClientGetter = Callable[[str], Any]


class PolicyAuthorizer:
    """Reads IAM at each question: a policy that was changed counts at once."""

    def __init__(self, client: ClientGetter, region: str) -> None:
        self.client = client
        self.region = region

    def decide(self, principal: str, *requests: AccessRequest) -> list[str]:
        """What the policies of a user or a role say. Raises WireError for one that is not there."""
        kind, _, name = principal.rpartition(":")[2].partition("/")
        name = name.rpartition("/")[2]
        if kind not in ("role", "user"):
            raise ServiceError("InvalidInput", f"{principal} is no user and no role")
        try:
            found = list(self._identity_statements(kind, name))
            boundary = self._boundary_statements(kind, name)
        except ClientError as error:
            what = f"The {kind} with name {name} cannot be found."
            raise ServiceError("NoSuchEntity", what) from error
        own = {"aws:username": name} if kind == "user" else {}
        whole = [AccessRequest(r.action, r.resource, {**own, **r.context}) for r in requests]
        return [evaluate_policies(found, request, boundary) for request in whole]

    def _identity_statements(self, kind: str, name: str) -> Iterator[Statement]:
        yield from self._statements_of(kind, name)
        if kind == "user":
            groups = self.client("iam").list_groups_for_user(UserName=name)["Groups"]
            for group in groups:
                yield from self._statements_of("group", group["GroupName"])

    def _statements_of(self, kind: str, name: str) -> Iterator[Statement]:
        """The statements of a user, a role or a group: inline, then attached."""
        iam, who = self.client("iam"), {f"{kind.capitalize()}Name": name}
        for policy in getattr(iam, f"list_{kind}_policies")(**who)["PolicyNames"]:
            answer = getattr(iam, f"get_{kind}_policy")(**who, PolicyName=policy)
            yield from list_statements(_parse_policy(answer["PolicyDocument"]))
        attached = getattr(iam, f"list_attached_{kind}_policies")(**who)["AttachedPolicies"]
        for policy in attached:
            yield from self._managed_policy_statements(policy["PolicyArn"])

    def _managed_policy_statements(self, arn: str) -> list[Statement]:
        iam = self.client("iam")
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        answer = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]
        return list_statements(_parse_policy(answer["Document"]))

    def _boundary_statements(self, kind: str, name: str) -> list[Statement] | None:
        iam = self.client("iam")
        told = getattr(iam, f"get_{kind}")(**{f"{kind.capitalize()}Name": name})
        boundary = told[kind.capitalize()].get("PermissionsBoundary")
        return (
            self._managed_policy_statements(boundary["PermissionsBoundaryArn"])
            if boundary
            else None
        )

    def assume_role(self, role: str, source: str, service: str) -> None:
        """Raise AccessDenied unless the role lets that service take it on for that job's ARN."""
        name = role.rpartition("/")[2]
        told = self.client("iam").get_role(RoleName=name)["Role"]
        context = {"aws:SourceAccount": source.split(":")[4], "aws:SourceArn": source}
        if not allows_assume_role(
            _parse_policy(told["AssumeRolePolicyDocument"]), service, context
        ):
            what = f"{service} is not authorized to perform: sts:AssumeRole on resource: {role}"
            raise _access_denied(what, "AssumeRole")

    def require_allowed(self, role: str, request: AccessRequest, operation: str) -> None:
        """Raise AccessDenied, as S3 does, for what a role may not do."""
        [decision] = self.decide(role, request)
        if decision != ALLOWED:
            what = f"{role} is not authorized to perform: {request.action} on {request.resource}"
            raise _access_denied(f"{what} ({decision})", operation)

    def enforce(self, client: Any, role: str) -> None:
        """From now on that client of S3 or of CloudWatch Logs does what the role may do."""
        service = client.meta.service_model.service_name
        needs = {"s3": self._s3_requests, "logs": self._logs_requests}[service]

        def look(params: Mapping[str, Any], model: Any, **_: Any) -> None:
            for request in needs(client, model.name, params):
                self.require_allowed(role, request, model.name)

        client.meta.events.register(f"before-parameter-build.{service}", look)

    def _logs_requests(
        self, logs: Any, operation: str, params: Mapping[str, Any]
    ) -> Iterator[AccessRequest]:
        if operation not in LOGS_OPERATIONS:
            raise _access_denied(f"a job makes no call {operation}", operation)
        group = f"arn:aws:logs:{self.region}:{ACCOUNT}:log-group:{params['logGroupName']}"
        stream = params.get("logStreamName")
        yield AccessRequest(f"logs:{operation}", f"{group}:log-stream:{stream or ''}", {})

    def _s3_requests(
        self, s3: Any, operation: str, params: Mapping[str, Any]
    ) -> Iterator[AccessRequest]:
        if operation == "GetBucketEncryption":  # our own question, below
            return
        if operation not in S3_ACTIONS:
            raise _access_denied(f"a job makes no call {operation}", operation)
        action, bucket = S3_ACTIONS[operation], f"arn:aws:s3:::{params['Bucket']}"
        if action == "s3:ListBucket":
            yield AccessRequest(action, bucket, {"s3:prefix": params.get("Prefix", "")})
            return
        yield AccessRequest(action, f"{bucket}/{params['Key']}", {})
        key = self._encryption_key_arn(s3, params["Bucket"])
        if key is not None:
            via = {"kms:ViaService": f"s3.{self.region}.amazonaws.com"}
            yield AccessRequest(KMS_ACTIONS[action], key, via)

    def _encryption_key_arn(self, s3: Any, bucket: str) -> str | None:
        """The ARN of the key that a bucket is encrypted with; None for S3's own."""
        try:
            told = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
        except ClientError:
            return None
        default = told["Rules"][0]["ApplyServerSideEncryptionByDefault"]
        key = default.get("KMSMasterKeyID")
        if key is None:
            return None
        return str(self.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"])


class PolicySimulator:
    """IAM's policy simulator, one action on one resource after the other."""

    def __init__(self, authorizer: PolicyAuthorizer) -> None:
        self.authorizer = authorizer

    def simulate_principal_policy(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What the policies of a user or a role say to actions on resources."""
        context = {
            entry["ContextKeyName"]: entry.get("ContextKeyValues", [])
            for entry in given.get("ContextEntries", ())
        }
        requests = [
            AccessRequest(action, resource, context)
            for action in given["ActionNames"]
            for resource in given.get("ResourceArns") or ["*"]
        ]
        results = [
            {
                "EvalActionName": request.action,
                "EvalResourceName": request.resource,
                "EvalDecision": decision,
            }
            for request, decision in zip(
                requests, self._decisions(given["PolicySourceArn"], requests), strict=True
            )
        ]
        return {"EvaluationResults": results, "IsTruncated": False}

    def _decisions(self, principal: str, requests: Sequence[AccessRequest]) -> list[str]:
        if principal == ANONYMOUS_PRINCIPAL:
            return [ALLOWED] * len(requests)
        try:
            return self.authorizer.decide(principal, *requests)
        except ValueError as error:
            raise ServiceError("PolicyEvaluation", str(error)) from error


def _parse_policy(told: Any) -> Mapping[str, Any]:
    """A policy as data: botocore has read it, or moto has sent it as text."""
    found: Mapping[str, Any] = json.loads(unquote(told)) if isinstance(told, str) else told
    return found


def _access_denied(message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, operation)


class RoleClientFactory:
    """A client in the hands of a job: as its role with an authority, else as this endpoint."""

    def __init__(
        self,
        create_client: Callable[[], Any],
        authorizer: PolicyAuthorizer | None,
        service: str = BEDROCK_PRINCIPAL,
    ) -> None:
        self._create_client = create_client
        self._own_client = create_client()
        self._service = service
        self.authorizer = authorizer

    def __call__(self, role: str, source: str) -> Any:
        """A client for the job of that ARN. Raises ClientError for a role that is refused."""
        if self.authorizer is None:
            return self._own_client
        self.authorizer.assume_role(role, source, self._service)
        client = self._create_client()
        self.authorizer.enforce(client, role)
        return client
