"""One job file in the cloud, from the command line, against an endpoint that really trains."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from endpoint import Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli

SETTINGS = ("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8")
SETS = [word for setting in SETTINGS for word in ("--set", setting)]
TEXTS = [{"text": f"Parcel {n} left the depot at dawn and came by noon."} for n in range(12)]


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--stand-in", tiny_model, *SETS) as made:
        yield made


def job_of(folder: Path, model: Path, endpoint: Endpoint, kind: str, name: str) -> Path:
    """Write a job file of that customization type for both backends; return its path."""
    supervised = kind == "FINE_TUNING"
    return write_job_file(
        folder,
        Path("titan-text-express" if supervised else "titan-text-lite"),
        name=name,
        customization_type=kind,
        records=[{**pair, "prompt": f"{name}: {pair['prompt']}"} for pair in tiny.pairs(12)]
        if supervised
        else TEXTS,
        validation=tiny.pairs(4) if supervised else TEXTS[:4],
        local={"model": str(model)},
        bedrock=endpoint.bedrock_section,
        hyperparameters={"learningRate": 0.03, "batchSize": 2},
    )


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["FINE_TUNING", "CONTINUED_PRE_TRAINING"])
def test_titan_runs_in_the_cloud_as_it_does_here(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "job"
    job_of(folder, tiny_model, aws, kind, f"titan-{kind[:4].lower().strip('_')}")
    words = ("submit", "--backend", "bedrock", "--wait", "--output", "json")
    cloud = value(cli(*words, cwd=folder, timeout=200))
    assert cloud["status"] == "Completed"
    here = value(cli("submit", "--wait", "--output", "json", cwd=folder, timeout=200))
    assert cloud["manifest"]["sha256"] == here["manifest"]["sha256"]
    assert cloud["manifest"]["files"] == here["manifest"]["files"]
    assert cloud.keys() == here.keys()
    assert cloud["hyperParameters"].keys() == here["hyperParameters"].keys()
    assert _files(cloud) <= _files(here)
    manifests = [
        json.loads((Path(job["artifacts"]) / "manifest.json").read_text()) for job in (cloud, here)
    ]
    assert manifests[0]["sha256"] == manifests[1]["sha256"]
    assert _staged_in_s3(aws, cloud) == _staged_here(here)
    plotted = cli("metrics", cloud["id"], "--plot", tmp_path / "loss.png", cwd=folder)
    assert plotted.returncode == 0, plotted.stderr
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    [evaluated_by_batch] = [
        call for call in aws.calls("CreateModelCustomizationJob") if call["jobName"] == cloud["id"]
    ]
    assert evaluated_by_batch["customizationType"] == kind
    assert evaluated_by_batch["hyperParameters"]["learningRate"] == "0.03"


def _files(job: dict[str, Any]) -> set[str]:
    """Return the files that a cloud job leaves too: model weights stay in AWS."""
    root = Path(job["artifacts"])
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def _staged_in_s3(endpoint: Endpoint, job: dict[str, Any]) -> dict[str, bytes]:
    s3 = endpoint.client("s3")
    files = job["manifest"]["files"]
    keys = {role: f"team/data/{f['sha256']}/{f['name']}" for role, f in files.items()}
    return {
        role: s3.get_object(Bucket="training-bucket", Key=key)["Body"].read()
        for role, key in keys.items()
    }


def _staged_here(job: dict[str, Any]) -> dict[str, bytes]:
    data = Path(job["artifacts"]).parent / "data"
    files = job["manifest"]["files"]
    return {role: (data / file["name"]).read_bytes() for role, file in files.items()}


def _evaluate_by_batch(cli: Cli, aws: Endpoint, home: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Evaluate by batch inference, with nothing deployed; each prompt is billed once."""

    def evaluated() -> dict[str, Any]:
        shutil.rmtree(home / "answers", ignore_errors=True)
        words = ("evaluate", job["id"], "--batch", "--yes", "--output", "json")
        found: dict[str, Any] = value(cli(*words, timeout=200))
        return found

    def made() -> list[str]:
        return sorted({call["jobName"] for call in aws.calls("CreateModelInvocationJob")})

    aws.fault({"operation": "CreateModelInvocationJob", "do": "drop"})
    first = evaluated()
    assert ":custom-model/" in first["identities"]["tuned"]
    names = made()
    assert len(names) == 2 and all(name.endswith("-0") for name in names)
    assert _texts(evaluated()) == _texts(first) and made() == names  # found again in S3
    for key in aws.object_keys():
        if key.endswith(".jsonl.out"):
            aws.client("s3").delete_object(Bucket="training-bucket", Key=key)
    assert _texts(evaluated()) == _texts(first)
    assert len(made()) == 4 and sum(name.endswith("-1") for name in made()) == 2
    return first


def _texts(found: dict[str, Any]) -> list[tuple[str, str]]:
    records = json.loads(Path(found["file"]).read_text())["records"]
    return [(record["base"]["text"], record["tuned"]["text"]) for record in records]


def test_the_life_of_a_tuned_model(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path, home: Path
) -> None:
    folder = tmp_path / "job"
    job_of(folder, tiny_model, aws, "FINE_TUNING", "served")
    words = ("submit", "--backend", "bedrock", "--wait", "--output", "json")
    job = value(cli(*words, cwd=folder, timeout=200))
    refused = cli("generate", job["id"], "--prompt", "Where is my parcel?")
    assert refused.returncode == 2 and "cloudft deploy" in refused.stderr
    batched = _evaluate_by_batch(cli, aws, home, job)
    plan = value(cli("deploy", job["id"], "--dry-run", "--output", "json"))
    assert plan["kind"] == "provisioned"
    assert aws.calls("CreateProvisionedModelThroughput") == []
    unsure = cli("deploy", job["id"], input="n\n")
    assert unsure.returncode == 130 and "per hour" in unsure.stderr
    made = value(cli("deploy", job["id"], "--yes", "--ttl", "0.0001", "--output", "json"))
    again = value(cli("deploy", job["id"], "--yes", "--output", "json"))
    assert made["id"] == again["id"] and made["status"] == "ready"
    said = cli("generate", job["id"], "--prompt", "Where is my parcel?", "--max-new-tokens", "4")
    assert said.returncode == 0, said.stderr
    found = value(cli("evaluate", job["id"], "--yes", "--output", "json", timeout=200))
    assert found["n"] == 4 and found["identities"]["tuned"] == made["id"]
    assert found["tuned"].keys() == found["base"].keys()
    assert _texts(found) == _texts(batched)
    assert "ValidationData" in {warning["code"] for warning in found["warnings"]}
    refused = cli("evaluate", job["id"], "--yes", "--suite", "lm-eval:arc_easy")
    assert refused.returncode == 2 and "--backend local" in refused.stderr
    listed = value(cli("ps", "--cost", "--output", "json"))
    kinds = {resource["kind"] for resource in listed["things"] if resource["job"] == job["id"]}
    assert kinds == {"provisioned-throughput", "custom-model", "data"}
    assert "EXPIRED" in cli("ps").stdout
    expired = value(cli("gc", "--expired", "--dry-run", "--output", "json"))
    assert [resource["id"] for resource in expired["found"]] == [made["id"]]
    gone = value(cli("undeploy", job["id"], "--yes", "--output", "json"))
    assert [resource["id"] for resource in gone] == [made["id"]]
    assert "nothing serves" in cli("undeploy", job["id"], "--yes").stdout
    untracked = aws.client("bedrock")
    cleared = value(cli("gc", "--yes", "--output", "json"))
    assert {t["kind"] for t in cleared["removed"]} == {"data"}
    left = {(one["thing"]["kind"], one["why"]) for one in cleared["left"]}
    assert left - {("custom-model", "another-home"), ("data", "another-home")} == {
        ("custom-model", "live")
    }
    cleared = value(cli("gc", job["id"], "--yes", "--output", "json"))
    assert {t["kind"] for t in cleared["removed"]} == {"custom-model"}
    assert untracked.list_custom_models(nameContains=job["id"])["modelSummaries"] == []
    digest = job["manifest"]["files"]["train"]["sha256"]
    assert not any(digest in key for key in aws.object_keys())
    assert value(cli("status", job["id"], "--output", "json"))["status"] == "Completed"


def test_a_job_is_found_from_another_machine(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "job"
    job_of(folder, tiny_model, aws, "FINE_TUNING", "moved")
    words = ("submit", "--backend", "bedrock", "--wait", "--output", "json")
    job = value(cli(*words, cwd=folder, timeout=200))
    monkeypatch.setenv("CLOUDFT_HOME", str(tmp_path / "other-machine"))
    assert value(cli("list", "--output", "json")) == []
    found = value(cli("list", "--backend", "bedrock", "--output", "json"))
    assert job["id"] in [other["id"] for other in found]
    other = value(cli("status", job["id"], "--output", "json"))
    assert other["manifest"] == job["manifest"] | {"sources": []}, "paths of another machine"
    assert other["hyperParameters"] == job["hyperParameters"]
    assert other["baseModel"] == job["baseModel"]
    with (
        Path(other["artifacts"]) / "training_artifacts/step_wise_training_metrics.csv"
    ).open() as f:
        assert len(list(csv.DictReader(f))) == 12
    again = value(cli(*words, cwd=folder, timeout=200))
    assert again["id"] == job["id"]
    submitted = [c["jobName"] for c in aws.calls("CreateModelCustomizationJob")]
    assert submitted.count(job["id"]) == 1
    monkeypatch.setenv("CLOUDFT_HOME", str(tmp_path / "third-machine"))
    another = value(cli(*words, "--force-new", cwd=folder, timeout=200))
    assert another["id"] != job["id"] and another["status"] == "Completed"


def test_what_aws_no_longer_has_is_refused_before_anything_is_sent(
    cli: Cli, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_endpoint("--as-on-aws", "--clock", "fast") as endpoint:
        for name, setting in endpoint.environ.items():
            monkeypatch.setenv(name, setting)
        folder = tmp_path / "job"
        path = job_of(folder, tiny_model, endpoint, "FINE_TUNING", "gone")
        done = cli("submit", "--backend", "bedrock", "--output", "json", cwd=folder)
        assert done.returncode == 3
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "ModelEndOfLife"
        assert "2025-08-15" in error["message"] and "nova-micro" in error["fix"]
        assert endpoint.object_keys() == [] and endpoint.calls("CreateModelCustomizationJob") == []
        job = yaml.safe_load(path.read_text()) | {"base_model": "nova-micro"}
        job["hyperparameters"] = {"epochCount": 1}
        path.write_text(yaml.safe_dump(job))
        words = ("submit", "--backend", "bedrock", "--wait", "--output", "json")
        assert value(cli(*words, cwd=folder))["status"] == "Completed"


def test_secrets_and_texts_reach_no_log(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    planted = [
        {"prompt": f"PLANTED-PROMPT {n}", "completion": f"PLANTED-COMPLETION {n}"} for n in range(6)
    ]
    path = job_of(folder, tiny_model, aws, "FINE_TUNING", "planted")
    tiny.write_jsonl(folder / "train.jsonl", planted)
    said = ""
    for words in (
        ("check", "--backend", "bedrock"),
        ("plan", "--backend", "bedrock"),
        ("submit", "--backend", "bedrock", "--wait"),
        ("status", "-"),
        ("logs", "-"),
        ("deploy", "-", "--yes"),
        ("ps",),
        ("undeploy", "-", "--yes"),
    ):
        for more in ("-v", "-vv"):
            done = cli(*words, more, cwd=path.parent, timeout=200)
            assert done.returncode == 0, done.stderr
            said += done.stdout + done.stderr
    for secret in (
        "PLANTED-PROMPT",
        "PLANTED-COMPLETION",
        "planted-secret-key",
        "AKIAPLANTEDKEYID",
    ):
        assert secret not in said
