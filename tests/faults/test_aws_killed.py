"""A command is killed before or after any of its calls to AWS: nothing is made twice or orphaned.

All moments are tried with CLOUDFT_ALL_MOMENTS=1 (minutes); a spread of them otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from endpoint import AWS_KEYS, REGION, Endpoint, running_endpoint
from job_files import write_job_file
from kill_at_aws_call import SITECUSTOMIZE
from processes import Cli
from served_models import count_updates, model_of, read_serving
from test_cli_killed import HOOK as THINGS_HOOK

EVERY = 1 if os.environ.get("CLOUDFT_ALL_MOMENTS") else 7
OTHER_REGION = "us-west-2"
SUBMIT_CALLS, DEPLOY_CALLS, UNDEPLOY_CALLS, GC_CALLS = 26, 14, 10, 30
COPY_CALLS = 8
"""Upper bounds of the calls that each command makes."""
MAX_CALLS = 70
"""At least as many as a submit does in its home: opening, locking, renaming."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    options = ("--clock", "fast", "--jobs", "1000", "--also-region", OTHER_REGION)
    with running_endpoint(*options) as made:
        made.client("service-quotas").request_service_quota_increase(
            ServiceCode="bedrock", QuotaCode="L-CB5B847D", DesiredValue=1000
        )
        yield made


def moments(calls: int) -> list[tuple[int, str]]:
    every = [(at, when) for at in range(1, calls + 1) for when in ("before", "after")]
    return every[::EVERY]


def job_file(folder: Path, endpoint: Endpoint, name: str) -> Path:
    section = endpoint.bedrock_section
    hyper = {"epochCount": 1, "batchSize": 1}
    path = write_job_file(
        folder,
        Path("titan-text-express"),
        name=name,
        bedrock=section,
        records=[{"prompt": f"{name} {n}", "completion": "yes"} for n in range(4)],
        hyperparameters=hyper,
    )
    return path


def killed(tmp_path: Path, at: int, when: str, *words: str | Path, timeout: float = 60) -> bool:
    """Run `cloudft WORDS`, killed at that call; False when it made fewer calls."""
    folder = tmp_path / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    more = {"PYTHONPATH": str(folder), "KILL_AT": str(at), "KILL_WHEN": when}
    count = {"KILLED": str(words[0]), "COUNT": str(tmp_path / "calls")}
    done = subprocess.run(
        [sys.executable, "-m", "cloudft", *map(str, words)],
        env=os.environ | more | count,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("at", "when"), moments(SUBMIT_CALLS))
def test_a_submit_killed_at_any_call_is_one_job(
    cli: Cli, aws: Endpoint, tmp_path: Path, at: int, when: str
) -> None:
    name = f"killed-{at}-{when}"
    path = job_file(tmp_path / "job", aws, name)
    was_killed = killed(tmp_path, at, when, "submit", "--backend", "bedrock", path)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert was_killed == (len(calls) >= at)
    assert len(calls) <= SUBMIT_CALLS
    one_job(cli, aws, path, name)


@pytest.mark.parametrize("moment", range(1, MAX_CALLS, EVERY * 2 - 1))
def test_a_submit_killed_at_any_moment_between_its_calls_is_one_job(
    cli: Cli, aws: Endpoint, tmp_path: Path, moment: int
) -> None:
    name = f"moment-{moment}"
    path = job_file(tmp_path / "job", aws, name)
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "sitecustomize.py").write_text(THINGS_HOOK)
    hooked = {"PYTHONPATH": str(tmp_path / "things"), "KILL_AT": str(moment), "KILL_EVENT": ""}
    subprocess.run(
        [sys.executable, "-m", "cloudft", "submit", "--backend", "bedrock", str(path)],
        env=os.environ | hooked,
        capture_output=True,
        check=False,
        timeout=60,
    )
    one_job(cli, aws, path, name)


def one_job(cli: Cli, aws: Endpoint, path: Path, name: str) -> None:
    """Submit again and check that there is one job, one model and no unfinished upload."""
    value(cli("list", "--output", "json"))
    words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    job = value(cli(*words))
    assert job["status"] == "Completed"
    [listed] = value(cli("list", "--output", "json"))
    assert listed["id"] == job["id"]
    bedrock = aws.client("bedrock")
    jobs = bedrock.list_model_customization_jobs(nameContains=f"{name}-")
    assert len(jobs["modelCustomizationJobSummaries"]) == 1
    models = bedrock.list_custom_models(nameContains=f"{name}-")["modelSummaries"]
    assert len(models) == 1
    s3 = aws.client("s3")
    assert not s3.list_multipart_uploads(Bucket="training-bucket").get("Uploads")


@pytest.fixture
def completed(cli: Cli, aws: Endpoint, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    name = "".join(c for c in request.node.name if c.isalnum())[-40:]
    path = job_file(tmp_path / "job", aws, name)
    words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    return str(value(cli(*words))["id"])


def servings(aws: Endpoint, job_id: str) -> list[Any]:
    bedrock = aws.client("bedrock")
    listed = bedrock.list_provisioned_model_throughputs(nameContains=job_id)
    return list(listed["provisionedModelSummaries"])


@pytest.mark.parametrize(("at", "when"), moments(DEPLOY_CALLS))
def test_a_deploy_killed_at_any_call_is_one_serving(
    cli: Cli, aws: Endpoint, tmp_path: Path, completed: str, at: int, when: str
) -> None:
    killed(tmp_path, at, when, "deploy", completed, "--yes")
    assert len(servings(aws, completed)) <= 1
    made = value(cli("deploy", completed, "--yes", "--output", "json"))
    [there] = servings(aws, completed)
    assert there["provisionedModelArn"] == made["id"]
    listed = value(cli("ps", "--output", "json"))["things"]
    assert [t["job"] for t in listed if t["id"] == made["id"]] == [completed]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deploy_killed_around_its_creation_is_one_attempt(
    cli: Cli, aws: Endpoint, tmp_path: Path, home: Path, completed: str, when: str, monkeypatch: Any
) -> None:
    """Check the recorded token: after a removal, the next attempt has another one."""
    monkeypatch.setenv("KILL_TARGET", f"POST {aws.url}/provisioned-model-throughput")
    assert killed(tmp_path, 1, when, "deploy", completed, "--yes")
    [intent] = (home / "servings").iterdir()
    begun = json.loads(intent.read_text())["parameters"]
    assert len(servings(aws, completed)) == (when == "after")
    made = value(cli("deploy", completed, "--yes", "--output", "json"))
    again = value(cli("deploy", completed, "--yes", "--output", "json"))
    assert [s["provisionedModelArn"] for s in servings(aws, completed)] == [made["id"]]
    assert again["id"] == made["id"]
    value(cli("undeploy", completed, "--yes", "--output", "json"))
    value(cli("deploy", completed, "--yes", "--output", "json"))
    created = aws.calls("CreateProvisionedModelThroughput")
    tokens = [c["clientRequestToken"] for c in created if c["modelId"] == begun["modelId"]]
    assert tokens[0] == begun["clientRequestToken"] and len(set(tokens)) == len(tokens) == 2


@pytest.mark.parametrize(("at", "when"), moments(UNDEPLOY_CALLS))
def test_an_undeploy_killed_at_any_call_goes_on(
    cli: Cli, aws: Endpoint, tmp_path: Path, completed: str, at: int, when: str
) -> None:
    value(cli("deploy", completed, "--yes", "--output", "json"))
    killed(tmp_path, at, when, "undeploy", completed, "--yes")
    value(cli("undeploy", completed, "--yes", "--output", "json"))
    assert servings(aws, completed) == []
    assert aws.client("bedrock").list_custom_models(nameContains=completed)["modelSummaries"]


def create_foreign_job(aws: Endpoint, at: int, when: str) -> str:
    """Create a job with the names of cloudft's but without its tag; return its data's key."""
    key = f"team/data/{'0' * 60}{at:04}/train.jsonl"
    aws.client("s3").put_object(Bucket="training-bucket", Key=key, Body=b"{}\n")
    aws.client("bedrock").create_model_customization_job(
        jobName=f"theirs-{at:07}{'a' if when == 'after' else 'b'}",
        customModelName=f"theirs-{at}-{when}",
        roleArn=aws.bedrock_section["role_arn"],
        baseModelIdentifier="amazon.titan-text-express-v1:0:8k",
        trainingDataConfig={"s3Uri": f"s3://training-bucket/{key}"},
        outputDataConfig={"s3Uri": "s3://training-bucket/theirs"},
    )
    return key


@pytest.mark.parametrize(("at", "when"), moments(GC_CALLS)[:: max(1, EVERY // 2)])
def test_a_gc_killed_at_any_call_goes_on_and_spares_what_is_not_ours(
    cli: Cli, aws: Endpoint, tmp_path: Path, completed: str, at: int, when: str
) -> None:
    bedrock = aws.client("bedrock")
    value(cli("deploy", completed, "--yes", "--output", "json"))
    [model] = bedrock.list_custom_models(nameContains=completed)["modelSummaries"]
    theirs = bedrock.create_provisioned_model_throughput(
        provisionedModelName=f"t{completed}"[:60], modelId=model["modelArn"], modelUnits=1
    )["provisionedModelArn"]
    words = ("gc", "--yes", "--live", "--kind", "provisioned-throughput", "--kind", "data")
    kept = create_foreign_job(aws, at, when)
    killed(tmp_path, at, when, *words)
    value(cli(*words, "--output", "json"))
    assert [s["provisionedModelArn"] for s in servings(aws, completed)] == [theirs]
    assert kept in aws.object_keys()
    bedrock.delete_provisioned_model_throughput(provisionedModelId=theirs)
    value(cli("gc", "--yes", "--live", "--output", "json"))
    assert bedrock.list_custom_models(nameContains=completed)["modelSummaries"] == []


UPDATE_CALLS = 24
"""An upper bound of the calls of an update and of a rollback."""


@pytest.fixture
def updatable(cli: Cli, aws: Endpoint, tmp_path: Path, completed: str) -> tuple[str, str, str]:
    """Return two completed jobs and the throughput that serves the first."""
    path = job_file(tmp_path / "next", aws, f"n{completed}"[:40])
    words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    other = str(value(cli(*words))["id"])
    made = value(cli("deploy", completed, "--yes", "--output", "json"))
    return completed, other, str(made["id"])


def test_an_update_and_its_rollback_killed_at_any_call_are_sent_once(
    cli: Cli, aws: Endpoint, tmp_path: Path, updatable: tuple[str, str, str]
) -> None:
    """Kill both at each moment in turn, on one deployment: the jobs take most of the time."""
    first, second, arn = updatable
    commands = [
        (("deploy", second, "--update", arn, "--yes"), second),
        (("deploy", "--rollback", arn, "--yes"), first),
    ]
    for at, when in moments(UPDATE_CALLS):
        for words, wanted in commands:
            sent = count_updates(aws, arn)
            killed(tmp_path, at, when, *words)
            assert count_updates(aws, arn) - sent <= 1
            value(cli(*words, "--output", "json"))
            assert count_updates(aws, arn) == sent + 1, (at, when, words)
            assert read_serving(aws, arn)["modelArn"] == model_of(aws, wanted)
            listed = value(cli("ps", "--output", "json"))["things"]
            assert [t["job"] for t in listed if t["id"] == arn] == [wanted]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_update_killed_around_its_sending_is_followed_or_rolled_back(
    cli: Cli,
    aws: Endpoint,
    tmp_path: Path,
    updatable: tuple[str, str, str],
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, arn = updatable
    monkeypatch.setenv("KILL_TARGET", f"PATCH {aws.url}/provisioned-model-throughput")
    assert killed(tmp_path, 1, when, "deploy", second, "--update", arn, "--yes")
    assert count_updates(aws, arn) == (when == "after")
    value(cli("deploy", "--rollback", arn, "--yes", "--output", "json"))
    assert read_serving(aws, arn)["modelArn"] == model_of(aws, first)
    assert count_updates(aws, arn) == 2 * (when == "after")
    value(cli("undeploy", first, "--yes", "--output", "json"))


@pytest.mark.parametrize(("at", "when"), moments(COPY_CALLS))
def test_a_copy_killed_at_any_call_is_one_copy(
    cli: Cli, aws: Endpoint, tmp_path: Path, completed: str, at: int, when: str
) -> None:
    words = ("copy", completed, "--region", OTHER_REGION)
    killed(tmp_path, at, when, *words)
    made = value(cli(*words, "--wait", "--output", "json"))
    assert made["status"] == "Completed"
    copies = bedrock_in(aws, OTHER_REGION).list_model_copy_jobs()["modelCopyJobSummaries"]
    named = [c for c in copies if completed in c["sourceModelName"]]
    assert [c["targetModelArn"] for c in named] == [made["summary"]["customModel"]]
    listed = value(cli("ps", "--region", OTHER_REGION, "--output", "json"))["things"]
    models = [t["job"] for t in listed if t["id"] == made["summary"]["customModel"]]
    assert models == [made["id"]]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_copy_killed_around_its_creation_is_sent_again_with_its_token(
    cli: Cli, aws: Endpoint, tmp_path: Path, completed: str, when: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KILL_TARGET", f"POST {aws.url}/model-copy-jobs")
    words = ("copy", completed, "--region", OTHER_REGION)
    assert killed(tmp_path, 1, when, *words)
    made = value(cli(*words, "--wait", "--output", "json"))
    calls = aws.calls("CreateModelCopyJob")
    mine = [c for c in calls if c["targetModelName"] == made["id"]]
    # Found by its name where it was created: the same request is not even sent again.
    assert len(mine) == 1 and made["status"] == "Completed"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_of_sagemaker_killed_around_its_creation_is_one_model(
    cli: Cli, aws: Endpoint, tmp_path: Path, when: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KILL_TARGET", f"POST {aws.url}/custom-models/create-custom-model")
    name = f"nova-{when}"
    source = ("--from", "s3://training-bucket/escrow/run/", "--base-model", "nova-2-lite")
    role = f"bedrock.import_role_arn={aws.bedrock_section['role_arn']}"
    words = ("import", *source, "--name", name, "--set", role, "--region", REGION)
    assert killed(tmp_path, 1, when, *words)
    made = value(cli(*words, "--output", "json"))
    models = aws.client("bedrock").list_custom_models(nameContains=name)["modelSummaries"]
    assert [m["modelName"] for m in models] == [made["id"]]
    assert len([c for c in aws.calls("CreateCustomModel") if c["modelName"] == made["id"]]) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_share_killed_around_its_creation_is_one_share(
    cli: Cli, aws: Endpoint, tmp_path: Path, completed: str, when: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KILL_TARGET", f"POST {aws.url}/createresourceshare")
    words = ("share", completed, "--with", "111122223333", "--yes")
    assert killed(tmp_path, 1, when, *words)
    made = value(cli(*words, "--output", "json"))
    listed = aws.client("ram").get_resource_shares(resourceOwner="SELF")["resourceShares"]
    assert [s["resourceShareArn"] for s in listed if completed in s["name"]] == [made["arn"]]


def bedrock_in(aws: Endpoint, region: str) -> Any:
    keys = {name.lower(): value for name, value in AWS_KEYS.items()}
    return boto3.client("bedrock", endpoint_url=aws.url, region_name=region, **keys)
