"""One identity for all calls, and where it comes from."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest
from botocore import credentials
from click.testing import CliRunner
from endpoint import AWS_KEYS, REGION
from job_files import write_job_file

from cloudft.aws import client as module
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.identity import CREDENTIAL_PROVIDERS, get_identity
from cloudft.cli import options
from cloudft.cli.job_file import load_job_file
from cloudft.errors import CloudRefused

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bedrock": ("list_foundation_models", {}),
    "bedrock-runtime": ("converse", {"modelId": "m", "messages": []}),
    "cloudformation": ("describe_stacks", {}),
    "iam": ("list_roles", {}),
    "kms": ("list_keys", {}),
    "logs": ("describe_log_groups", {}),
    "pricing": ("describe_services", {}),
    "s3": ("put_object", {"Bucket": "bucket", "Key": "key", "Body": b"x"}),
    "sagemaker": ("list_training_jobs", {}),
    "stepfunctions": ("list_state_machines", {}),
    "sts": ("get_caller_identity", {}),
}


class Sent(Exception):
    """A request is ready to be sent."""


def authorization_header(place: AwsLocation, service: str) -> str:
    """Return the Authorization header of a call, without sending it."""
    operation, parameters = CALLS[service]
    made = module.create_client(service, place)

    def stop(request: Any, **_: Any) -> None:
        raise Sent(request.headers["Authorization"])

    made.meta.events.register("before-send", stop)
    with pytest.raises(Sent) as caught:
        getattr(made, operation)(**parameters)
    return str(caught.value)


@pytest.mark.parametrize("service", CALLS)
def test_a_bedrock_key_signs_nothing(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "planted-bearer-token")
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)
    for url in ("http://127.0.0.1:9", "https://example.invalid"):
        said = authorization_header(AwsLocation(REGION, None, url), service)
        assert "AWS4-HMAC-SHA256" in said and AWS_KEYS["AWS_ACCESS_KEY_ID"] in said


def test_without_credentials_the_key_is_said_to_be_unused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "planted-bearer-token")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(CloudRefused, match="no AWS credentials") as caught:
        Aws(AwsLocation(REGION, None, "http://127.0.0.1:9")).call(
            "it", "bedrock", "list_custom_models"
        )
    assert "AWS_BEARER_TOKEN_BEDROCK is not used" in str(caught.value.fix)


def test_every_provider_of_credentials_has_a_name() -> None:
    methods = {
        one.METHOD
        for _, one in inspect.getmembers(credentials, inspect.isclass)
        if getattr(one, "METHOD", None)
    }
    assert methods == CREDENTIAL_PROVIDERS.keys()


def test_where_profile_and_region_come_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    keys = "aws_access_key_id = a\naws_secret_access_key = b\n"
    config.write_text(f"[default]\nregion = eu-west-1\n[profile team]\nregion = us-west-2\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = get_identity(Aws(AwsLocation()))
    assert (found.profile, found.profile_from) == ("default", "default")
    assert (found.region, found.region_from) == ("eu-west-1", "the configuration file")
    assert found.unavailable is not None and "no AWS credentials" in found.unavailable.reason
    monkeypatch.setenv("AWS_PROFILE", "team")
    found = get_identity(Aws(AwsLocation()))
    assert (found.profile, found.profile_from) == ("team", "AWS_PROFILE")
    assert found.region == "us-west-2" and found.endpoint_url == "http://127.0.0.1:9"
    assert found.unavailable is not None and found.unavailable.exit_code == 5
    monkeypatch.setenv("AWS_REGION", "us-east-2")
    assert get_identity(Aws(AwsLocation())).region_from == "AWS_REGION"
    job = get_identity(Aws(AwsLocation("eu-central-1", "team")), "job.yaml:4", "job.yaml:5")
    assert (job.region, job.region_from) == ("eu-central-1", "job.yaml:4")
    assert (job.profile, job.profile_from) == ("team", "job.yaml:5")


def test_a_missing_profile_and_a_malformed_endpoint_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(CloudRefused, match="is not the address of an endpoint"):
        module.create_client("sts", AwsLocation(REGION, None, "nonsense"))
    monkeypatch.setenv("AWS_PROFILE", "missing")
    found = get_identity(Aws(AwsLocation(REGION)))
    assert found.unavailable is not None and "missing" in found.unavailable.reason


def signing_keys() -> set[str]:
    """Return the keys that sign a call with the command line's location, and with others."""
    found = set()
    for place in (AwsLocation(**options.aws_location()), AwsLocation(), AwsLocation(REGION)):
        [key] = re.findall("Credential=([A-Z]+)/", authorization_header(place, "sts"))
        found.add(key)
    return found


def test_flag_and_job_file_win_over_keys_in_the_environment_for_all_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "".join(
            f"[profile {name}]\naws_access_key_id = AKIA{name.upper()}\naws_secret_access_key = b\n"
            for name in ("other", "team", "flag")
        )
    )
    for name, value in (*AWS_KEYS.items(), ("AWS_REGION", REGION), ("AWS_PROFILE", "other")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert signing_keys() == {AWS_KEYS["AWS_ACCESS_KEY_ID"]}, (
        "AWS's own order: keys before AWS_PROFILE"
    )
    path = write_job_file(tmp_path / "job", tiny_model, bedrock={"profile": "team"})
    load_job_file(path, {})
    assert signing_keys() == {"AKIATEAM"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    @click.command()
    @options.aws_options
    @options.console_options
    def command(console: options.Console) -> None:
        pass

    assert CliRunner().invoke(command, ["--profile", "flag"]).exit_code == 0
    assert signing_keys() == {"AKIAFLAG"}
