"""Who calls AWS: account, identity and Region, and where each of them comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cloudft.aws.client import BEARER_TOKEN, Aws, create_session
from cloudft.errors import CloudRefused, CloudUnreachable
from cloudft.types import CallerIdentity, UnavailablePart

CREDENTIAL_PROVIDERS: Mapping[str, str] = {
    "assume-role": "a role that the configuration assumes",
    "assume-role-with-web-identity": "a role for a web identity",
    "boto-config": "the boto configuration file",
    "config-file": "the configuration file",
    "container-role": "the container's role",
    "custom-process": "credential_process",
    "ec2-credentials-file": "AWS_CREDENTIAL_FILE",
    "env": "the environment",
    "iam-role": "the instance's role",
    "login": "aws login",
    "shared-credentials-file": "the credentials file",
    "sso": "IAM Identity Center",
}
"""What botocore calls its providers of credentials (`METHOD`, botocore 1.44.5)."""


def get_identity(
    aws: Aws, region_from: str | None = None, profile_from: str | None = None
) -> CallerIdentity:
    """Return who `aws` acts as. STS is asked once; what it does not tell is `unavailable`.

    `region_from` and `profile_from` say where the place's Region and profile come from, when the
    caller knows.
    """
    account = arn = unavailable = credentials = profile = region = None
    try:
        with aws.translate_errors("the configuration can't be read"):
            found = create_session(aws.location)
            profile = found.profile_name
            region = found.region_name
        answer = aws.call_without_retry(
            "the identity can't be looked up", "sts", "get_caller_identity"
        )
        account, arn = str(answer["Account"]), str(answer["Arn"])
        with aws.translate_errors("the credentials can't be read"):
            keys = found.get_credentials()
            credentials = CREDENTIAL_PROVIDERS.get(keys.method, keys.method) if keys else None
    except (CloudRefused, CloudUnreachable) as error:
        what = "the identity"
        unavailable = UnavailablePart(what, error.code, error.message, error.exit_code, error.fix)
    return CallerIdentity(
        account=account,
        arn=arn,
        credentials_from=credentials,
        profile=profile,
        profile_from=profile_from
        if aws.location.profile and profile_from
        else _profile_origin(aws),
        region=region,
        region_from=region_from if aws.location.region and region_from else _region_origin(aws),
        endpoint_url=aws.location.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"),
        unused=(BEARER_TOKEN,) if os.environ.get(BEARER_TOKEN) else (),
        unavailable=unavailable,
    )


def _profile_origin(aws: Aws) -> str:
    return (
        _environment_variable(aws.location.profile, ("AWS_DEFAULT_PROFILE", "AWS_PROFILE"))
        or "default"
    )


def _region_origin(aws: Aws) -> str:
    named = _environment_variable(aws.location.region, ("AWS_REGION", "AWS_DEFAULT_REGION"))
    return named or ("given" if aws.location.region else "the configuration file")


def _environment_variable(value: str | None, names: tuple[str, ...]) -> str | None:
    """Return the variable that a value comes from, or would come from."""
    there = [name for name in names if os.environ.get(name)]
    return next((name for name in there if value in (None, os.environ[name])), None)
