"""`evaluate --bedrock-job`: a judge scores both models' answers by evaluation jobs, each once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from endpoint import BUCKET, Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli

JUDGE = "amazon.nova-pro-v1:0"
METRICS = "Correctness,FollowingInstructions"


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--jobs", "100", "--stand-in", tiny_model) as made:
        yield made


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def completed_job(cli: Cli, aws: Endpoint, folder: Path, name: str) -> str:
    write_job_file(
        folder,
        Path("titan-text-express"),
        name=name,
        records=tiny.pairs(8),
        validation=tiny.pairs(4),
        bedrock=aws.bedrock_section,
        hyperparameters={"epochCount": 1, "batchSize": 1},
    )
    words = ("submit", "--backend", "bedrock", "--wait", "--output", "json")
    return str(value(cli(*words, cwd=folder, timeout=100))["id"])


def evaluate(cli: Cli, job: str, *words: str) -> Any:
    return cli("evaluate", job, "--batch", "--quick", "--output", "json", *words, timeout=200)


def judge(cli: Cli, job: str, *words: str) -> Any:
    return evaluate(cli, job, "--bedrock-job", "--metrics", METRICS, *words)


def created(aws: Endpoint, job: str) -> list[str]:
    """Return the names of the evaluation jobs that were created for a job."""
    calls = aws.calls("CreateEvaluationJob")
    return sorted({c["jobName"] for c in calls if job in c["outputDataConfig"]["s3Uri"]})


def test_a_judge_scores_both_models_once_and_the_report_has_every_judgment(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    job = completed_job(cli, aws, tmp_path / "job", "judged")
    before = value(judge(cli, job, "--dry-run"))
    assert before["missingAnswers"] == 8 and before["jobs"] == [] and before["judgments"] == 16
    unsure = cli(*("evaluate", job, "--batch", "--quick"), input="y\n", timeout=200)
    assert unsure.returncode == 0, unsure.stderr
    planned = value(judge(cli, job, "--dry-run"))
    assert planned["missingAnswers"] == 0 and created(aws, job) == []
    assert planned["usd"] is None or planned["usd"] > 0
    aws.fault({"operation": "CreateEvaluationJob", "do": "drop"})  # its response is lost
    found = value(judge(cli, job, "--yes"))
    names = created(aws, job)
    assert len(names) == 2 and all(name.endswith("-0") for name in names)
    calls = aws.calls("CreateEvaluationJob")
    assert [one["call"]["parameters"] in calls for one in planned["jobs"]] == [True, True]
    suites = {suite["suite"]: suite for suite in found["suites"]}
    assert set(suites) == {"bedrock-judge:Correctness", "bedrock-judge:FollowingInstructions"}
    correct = suites["bedrock-judge:Correctness"]
    assert correct["n"] == 4 and correct["figure"] == f"by {JUDGE}"
    assert 0 <= correct["base"] <= 1 and 0 <= correct["tuned"] <= 1
    assert correct["delta"]["value"] == pytest.approx(correct["tuned"] - correct["base"])
    records = json.loads(Path(found["file"]).read_text())["records"]
    for record in records:
        for variant in ("base", "tuned"):
            assert record[variant]["judged"]["Correctness"]["explanation"]
    again = judge(cli, job)
    assert value(again)["suites"] == found["suites"], "found without a question"
    assert "exists already" in again.stderr and created(aws, job) == names
    page = tmp_path / "page.html"
    assert cli("report", job, "--out", page).returncode == 0
    text = page.read_text()
    assert "Judged on Bedrock" in text and JUDGE in text
    assert "lm-eval" not in text


def test_a_failed_job_is_named_and_the_next_try_is_another_job(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    job = completed_job(cli, aws, tmp_path / "job", "failing")
    s3 = aws.client("s3")
    aws.fault({"operation": "CreateEvaluationJob", "do": "throttle"})
    value(evaluate(cli, job, "--yes"))
    planned = value(judge(cli, job, "--dry-run"))["jobs"]
    for one in planned:  # an object of the same size: the upload is skipped, the job reads this
        key = one["dataset"]["uri"].removeprefix(f"s3://{BUCKET}/")
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x" * one["dataset"]["bytes"])
    failed = judge(cli, job, "--yes")
    assert failed.returncode == 2 and "is Failed" in failed.stderr
    for one in planned:
        s3.delete_object(Bucket=BUCKET, Key=one["dataset"]["uri"].removeprefix(f"s3://{BUCKET}/"))
    found = value(judge(cli, job, "--yes"))
    assert len(found["suites"]) == 2
    names = created(aws, job)
    assert len(names) == 4 and sum(name.endswith("-1") for name in names) == 2


def test_lost_results_are_named_and_nothing_is_paid_for_again(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    job = completed_job(cli, aws, tmp_path / "job", "lost")
    value(judge(cli, job, "--yes"))
    names, s3 = created(aws, job), aws.client("s3")
    for key in aws.object_keys():
        if job in key and key.endswith("_output.jsonl"):
            lines = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().splitlines()
            body = b"\n".join([b"{damaged", *lines[1:], b""])
            s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    partly = judge(cli, job)
    assert "without a result" in partly.stderr and "NotJudged" in partly.stderr
    assert {suite["n"] for suite in value(partly)["suites"]} <= {2, 3}
    for key in aws.object_keys():
        if job in key and key.endswith("_output.jsonl"):
            s3.delete_object(Bucket=BUCKET, Key=key)
    gone = judge(cli, job, "--yes")
    assert gone.returncode == 2 and "batch-delete-evaluation-job" in gone.stderr
    assert created(aws, job) == names


REFUSALS: list[tuple[list[str], int, str]] = [
    (["--metrics", "Accuracy"], 2, "jobs that invoke the model themselves"),
    (["--metrics", "Nothing"], 2, "Correctness, Completeness"),
    (["--judge", "nova-lite"], 2, "take no judge 'nova-lite'"),
    (["--max-cost", "0.000001"], 6, "above the limit"),
    (["--judge", "anthropic.claude-opus-4-8", "--max-cost", "1"], 6, "no price is known"),
]


def test_what_can_not_be_judged_is_refused_before_anything_is_created(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    job = completed_job(cli, aws, tmp_path / "job", "refused")
    paid = len(aws.calls("CreateModelInvocationJob"))
    for words, code, message in REFUSALS:
        done = evaluate(cli, job, "--bedrock-job", "--yes", *words)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
    assert len(aws.calls("CreateModelInvocationJob")) == paid, "no answer was generated"
    answered = cli("evaluate", job, "--batch", "--quick", input="y\n", timeout=200)
    assert answered.returncode == 0, answered.stderr
    unsure = cli("evaluate", job, "--batch", "--quick", "--bedrock-job", input="n\n")
    assert unsure.returncode == 130 and "USD on demand" in unsure.stderr
    assert created(aws, job) == []
    other = cli("evaluate", job, "--judge", JUDGE)
    assert other.returncode == 2 and "add --bedrock-job" in other.stderr
