"""`cloudft import` killed at any call to AWS: run again, the model is imported once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from endpoint import BUCKET, REGION, ROLE, Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli
from test_aws_killed import killed, moments, value

IMPORT_CALLS = 26
"""At least as many as an import makes when its model is merged already."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        made.client("service-quotas").request_service_quota_increase(
            ServiceCode="bedrock", QuotaCode="L-45B04988", DesiredValue=1000
        )
        yield made


@pytest.fixture(scope="module")
def trained(
    endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[Path]:
    """Return the home of a job that was trained here and whose model is merged."""
    root = tmp_path_factory.mktemp("import-killed")
    section = {"region": REGION, "import_role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"}
    write_job_file(
        root / "job",
        shutil.copytree(tiny_model, root / "model"),
        name="routed",
        bedrock=section,
        validation=tiny.pairs(4),
        hyperparameters={"epochCount": 12, "learningRate": 0.03},
    )
    for words in (("submit", "--wait"), ("import", "-", "--dry-run")):
        subprocess.run(
            [preloaded.interpreter_path(), "-m", "cloudft", *words],
            cwd=root / "job",
            env=os.environ | endpoint.environ | {"CLOUDFT_HOME": str(root / "home")},
            capture_output=True,
            check=True,
        )
    yield root / "home"


@pytest.fixture
def aws(endpoint: Endpoint, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, setting in (endpoint.environ | {"CLOUDFT_HOME": str(trained)}).items():
        monkeypatch.setenv(name, setting)
    return endpoint


def imports(aws: Endpoint) -> list[dict[str, Any]]:
    listed = aws.client("bedrock").list_model_import_jobs()["modelImportJobSummaries"]
    return list(listed)


@pytest.mark.parametrize(("at", "when"), moments(IMPORT_CALLS))
def test_an_import_killed_at_any_call_is_one_model(
    cli: Cli, aws: Endpoint, trained: Path, tmp_path: Path, at: int, when: str
) -> None:
    prefix = f"team/{at}-{when}"
    words = ("import", "routed", "--set", f"bedrock.s3_uri=s3://{BUCKET}/{prefix}")
    before = {one["jobArn"] for one in imports(aws)}
    killed(tmp_path, at, when, *words)
    assert len((tmp_path / "calls").read_text().splitlines()) <= IMPORT_CALLS
    job = value(cli(*words, "--wait", "--output", "json"))
    assert job["status"] == "Completed"
    [new] = [one for one in imports(aws) if one["jobArn"] not in before]
    assert new["jobName"] == job["id"]
    assert not aws.client("s3").list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    sent = [key for key in aws.object_keys() if key.startswith(prefix) and "/imports/" in key]
    assert len(sent) == len({key.rpartition("/")[2] for key in sent}) == 5, sent
    assert [p.name for p in (trained / "jobs").iterdir() if p.name.startswith(".")] == []
    assert len({job["id"] for job in value(cli("list", "--output", "json"))}) == len(before) + 2
