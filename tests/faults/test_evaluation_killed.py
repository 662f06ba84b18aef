"""`evaluate --bedrock-job` is killed around the creation of its jobs: each is created once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from endpoint import Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli
from test_aws_killed import killed, value

MOMENTS = (
    ("POST", "/evaluation-jobs", 1, "before", "Correctness"),
    ("POST", "/evaluation-jobs", 1, "after", "Completeness"),
    ("POST", "/evaluation-jobs", 2, "after", "Relevance"),
    ("PUT", "/training-bucket", 1, "after", "Coherence"),
)
"""The calls that count, the number of the one at which it is killed, when, and the metric."""


@pytest.fixture
def aws(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--stand-in", tiny_model) as endpoint:
        for name, value in endpoint.environ.items():
            monkeypatch.setenv(name, value)
        yield endpoint


def test_an_evaluation_killed_around_its_creations_is_one_job_for_each_model(
    cli: Cli, aws: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "job"
    write_job_file(
        folder,
        Path("titan-text-express"),
        name="killed",
        records=tiny.pairs(8),
        validation=tiny.pairs(2),
        bedrock=aws.bedrock_section,
        hyperparameters={"epochCount": 1, "batchSize": 1},
    )
    words = ("submit", "--backend", "bedrock", "--wait", "--output", "json")
    job = value(cli(*words, cwd=folder, timeout=100))["id"]
    words = ("evaluate", job, "--batch", "--quick", "--yes", "--output", "json")
    value(cli(*words, timeout=200))  # the answers are cached now
    for method, path, at, when, metric in MOMENTS:
        before = {call["jobName"] for call in aws.calls("CreateEvaluationJob")}
        judged = (*words, "--bedrock-job", "--metrics", metric)
        monkeypatch.setenv("KILL_TARGET", f"{method} {aws.url}{path}")
        assert killed(tmp_path, at, when, *judged, timeout=300), (method, at)
        found = value(cli(*judged, timeout=200))
        names = {call["jobName"] for call in aws.calls("CreateEvaluationJob")} - before
        assert len(names) == 2 and all(name.endswith("-0") for name in names), (method, at, when)
        [suite] = [s for s in found["suites"] if s["suite"] == f"bedrock-judge:{metric}"]
        assert suite["n"] == 2
    jobs = aws.client("bedrock").list_evaluation_jobs()["jobSummaries"]
    assert len(jobs) == 2 * len(MOMENTS)
    assert {one["status"] for one in jobs} == {"Completed"}
