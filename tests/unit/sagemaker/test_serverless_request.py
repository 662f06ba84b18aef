"""A serverless job's request, and what is refused before it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_files import write_job_file

from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.request_validation import validate_request
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.backends.sagemaker.serverless import hub, job, preflight, records
from cloudft.backends.sagemaker.serverless import request as serverless
from cloudft.errors import CheckFailed, PermissionDenied, ResourceNotFound
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import DataVolume, Finding

SDK = json.loads(Path(__file__).with_name("sdk_requests.json").read_text())
KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
SECTION: dict[str, Any] = {
    "region": "us-east-1",
    "role_arn": "arn:aws:iam::123456789012:role/job",
    "s3_uri": "s3://mybucket/team",
}
GROUP = {"model_package_group": "team"}
Make = Callable[..., LoadedJob]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def load(
        section: Mapping[str, Any] | None = None, own: Mapping[str, Any] | None = None, **more: Any
    ) -> LoadedJob:
        write_job_file(tmp_path, Path("smollm2-135m"))  # the data
        given: dict[str, Any] = {
            "name": "x",
            "base_model": "Qwen/Qwen3-0.6B",
            "data": {"train": "train.jsonl"},
            "hyperparameters": {"epochCount": 3},
            **more,
        }
        given["sagemaker"] = {**SECTION, **(section or {}), "serverless": {**GROUP, **(own or {})}}
        path = tmp_path / "cloudft.yaml"
        path.write_text(yaml.safe_dump(given))
        return load_job(path)

    return load


def created(loaded: LoadedJob) -> dict[str, Any]:
    found = serverless.create_request(with_placeholder_data(loaded))
    assert validate_request("sagemaker", "CreateTrainingJob", found) == []
    return found


def errors(loaded: LoadedJob) -> dict[str, Finding]:
    """Return the errors of the job file alone: nothing answers at this address."""
    aws = Aws(AwsLocation(region="us-east-1", endpoint_url="http://127.0.0.1:9"))
    found = preflight.check_job(loaded, aws)
    return {one.code: one for one in found if one.severity == "error"}


def test_the_request_is_what_the_sdk_sends_for_the_same_job(make: Make) -> None:
    """The members of sagemaker-train 1.27.0, but for name, data, output and hyperparameters."""
    network = {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]}
    section = {"kms_key_id": KEY, "max_runtime_seconds": 7200, "vpc": network}
    own = {"sequence_length": "32K", "accept_eula": True}
    ours, theirs = created(make(section, own, tags={"team": "a"})), SDK["serverless"]
    assert ours.keys() == theirs.keys()
    for member in ("RoleArn", "VpcConfig", "StoppingCondition", "ModelPackageConfig"):
        assert ours[member] == theirs[member], member
    arn = theirs["ServerlessJobConfig"]["BaseModelArn"].rpartition("/")[0]  # without the version
    assert ours["ServerlessJobConfig"] == {**theirs["ServerlessJobConfig"], "BaseModelArn": arn}
    [channel], [their_channel] = ours["InputDataConfig"], theirs["InputDataConfig"]
    source = channel["DataSource"]["S3DataSource"]
    assert source | {"S3Uri": ""} == their_channel["DataSource"]["S3DataSource"] | {"S3Uri": ""}
    assert source["S3Uri"].endswith("/train.jsonl")
    assert {"Key": "team", "Value": "a"} in ours["Tags"]
    assert ours["OutputDataConfig"]["KmsKeyId"] == KEY
    assert ours["OutputDataConfig"]["CompressionType"] == "NONE"
    assert ours["HyperParameters"] == {"max_epochs": "3", "merge_weights": "true"}


def test_one_job_is_one_name_and_another_setting_another(make: Make) -> None:
    names = [
        created(make(own=own))["TrainingJobName"]
        for own in ({}, {}, {"sequence_length": "8K"}, {"hyperparameters": {"seed": 1}})
    ]
    assert names[0] == names[1] and len(set(names)) == 3
    tags = {tag["Key"]: tag["Value"] for tag in created(make())["Tags"]}
    assert names[0].endswith(tags["cloudft:token"][:8]) and len(tags["cloudft:plan"]) == 64
    assert not [n for n in created(make())["HyperParameters"] if "cloudft" in n]


def test_nova_gets_its_own_records_and_no_merge(make: Make) -> None:
    found = created(make(base_model="nova-2-lite"))
    source = found["InputDataConfig"][0]["DataSource"]["S3DataSource"]
    assert source["S3DataType"] == "Converse"
    assert "merge_weights" not in found["HyperParameters"]
    assert "nova-textgeneration-lite-v2" in found["ServerlessJobConfig"]["BaseModelArn"]
    plan = job.make_plan(with_placeholder_data(make(base_model="nova-2-lite")))
    [upload] = [c for c in plan.request["calls"] if c.get("file") == "train"]
    assert upload["parameters"]["Metadata"] == {"cloudft-sha256": "0" * 64}  # as it is staged


def test_all_weights_have_no_peft(make: Make) -> None:
    config = created(make(own={"method": "full"}))["ServerlessJobConfig"]
    assert "Peft" not in config


@pytest.mark.parametrize(
    ("section", "own", "more", "code"),
    [
        ({"spot": True}, {}, {}, "UnusedValue"),
        ({"instance_type": "ml.g5.xlarge"}, {}, {}, "UnusedValue"),
        ({"network_isolation": True}, {}, {}, "UnusedValue"),
        ({"role_arn": None}, {}, {}, "MissingValue"),
        ({"s3_uri": None}, {}, {}, "MissingValue"),
        ({"region": "eu-central-1"}, {}, {}, "RegionUnsupported"),
        ({}, {}, {"base_model": "smollm2-135m"}, "NoHubModel"),
        ({}, {"method": "full"}, {"base_model": "meta-llama/Llama-3.1-8B-Instruct"}, "NoRecipe"),
        (
            {},
            {},
            {"hyperparameters": {"epochCount": 1, "learningRateWarmupSteps": 2}},
            "UnusedValue",
        ),
        ({}, {"hyperparameters": {"max_epochs": 2}}, {}, "BadValue"),
        ({}, {}, {"hyperparameters": {}}, "MissingValue"),
        ({}, {}, {"early_stopping": {"patience": 1, "threshold": 0.1}}, "UnusedValue"),
        (
            {},
            {},
            {"customization_type": "CONTINUED_PRE_TRAINING"},
            "NotOnSageMaker",
        ),
    ],
)
def test_what_the_job_file_alone_shows(
    make: Make, section: dict[str, Any], own: dict[str, Any], more: dict[str, Any], code: str
) -> None:
    assert code in errors(make(section, own, **more))


def test_a_good_job_has_no_error_of_its_own(make: Make) -> None:
    assert errors(make()) == {}


def test_a_model_that_the_catalogue_lacks_can_be_named(make: Make) -> None:
    loaded = make(own={"model": "huggingface-llm-new-9b"}, base_model="smollm2-135m")
    assert errors(loaded) == {}
    assert created(loaded)["ServerlessJobConfig"]["BaseModelArn"].endswith(
        "/huggingface-llm-new-9b"
    )


def test_tokens_are_estimated_and_a_price_is_the_users_own(make: Make) -> None:
    volumes = {"train": DataVolume(10, 1000, 200)}
    unknown = job.estimate(make(), volumes)
    assert unknown.usd["training"] is None and unknown.epochs == 3
    assert unknown.unpriced is not None and unknown.unpriced.field == "training_per_1k_tokens"
    prices = {"source": "an offer", "date": "2026-11-30", "training_per_1k_tokens": 0.5}
    known = job.estimate(make(prices=prices), volumes)
    assert known.usd["training"] == pytest.approx(volumes["train"].tokens / 1000 * 3 * 0.5)
    assert known.unpriced is None and known.price_source.startswith("an offer")
    steps = {"hyperparameters": {"max_steps": 100}}
    by_steps = job.estimate(make(own=steps, hyperparameters={}, prices=prices), volumes)
    assert by_steps.usd["training"] is None and by_steps.unknown is not None


class Hub(Aws):
    """Answers for the hub and the group, as `answers` says; an error is raised."""

    def __init__(self, **answers: Any) -> None:
        super().__init__(AwsLocation(region="us-east-1"))
        self.answers = answers

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Any:
        answer = self.answers[operation]
        if isinstance(answer, Exception):
            raise answer
        return answer


def document(*recipes: Mapping[str, Any], gated: bool = False) -> dict[str, Any]:
    content = {"GatedBucket": gated, "RecipeCollection": list(recipes), "NewMember": 1}
    return {"HubContentDocument": json.dumps(content)}


LORA_4K = {"CustomizationTechnique": "SFT", "Peft": "LORA", "SequenceLength": "4K"}


def hub_findings(loaded: LoadedJob, answer: Any) -> dict[str, str]:
    from cloudft.backends.findings import FindingFactory

    aws = Hub(describe_hub_content=answer)
    found = preflight._check_hub(loaded, aws, FindingFactory(loaded))
    return {one.code: one.fix or "" for one in found}


def test_the_hub_decides_by_its_recipes(make: Make) -> None:
    assert hub_findings(make(), document(LORA_4K)) == {}
    length = hub_findings(make(own={"sequence_length": "8K"}), document(LORA_4K))
    assert "take one of 4K" in length["NoRecipe"]
    assert "NoRecipe" in hub_findings(make(own={"method": "full"}), document(LORA_4K))
    assert "NoRecipe" in hub_findings(make(), document())
    assert "EulaNotAccepted" in hub_findings(make(), document(LORA_4K, gated=True))
    assert hub_findings(make(own={"accept_eula": True}), document(LORA_4K, gated=True)) == {}
    assert "CouldNotCheck" in hub_findings(make(), {"HubContentDocument": "["})


def test_could_not_look_is_not_nothing_there(make: Make) -> None:
    missing = ResourceNotFound("ResourceNotFound: HubContent does not exist")
    assert "NoHubModel" in hub_findings(make(), missing)
    with pytest.raises(PermissionDenied):  # run_checks makes a warning of it
        hub_findings(make(), PermissionDenied("AccessDeniedException"))


def test_hyperparameters_are_compared_with_the_recipes_list(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "max_epochs": hub.Setting(type="integer", min=1, max=2),
        "lora_rank": hub.Setting(type="integer", enum=[8, 16]),
        "merge_weights": hub.Setting(),
    }
    monkeypatch.setattr(hub, "read_settings", lambda aws, recipe: settings)
    found = hub_findings(make(own={"hyperparameters": {"lora_rank": 9}}), document(LORA_4K))
    assert found.keys() == {"OutOfRange"}
    unknown = hub_findings(make(own={"hyperparameters": {"lora_rnk": 8}}), document(LORA_4K))
    assert "UnknownHyperparameter" in unknown


def test_a_group_that_is_not_there_is_named_with_the_command(make: Make) -> None:
    from cloudft.backends.findings import FindingFactory

    loaded = make()
    aws = Hub(describe_model_package_group=ResourceNotFound("ValidationException: does not exist"))
    [finding] = preflight._check_group(loaded, aws, FindingFactory(loaded))
    assert "create-model-package-group" in str(finding.fix)


def test_records_become_messages(tmp_path: Path) -> None:
    source, target = tmp_path / "train.jsonl", tmp_path / "out.jsonl"
    line = {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": "Be short."}],
        "messages": [
            {"role": "user", "content": [{"text": "Où?"}]},
            {"role": "assistant", "content": [{"text": "Ici."}]},
        ],
    }
    source.write_text(json.dumps(line) + "\n")
    digest = records.write_messages(source, "converse", target)
    assert json.loads(target.read_text()) == {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Où?"},
            {"role": "assistant", "content": "Ici."},
        ]
    }
    assert records.write_messages(source, "converse", target) == digest
    line["messages"][1]["content"].append(  # type: ignore[index]
        {"toolUse": {"toolUseId": "1", "name": "f", "input": {}}}
    )
    source.write_text("\n".join([source.read_text().strip(), json.dumps(line)]) + "\n")
    with pytest.raises(CheckFailed) as refused:
        records.write_messages(source, "converse", target)
    assert "record 2" in refused.value.message and refused.value.line == 2


def test_a_serverless_job_is_known_by_its_tags(make: Make, tmp_path: Path) -> None:
    loaded = make()
    parameters = created(loaded)
    description: Any = {
        "TrainingJobName": parameters["TrainingJobName"],
        "TrainingJobArn": "arn:x",
        "ServerlessJobConfig": parameters["ServerlessJobConfig"],
        "HyperParameters": {"max_epochs": "3"},
    }

    class Tagged(Aws):
        def paginate(self, *_: Any, **parameters_: Any) -> Any:
            assert parameters_["ResourceArn"] == "arn:x"
            return iter(parameters["Tags"])

    aws = Tagged(AwsLocation(region="us-east-1"))
    marked = job.with_marks(aws, description)["HyperParameters"]
    plan = SageMakerBackend(Home(tmp_path), aws).plan(with_placeholder_data(loaded))
    assert marked["cloudft-job"] == plan.job_id and marked["cloudft-token"] == plan.token
    other = dataclasses.replace(with_placeholder_data(loaded), attempt=1)
    assert serverless.request_token(other) != plan.token


def test_a_running_serverless_job_is_listed_without_a_price_by_the_hour(make: Make) -> None:
    """Also another tool's: its description has no ResourceConfig."""
    from datetime import datetime, timezone

    from cloudft.backends.sagemaker import inventory

    parameters = created(make())
    description: Any = {
        **parameters,
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/x",
        "CreationTime": datetime(2026, 11, 30, tzinfo=timezone.utc),
    }
    found = inventory._machine_resource(description, "training-job", "InProgress", 3600)
    assert found.usd == {"perHour": None, "perMonth": None}
    assert "serverless" in found.basis
    [uri] = inventory._input_uris(description)
    staged = inventory.STAGED_URI.fullmatch(uri)
    assert staged is not None and uri == staged["folder"] + "train.jsonl"
