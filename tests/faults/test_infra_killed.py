"""`cloudft infra deploy` and `destroy`, killed at any call and run again: one stack or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, running_endpoint
from grader_jobs import EXACT_GRADER, write_grader_job
from processes import Cli
from test_aws_killed import EVERY, killed, moments, value

from cloudft.backends.aws_base.grader_package import pack_grader

DEPLOY_CALLS, DESTROY_CALLS = 10, 20
"""At least as many as each makes."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


@pytest.fixture(autouse=True)
def none_is_left(cli: Cli, aws: Endpoint) -> Iterator[None]:
    """Remove the stacks afterwards: an account has room for ten resource policies of logs."""
    yield
    for stack in aws.client("cloudformation").describe_stacks()["Stacks"]:
        words = ("infra", "destroy", stack["StackName"], "--yes", "--delete-data")
        value(cli(*words, "--output", "json"))


def stacks(aws: Endpoint, name: str) -> list[dict[str, Any]]:
    listed = aws.client("cloudformation").describe_stacks()["Stacks"]
    return [stack for stack in listed if stack["StackName"] == name]


def change_sets(aws: Endpoint, name: str) -> list[Any]:
    """Those that wait to be executed."""
    listed = aws.client("cloudformation").list_change_sets(StackName=name)["Summaries"]
    return [one for one in listed if one["ExecutionStatus"] == "AVAILABLE"]


def buckets(aws: Endpoint, name: str) -> list[str]:
    listed = aws.client("s3").list_buckets()["Buckets"]
    return [b["Name"] for b in listed if b["Name"].startswith(f"{name}-")]


@pytest.mark.parametrize(("at", "when"), moments(DEPLOY_CALLS)[:: max(1, EVERY // 3)])
def test_a_deploy_killed_at_any_call_is_one_stack(
    cli: Cli, aws: Endpoint, tmp_path: Path, at: int, when: str
) -> None:
    name = f"kill-{at}-{when}"
    killed(tmp_path, at, when, "infra", "deploy", name, "--yes")
    assert len((tmp_path / "calls").read_text().splitlines()) <= DEPLOY_CALLS
    value(cli("infra", "deploy", name, "--yes", "--output", "json"))
    [stack] = stacks(aws, name)
    assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    assert change_sets(aws, name) == []
    kinds = [bucket.removeprefix(f"{name}-").rpartition("-")[0] for bucket in buckets(aws, name)]
    assert sorted(kinds) == ["databucket", "logbucket", "outputbucket"]
    assert cli("infra", "deploy", name, "--yes").stdout == f"{name}: nothing to change\n"


GRADER_CALLS = (4, 6, 7, 8, 11, 13)
GRADER_MOMENTS = [(at, when) for at in GRADER_CALLS for when in ("before", "after")][
    :: max(1, EVERY // 2)
]
"""Around the change set, the upload, the execution and the removal of the old package."""


def test_a_grader_s_deploy_killed_at_any_call_is_one_function(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    value(cli("infra", "deploy", "base", "--yes", "--output", "json"))
    path = write_grader_job(tmp_path / "job", bedrock={"stack": "base"})
    words = ("infra", "deploy", "base-grader", "--grader", path, "--yes")
    file = path.parent / "graders" / "tickets.py"
    for number, (at, when) in enumerate(GRADER_MOMENTS):
        file.write_text(f"{EXACT_GRADER}# version {number}\n")
        killed(tmp_path, at, when, *words)
        value(cli(*words, "--output", "json"))
        [stack] = stacks(aws, "base-grader")
        assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), (at, when)
        functions = aws.client("lambda").list_functions()["Functions"]
        [function] = [one for one in functions if one["FunctionName"].startswith("cloudft-grader-")]
        assert function["CodeSha256"] == pack_grader(file.read_bytes()).code_sha256
        assert change_sets(aws, "base-grader") == []
        assert len(packages(aws)) == 1, (at, when)
        assert cli(*words).stdout == "base-grader: nothing to change\n"
    killed(tmp_path, 5, "after", "infra", "destroy", "base-grader", "--yes")
    cli("infra", "destroy", "base-grader", "--yes")
    assert stacks(aws, "base-grader") == [] and packages(aws) == []


def packages(aws: Endpoint) -> list[str]:
    """Return every version of every package of a grader."""
    [bucket] = [name for name in buckets(aws, "base") if "databucket" in name]
    listed = aws.client("s3").list_object_versions(Bucket=bucket, Prefix="cloudft/graders/")
    return [one["Key"] for one in (*listed.get("Versions", ()), *listed.get("DeleteMarkers", ()))]


@pytest.mark.parametrize(("at", "when"), moments(DESTROY_CALLS)[:: max(1, EVERY // 2)])
def test_a_destroy_killed_at_any_call_goes_on(
    cli: Cli, aws: Endpoint, tmp_path: Path, at: int, when: str
) -> None:
    name, neighbor = f"end-{at}-{when}", f"end-{at}-{when}-2"
    for each in (name, neighbor):
        value(cli("infra", "deploy", each, "--yes", "--output", "json"))
    kept = buckets(aws, neighbor)
    words = ("infra", "destroy", name, "--yes", "--delete-data")
    killed(tmp_path, at, when, *words)
    done = cli(*words, "--output", "json")
    gone = done.returncode == 4 and json.loads(done.stdout)["error"]["code"] == "AwsNotFound"
    assert done.returncode == 0 or gone, done.stderr
    assert stacks(aws, name) == []
    left = [b for b in buckets(aws, name) if b not in buckets(aws, neighbor)]
    assert left == []
    assert buckets(aws, neighbor) == kept and len(stacks(aws, neighbor)) == 1
