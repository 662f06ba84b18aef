"""Identity of the caller: account, ARN and Region, and where each of them comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cloudft.aws.client import Aws, create_session
from cloudft.aws.error_translation import BEARER_TOKEN
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
"""Names of botocore's credential providers (their `METHOD`, botocore 1.44.5), in plain words."""


def get_identity(
    aws: Aws, region_from: str | None = None, profile_from: str | None = None
) -> CallerIdentity:
    """Return the identity that `aws` acts as, from one call of STS.

    What can't be read is in its `unavailable`. `region_from` and `profile_from` say where the
    location's Region and profile come from, when the caller knows.
    """
    account = arn = unavailable = credentials = profile = region = None
    location = aws.location
    try:
        with aws.translate_errors("the configuration can't be read"):
            session = create_session(location)
            profile = session.profile_name
            region = session.region_name
        response = aws.call_without_retry(
            "the identity can't be read", "sts", "get_caller_identity"
        )
        account, arn = str(response["Account"]), str(response["Arn"])
        with aws.translate_errors("the credentials can't be read"):
            keys = session.get_credentials()
            credentials = CREDENTIAL_PROVIDERS.get(keys.method, keys.method) if keys else None
    except (CloudRefused, CloudUnreachable) as error:
        unavailable = UnavailablePart(
            "the identity", error.code, error.message, error.exit_code, error.fix
        )
    return CallerIdentity(
        account=account,
        arn=arn,
        credentials_from=credentials,
        profile=profile,
        profile_from=profile_from if location.profile and profile_from else _profile_origin(aws),
        region=region,
        region_from=region_from if location.region and region_from else _region_origin(aws),
        endpoint_url=location.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"),
        unused=(BEARER_TOKEN,) if os.environ.get(BEARER_TOKEN) else (),
        unavailable=unavailable,
    )


def _profile_origin(aws: Aws) -> str:
    names = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
    return _environment_variable(aws.location.profile, names) or "default"


def _region_origin(aws: Aws) -> str:
    variable = _environment_variable(aws.location.region, ("AWS_REGION", "AWS_DEFAULT_REGION"))
    return variable or ("given" if aws.location.region else "the configuration file")


def _environment_variable(value: str | None, names: tuple[str, ...]) -> str | None:
    """Return the variable that `value` comes from; for no value, the first that is set."""
    set_names = [name for name in names if os.environ.get(name)]
    return next((name for name in set_names if value in (None, os.environ[name])), None)
