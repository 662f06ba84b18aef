"""Authorize jobs by the policies in IAM beside this endpoint.

With `--authorization`, jobs reach S3, and write their logs, as their role: a call that its policies
don't allow is refused, and so is a role that does not trust the job's service.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from botocore.exceptions import ClientError

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.iam.policies import (
    ALLOWED,
    AccessRequest,
    ConditionContext,
    PolicyDocument,
    Statement,
    allows_assume_role,
    evaluate_policies,
    list_statements,
)
from cloudft.endpoint.protocols.messages import Parameters, ServiceError
from cloudft.endpoint.protocols.service_models import OperationModel
from cloudft.endpoint.state import ACCOUNT

if TYPE_CHECKING:
    from botocore.client import BaseClient

BEDROCK_PRINCIPAL, SAGEMAKER_PRINCIPAL = "bedrock.amazonaws.com", "sagemaker.amazonaws.com"
S3_ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
}
"""S3 operation -> the action that it needs. Jobs make no other call of S3."""
KMS_ACTIONS = {"s3:GetObject": "kms:Decrypt", "s3:PutObject": "kms:GenerateDataKey"}
"""S3 action -> the action that it needs on the key of an encrypted bucket."""
LOGS_OPERATIONS = {"CreateLogGroup", "CreateLogStream", "PutLogEvents"}
"""Operations of CloudWatch Logs that jobs call; each is an action of the same name."""
ANONYMOUS_PRINCIPAL = f"arn:aws:sts::{ACCOUNT}:user/moto"
"""The principal that moto gives to keys of no user. Everything is allowed to it."""


@dataclass(frozen=True)
class PrincipalPolicies:
    """The statements that apply to a principal, and its permissions boundary (None: it has none).

    `own_keys` are the condition keys that follow from the principal.
    """

    statements: Sequence[Statement]
    boundary: Sequence[Statement] | None
    own_keys: ConditionContext

    def complete(self, request: AccessRequest) -> AccessRequest:
        """Return a request with the principal's own keys; those that it has stay."""
        context = {**self.own_keys, **request.context}
        return AccessRequest(request.action, request.resource, context)

    def decide(self, request: AccessRequest) -> str:
        """Return the decision. Raises ValueError for a condition that is not implemented."""
        return evaluate_policies(self.statements, self.complete(request), self.boundary)


class PolicyAuthorizer:
    """Decides by IAM's policies, which are read at each decision: a change counts at once."""

    def __init__(self, client: ClientFactory, region: str) -> None:
        self.client = client
        self.region = region

    def decide(self, principal: str, *requests: AccessRequest) -> list[str]:
        """Return the decision on each request, by the policies of a user, a group or a role.

        Raises ServiceError for a principal that is none, or does not exist; ValueError for a
        condition that is not implemented.
        """
        policies = self.read_policies(principal)
        return [policies.decide(request) for request in requests]

    def read_policies(self, principal: str) -> PrincipalPolicies:
        """Return what applies to a user, a group or a role. Raises ServiceError."""
        kind, _, name = principal.rpartition(":")[2].partition("/")
        name = name.rpartition("/")[2]  # without the path: role/service-role/NAME
        if kind not in ("role", "user", "group"):
            message = f"{principal} is no user, group or role"
            raise ServiceError("InvalidInput", message)
        try:
            statements = list(self._identity_statements(kind, name))
            boundary = self._boundary_statements(kind, name)
        except ClientError as error:
            message = f"The {kind} with name {name} cannot be found."
            raise ServiceError("NoSuchEntity", message) from error
        # Roles have no aws:username: a policy with that variable matches nothing for them.
        own_keys = {"aws:username": name} if kind == "user" else {}
        return PrincipalPolicies(statements, boundary, own_keys)

    def _identity_statements(self, kind: str, name: str) -> Iterator[Statement]:
        """Yield the statements of a user or a role, and those of a user's groups."""
        yield from self._statements_of(kind, name)
        if kind == "user":
            groups = self.client("iam").list_groups_for_user(UserName=name)["Groups"]
            for group in groups:
                yield from self._statements_of("group", group["GroupName"])

    def _statements_of(self, kind: str, name: str) -> Iterator[Statement]:
        """Yield the statements of a user, role or group: first inline, then attached policies."""
        iam, identity = self.client("iam"), {f"{kind.capitalize()}Name": name}
        for policy in getattr(iam, f"list_{kind}_policies")(**identity)["PolicyNames"]:
            response = getattr(iam, f"get_{kind}_policy")(**identity, PolicyName=policy)
            yield from list_statements(_parse_policy(response["PolicyDocument"]))
        attached = getattr(iam, f"list_attached_{kind}_policies")(**identity)["AttachedPolicies"]
        for policy in attached:
            yield from self._managed_policy_statements(policy["PolicyArn"])

    def _managed_policy_statements(self, arn: str) -> list[Statement]:
        iam = self.client("iam")
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        response = iam.get_policy_version(PolicyArn=arn, VersionId=version)
        return list_statements(_parse_policy(response["PolicyVersion"]["Document"]))

    def _boundary_statements(self, kind: str, name: str) -> list[Statement] | None:
        """Return the statements of the permissions boundary; None if there is none."""
        if kind == "group":
            return None
        iam, name_member = self.client("iam"), f"{kind.capitalize()}Name"
        identity = getattr(iam, f"get_{kind}")(**{name_member: name})[kind.capitalize()]
        boundary = identity.get("PermissionsBoundary")
        if not boundary:
            return None
        return self._managed_policy_statements(boundary["PermissionsBoundaryArn"])

    def assume_role(self, role: str, source: str, service: str) -> None:
        """Raise ClientError (AccessDenied) unless the role trusts a service for a job's ARN.

        `source` is that ARN. A role that does not exist is a ClientError, too.
        """
        description = self.client("iam").get_role(RoleName=role.rpartition("/")[2])["Role"]
        trust_policy = _parse_policy(description["AssumeRolePolicyDocument"])
        # The keys that AWS sets against the confused deputy: trust policies compare with them.
        context = {"aws:SourceAccount": source.split(":")[4], "aws:SourceArn": source}
        if not allows_assume_role(trust_policy, service, context):
            message = f"{service} is not authorized to perform: sts:AssumeRole on resource: {role}"
            raise _access_denied(message, "AssumeRole")

    def require_allowed(self, role: str, request: AccessRequest, operation: str) -> None:
        """Raise ClientError (AccessDenied), as S3 does, unless the role's policies allow it."""
        [decision] = self.decide(role, request)
        if decision != ALLOWED:
            message = f"{role} is not authorized to perform: {request.action} on {request.resource}"
            raise _access_denied(f"{message} ({decision})", operation)

    def enforce(self, client: BaseClient, role: str) -> None:
        """Make a client of S3 or CloudWatch Logs raise ClientError for what a role may not do."""
        service = client.meta.service_model.service_name
        requests_of = {"s3": self._s3_requests, "logs": self._logs_requests}[service]

        def check(params: Parameters, model: OperationModel, **_: object) -> None:
            for request in requests_of(client, model.name, params):
                self.require_allowed(role, request, model.name)

        # Before the request is built: a refused call never reaches moto, which checks no policy.
        client.meta.events.register(f"before-parameter-build.{service}", check)

    def _logs_requests(
        self, _logs: BaseClient, operation: str, params: Parameters
    ) -> Iterator[AccessRequest]:
        if operation not in LOGS_OPERATIONS:
            raise _access_denied(f"a job makes no call {operation}", operation)
        group = f"arn:aws:logs:{self.region}:{ACCOUNT}:log-group:{params['logGroupName']}"
        stream = params.get("logStreamName")
        yield AccessRequest(f"logs:{operation}", f"{group}:log-stream:{stream or ''}", {})

    def _s3_requests(
        self, s3: BaseClient, operation: str, params: Parameters
    ) -> Iterator[AccessRequest]:
        """Yield what a call of S3 needs: the action on the object, and that on the bucket's key."""
        if operation == "GetBucketEncryption":  # our own call, in _encryption_key_arn
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
            via_s3 = {"kms:ViaService": f"s3.{self.region}.amazonaws.com"}
            yield AccessRequest(KMS_ACTIONS[action], key, via_s3)

    def _encryption_key_arn(self, s3: BaseClient, bucket: str) -> str | None:
        """Return the ARN of the key that a bucket is encrypted with; None for S3's own key."""
        try:
            response = s3.get_bucket_encryption(Bucket=bucket)
        except ClientError:
            return None
        [rule, *_] = response["ServerSideEncryptionConfiguration"]["Rules"]
        key = rule["ApplyServerSideEncryptionByDefault"].get("KMSMasterKeyID")
        if key is None:
            return None
        # The bucket may name its key by id or alias; policies name it by its ARN.
        return str(self.client("kms").describe_key(KeyId=key)["KeyMetadata"]["Arn"])


def _parse_policy(document: str | PolicyDocument) -> PolicyDocument:
    """Return a policy as data: botocore has parsed most of them, moto sends some as quoted text."""
    if not isinstance(document, str):
        return document
    parsed: PolicyDocument = json.loads(unquote(document))
    return parsed


def _access_denied(message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, operation)


class RoleClientFactory:
    """Creates the clients of jobs: with the permissions of their role if there is an authorizer.

    Without one, every job shares one client with all permissions. `service` is the principal that
    the roles have to trust.
    """

    def __init__(
        self,
        create_client: Callable[[], BaseClient],
        authorizer: PolicyAuthorizer | None,
        service: str = BEDROCK_PRINCIPAL,
    ) -> None:
        self._create_client = create_client
        self._own_client = create_client()
        self._service = service
        self.authorizer = authorizer

    def require_allowed(self, role: str, requests: Iterable[AccessRequest]) -> None:
        """Raise ClientError (AccessDenied) unless the role may invoke each of these models."""
        if self.authorizer is not None:
            for request in requests:
                self.authorizer.require_allowed(role, request, "InvokeModel")

    def __call__(self, role: str, source: str) -> BaseClient:
        """Return a client for the job with the ARN `source`.

        Raises ClientError for a role that does not exist or does not trust the service.
        """
        if self.authorizer is None:
            return self._own_client
        self.authorizer.assume_role(role, source, self._service)
        # A client of its own: the event handlers of a shared one would apply to every job.
        client = self._create_client()
        self.authorizer.enforce(client, role)
        return client
