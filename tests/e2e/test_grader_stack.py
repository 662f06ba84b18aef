"""A grader's function from the command line: deployed, compared with its file, changed, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import ACCOUNT, REGION, Endpoint, running_endpoint
from grader_jobs import EXACT_GRADER, write_grader_job
from processes import Cli

from cloudft.backends.aws_base.grader_package import pack_grader

JSON = ("--output", "json")
STACK = {"stack": "team", "region": REGION}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--seconds", "60", "--authorization") as made:
        yield made


@pytest.fixture(autouse=True)
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    return endpoint


def reported(done: Any, code: int = 0) -> Any:
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def findings(cli: Cli, path: Path, code: int = 0) -> list[tuple[str, str]]:
    """Return code and field of what `check` finds about the grader."""
    found = reported(cli("check", path, "--backend", "bedrock", *JSON), code)
    listed = found["findings"] if "findings" in found else found["error"]["findings"]
    assert all(one["fix"] for one in listed)
    return [(one["code"], one["field"]) for one in listed]


def packages(aws: Endpoint, bucket: str) -> list[str]:
    """Return every version of every package in the data bucket."""
    answer = aws.client("s3").list_object_versions(Bucket=bucket, Prefix="cloudft/graders/")
    return [one["Key"] for one in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ()))]


def test_a_grader_is_deployed_compared_changed_and_removed(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    path = write_grader_job(tmp_path / "job", bedrock=STACK, reinforcement={"timeout_seconds": 60})
    missing = cli("infra", "deploy", "team-grader", "--grader", path, "--yes")
    assert missing.returncode == 4 and "there is no stack team" in missing.stderr
    bucket = reported(cli("infra", "deploy", "team", "--yes", *JSON))["stack"]["outputs"][
        "DataBucketName"
    ]
    assert findings(cli, path, 3) == [("NoStack", "reinforcement.lambda_arn")]
    deploy = ("infra", "deploy", "team-grader", "--grader", path, *JSON)
    assert reported(cli(*deploy, "--dry-run"))["executed"] is False
    assert packages(aws, bucket) == [], "a dry run uploads nothing"
    outputs = reported(cli(*deploy, "--yes"))["stack"]["outputs"]
    package = pack_grader((path.parent / "graders" / "tickets.py").read_bytes())
    function = aws.client("lambda").get_function(FunctionName=outputs["GraderFunctionArn"])
    assert function["Configuration"]["CodeSha256"] == package.code_sha256
    assert function["Configuration"]["Timeout"] == 60
    assert function["Tags"]["cloudft:grader-sha256"] == package.grader_sha256
    assert reported(cli(*deploy, "--yes"))["changes"] == []
    assert findings(cli, path) == []
    plan = reported(cli("plan", path, "--backend", "bedrock", *JSON))
    assert outputs["GraderFunctionArn"] in json.dumps(plan)

    job = reported(cli("submit", path, "--backend", "bedrock", *JSON))["id"]
    (path.parent / "graders" / "tickets.py").write_text(EXACT_GRADER + "# newer\n")
    for words in ((*deploy, "--yes"), ("infra", "destroy", "team-grader", "--yes")):
        busy = cli(*words)
        assert busy.returncode != 0 and f"are graded by the function of team-grader: {job}" in (
            busy.stderr + busy.stdout
        )
    waiting = aws.client("cloudformation").list_change_sets(StackName="team-grader")["Summaries"]
    assert not [one for one in waiting if one["ExecutionStatus"] == "AVAILABLE"]
    reported(cli("stop", job, "--wait", *JSON))
    assert findings(cli, path, 3) == [("GraderDiffers", "reinforcement.grader")]
    [change] = reported(cli(*deploy, "--yes"))["changes"]
    assert (change["action"], change["resource"]) == ("Modify", "Grader")
    assert findings(cli, path) == [] and len(packages(aws, bucket)) == 1

    refused = cli("infra", "destroy", "team", "--yes")
    assert refused.returncode == 2 and "infra destroy team-grader" in refused.stderr
    reported(cli("infra", "destroy", "team-grader", "--yes", *JSON))
    assert packages(aws, bucket) == []
    left = aws.client("lambda").list_functions()["Functions"]
    assert not [one for one in left if "grader" in one["FunctionName"]]
    reported(cli("infra", "destroy", "team", "--yes", "--delete-data", *JSON))


def test_check_finds_every_difference_of_a_function_that_others_made(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    service = aws.client("lambda")
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}}
    document = {"Version": "2012-10-17", "Statement": [{**trust, "Action": "sts:AssumeRole"}]}
    role = aws.client("iam").create_role(
        RoleName="grading", AssumeRolePolicyDocument=json.dumps(document)
    )["Role"]["Arn"]
    path = write_grader_job(tmp_path / "job", bedrock=aws.bedrock_section)
    package = pack_grader((path.parent / "graders" / "tickets.py").read_bytes())
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:mine"
    words = ("--set", f"reinforcement.lambda_arn={arn}")

    def check(*more: str, code: int = 0) -> list[str]:
        found = reported(cli("check", path, "--backend", "bedrock", *words, *more, *JSON), code)
        return [one["code"] for one in found["findings"] if "Grader" in one["code"]]

    assert check(code=3) == ["GraderNotThere"]
    service.create_function(
        FunctionName="mine",
        Runtime="python3.13",
        Handler="grader.lambda_handler",
        Role=role,
        Code={"ZipFile": package.content},
    )
    assert check() == ["GraderTimeout", "GraderMemory"], "3 seconds, 128 MB"
    service.update_function_configuration(FunctionName="mine", Timeout=30, MemorySize=512)
    assert check() == []
    service.update_function_code(
        FunctionName="mine",
        ZipFile=pack_grader(EXACT_GRADER.encode(), "sagemaker-nova").content,
    )
    assert check() == ["GraderUnknown"]
    service.tag_resource(Resource=arn, Tags={"cloudft:grader-sha256": package.grader_sha256})
    assert check(code=3) == ["GraderDiffers"]
    other = arn.replace(ACCOUNT, "123456789012")
    assert "GraderInOtherAccount" in check("--set", f"reinforcement.lambda_arn={other}", code=3)
    aws.fault({"operation": "lambda:*", "do": "deny"})
    unread = reported(cli("check", path, "--backend", "bedrock", *words, *JSON))
    [one] = [one for one in unread["findings"] if one["field"] == "reinforcement.lambda_arn"]
    assert one["code"] != "GraderNotThere" and "the grader" in one["message"]
