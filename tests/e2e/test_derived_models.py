"""Custom models that no training job made: copies in other Regions, models of SageMaker, of S3."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import tiny
import yaml
from endpoint import AWS_KEYS, BUCKET, REGION, ROLE, Endpoint, running_endpoint
from processes import Cli

from local_backend.models.portable_config import write_portable_config

OTHER_REGION = "us-west-2"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "copy-a-model.md"


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    options = ("--also-region", OTHER_REGION, "--stand-in", tiny_model)
    with running_endpoint("--clock", "fast", "--jobs", "1000", *options) as made:
        yield made


@pytest.fixture
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    endpoint.fault()
    return endpoint


def bedrock_in(aws: Endpoint, region: str) -> Any:
    keys = {name.lower(): value for name, value in AWS_KEYS.items()}
    return boto3.client("bedrock", endpoint_url=aws.url, region_name=region, **keys)


def models_in(aws: Endpoint, region: str, name: str) -> list[str]:
    """Return the ARNs of the Region's custom models whose names begin so."""
    listed = bedrock_in(aws, region).list_custom_models(nameContains=name)["modelSummaries"]
    return [model["modelArn"] for model in listed]


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trained(cli: Cli, aws: Endpoint, folder: Path, name: str, model: str = "nova-micro") -> str:
    """Submit a job of that model and wait for it; return its id."""
    tiny.write_jsonl(folder / "train.jsonl", tiny.pairs(8))
    spec = {"name": name, "base_model": model, "data": {"train": "train.jsonl"}}
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump({**spec, "bedrock": aws.bedrock_section}))
    words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    return str(value(cli(*words))["id"])


def copy(cli: Cli, reference: str, *words: str) -> Any:
    options = ("--region", OTHER_REGION, "--wait", "--output", "json")
    return value(cli("copy", reference, *words, *options))


def test_a_copy_is_a_job_of_its_own_in_the_other_region(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    job = trained(cli, aws, tmp_path, "copied")
    aws.fault({"operation": "CreateModelCopyJob", "do": "drop"})  # its answer is lost
    made = copy(cli, job)
    assert made["status"] == "Completed" and made["backend"] == "copy"
    assert models_in(aws, OTHER_REGION, "copied-copy") == [made["summary"]["customModel"]]
    assert models_in(aws, REGION, "copied-copy") == []
    assert copy(cli, job)["id"] == made["id"]
    listed = value(cli("ps", "--region", OTHER_REGION, "--output", "json"))["things"]
    assert [t["job"] for t in listed if t["id"] == made["summary"]["customModel"]] == [made["id"]]
    serving = value(cli("deploy", made["id"], "--yes", "--output", "json"))
    assert f":{OTHER_REGION}:" in serving["id"]
    prompt = ("--prompt", "Where is parcel 3?", "--max-new-tokens", "4", "--output", "json")
    answers = value(cli("generate", made["id"], *prompt))
    assert answers
    value(cli("undeploy", made["id"], "--yes", "--output", "json"))
    assert cli("deploy", job, "--dry-run").returncode == 0


def test_a_copy_that_was_removed_is_made_again(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    job = trained(cli, aws, tmp_path, "removed")
    first = copy(cli, job)
    value(cli("gc", first["id"], "--region", OTHER_REGION, "--yes", "--output", "json"))
    assert models_in(aws, OTHER_REGION, "removed-copy") == []
    assert value(cli("status", first["id"], "--output", "json"))["summary"]["modelRemoved"]
    second = copy(cli, job)
    assert second["id"] != first["id"]
    assert models_in(aws, OTHER_REGION, "removed-copy") == [second["summary"]["customModel"]]
    assert models_in(aws, REGION, "removed") != []


def test_a_copy_of_an_arn_needs_no_job(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    trained(cli, aws, tmp_path, "by-arn")
    [arn] = models_in(aws, REGION, "by-arn")
    made = copy(cli, arn, "--name", "second")
    assert made["name"] == "second" and made["baseModel"].startswith("amazon.nova-micro")
    assert models_in(aws, OTHER_REGION, "second") == [made["summary"]["customModel"]]
    same = cli("copy", arn, "--region", REGION)
    assert same.returncode == 2 and "already" in same.stderr


def test_what_can_not_be_copied_is_refused(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    job = trained(cli, aws, tmp_path, "refused", "titan-text-express")
    done = cli("copy", job, "--region", OTHER_REGION, "--dry-run")
    # An endpoint of one's own may know more than AWS's tables.
    assert done.returncode == 0 and "copies no custom model of titan-text-express" in done.stderr
    done = cli("copy", job, "--region", REGION)
    assert done.returncode == 2 and "already" in done.stderr
    gone = cli("copy", "nothing-like-it", "--region", OTHER_REGION)
    assert gone.returncode == 2


def test_the_commands_of_the_page_about_copies(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    job = trained(cli, aws, tmp_path, "paged")
    text = PAGE.read_text().replace("eu-west-1", OTHER_REGION).replace("JOB", job)
    [block, *_] = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for line in block.splitlines():
        done = cli(*shlex.split(line.removeprefix("$ cloudft ")))
        assert done.returncode == 0, done.stderr
    assert "paged-copy" in done.stdout  # `ps` is the last of them


def merged_model(aws: Endpoint, tiny_model: Path, tmp_path: Path, prefix: str) -> str:
    """Upload a merged model as export writes it; return its folder's URI."""
    from transformers import AutoTokenizer

    folder: Path = shutil.copytree(tiny_model, tmp_path / "merged")
    config = folder / "config.json"
    rope = {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | rope))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_portable_config(folder, tokenizer, [tokenizer.eos_token_id])
    for path in folder.iterdir():
        aws.client("s3").upload_file(str(path), BUCKET, f"{prefix}/{path.name}")
    return f"s3://{BUCKET}/{prefix}/"


def test_a_model_in_s3_is_imported_without_an_upload(
    cli: Cli, aws: Endpoint, tmp_path: Path, tiny_model: Path
) -> None:
    uri = merged_model(aws, tiny_model, tmp_path, "run-7/checkpoints/hf_merged")
    before = aws.object_keys()
    words = ("import", "--from", uri.rstrip("/"), "--name", "from-s3", "--base-model", tiny_model)
    role = ("--set", f"bedrock.import_role_arn={ROLE}", "--region", REGION)
    aws.fault({"operation": "CreateModelImportJob", "do": "drop"})
    made = value(cli(*words, *role, "--wait", "--output", "json"))
    assert made["status"] == "Completed" and aws.object_keys() == before
    again = value(cli(*words, *role, "--output", "json"))
    assert again["id"] == made["id"]
    prompt = ("--prompt", "Where is parcel 3?", "--max-new-tokens", "4", "--output", "json")
    assert value(cli("generate", made["id"], *prompt))
    value(cli("gc", "--live", "--yes", "--output", "json"))
    assert aws.object_keys() == before  # the files are not cloudft's


def test_a_model_in_s3_is_checked_before_it_is_imported(
    cli: Cli, aws: Endpoint, tmp_path: Path, tiny_model: Path
) -> None:
    uri = merged_model(aws, tiny_model, tmp_path, "wrong")
    aws.client("s3").put_object(
        Bucket=BUCKET, Key="wrong/config.json", Body=b'{"architectures": ["BertModel"]}'
    )
    words = ("import", "--from", uri, "--name", "wrong", "--base-model", tiny_model)
    done = cli(*words, "--set", f"bedrock.import_role_arn={ROLE}", "--region", REGION)
    assert done.returncode == 3 and f"{uri}config.json" in done.stderr
    assert "Bedrock imports no BertModel" in done.stderr
    assert not [c for c in aws.calls("CreateModelImportJob") if "wrong" in c["jobName"]]


def test_a_nova_of_sagemaker_becomes_a_custom_model_once(
    cli: Cli, aws: Endpoint, tmp_path: Path, tiny_model: Path
) -> None:
    uri = merged_model(aws, tiny_model, tmp_path, "escrow")
    words = ("import", "--from", uri, "--name", "from-sagemaker", "--base-model", "nova-2-lite")
    role = ("--set", f"bedrock.import_role_arn={ROLE}", "--region", REGION)
    aws.fault({"operation": "CreateCustomModel", "do": "drop"})
    made = value(cli(*words, *role, "--wait", "--output", "json"))
    assert made["status"] == "Completed" and made["backend"] == "custom-model"
    assert models_in(aws, REGION, "from-sagemaker") == [made["summary"]["customModel"]]
    assert value(cli(*words, *role, "--output", "json"))["id"] == made["id"]
    serving = value(cli("deploy", made["id"], "--yes", "--output", "json"))
    assert serving["kind"] == "deployment"
    value(cli("undeploy", made["id"], "--yes", "--output", "json"))
    value(cli("gc", made["id"], "--yes", "--output", "json"))
    assert value(cli("status", made["id"], "--output", "json"))["summary"]["modelRemoved"]
    second = value(cli(*words, *role, "--wait", "--output", "json"))
    assert second["id"] != made["id"]
    assert models_in(aws, REGION, "from-sagemaker") == [second["summary"]["customModel"]]
