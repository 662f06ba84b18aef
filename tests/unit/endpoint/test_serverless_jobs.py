"""Which serverless jobs the endpoint runs, and what its hub and model packages answer."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from cloudft.backends.sagemaker.serverless import hub
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.sagemaker.model_registry import ModelRegistry
from cloudft.endpoint.sagemaker.serverless import require_supported
from cloudft.endpoint.state import State

HUB = "arn:aws:sagemaker:us-east-1:aws:hub-content/SageMakerPublicHub/Model"
GROUP = "arn:aws:sagemaker:us-east-1:000000000000:model-package-group/team"
REQUEST: dict[str, Any] = {
    "TrainingJobName": "one",
    "HyperParameters": {"max_epochs": "1", "lora_rank": "8", "merge_weights": "true"},
    "ServerlessJobConfig": {
        "BaseModelArn": f"{HUB}/huggingface-reasoning-qwen3-06b/1.0.0",
        "JobType": "FineTuning",
        "CustomizationTechnique": "SFT",
        "Peft": "LORA",
    },
    "ModelPackageConfig": {"ModelPackageGroupArn": GROUP},
}


@pytest.fixture
def registry() -> ModelRegistry:
    made = ModelRegistry(State("us-east-1"))
    made.create_model_package_group({"ModelPackageGroupName": "team"})
    return made


def refusal(registry: ModelRegistry, **config: Any) -> str:
    request = copy.deepcopy(REQUEST)
    request["ServerlessJobConfig"] |= config
    with pytest.raises(ServiceError) as refused:
        require_supported(request, registry.state)
    assert refused.value.code == "ValidationException"
    return refused.value.message


def test_sft_is_run(registry: ModelRegistry) -> None:
    require_supported(REQUEST, registry.state)
    full = {k: v for k, v in REQUEST["ServerlessJobConfig"].items() if k != "Peft"}
    require_supported({**REQUEST, "ServerlessJobConfig": full}, registry.state)


@pytest.mark.parametrize("technique", ["DPO", "RLVR", "RLAIF"])
def test_other_techniques_are_refused_by_name(registry: ModelRegistry, technique: str) -> None:
    message = refusal(registry, CustomizationTechnique=technique)
    assert technique in message and "SFT alone" in message


def test_what_the_service_refuses(registry: ModelRegistry) -> None:
    assert "Evaluation" in refusal(registry, JobType="Evaluation")
    assert "No valid recipes" in refusal(registry, SequenceLength="128K")
    assert "No valid recipes" in refusal(registry, BaseModelArn=f"{HUB}/no-such-model")
    llama = f"{HUB}/meta-textgeneration-llama-3-1-8b-instruct"
    assert "AcceptEula" in refusal(registry, BaseModelArn=llama)
    for more in (
        {"EnableManagedSpotTraining": True},
        {"HyperParameters": {"warmup": "1"}},
        {"ModelPackageConfig": {"ModelPackageGroupArn": f"{GROUP}2"}},
        {"ModelPackageConfig": {}},
    ):
        with pytest.raises(ServiceError):
            require_supported({**REQUEST, **more}, registry.state)


def test_a_hub_content_is_read_as_that_of_aws(registry: ModelRegistry) -> None:
    name = "meta-textgeneration-llama-3-1-8b-instruct"
    given: Any = {"HubName": "SageMakerPublicHub", "HubContentType": "Model"}
    answer: Any = registry.describe_hub_content({**given, "HubContentName": name})
    assert answer["HubContentArn"].startswith(f"{HUB}/{name}/")
    raw = json.loads(answer["HubContentDocument"])
    rows = raw["RecipeCollection"]
    document = hub.HubDocument(
        [hub.Recipe("SFT", row.get("Peft"), row["SequenceLength"]) for row in rows],
        raw["GatedBucket"],
    )
    assert document.gated_bucket and hub.matching_recipes(document, "SFT", "LORA", "8K")
    assert hub.matching_recipes(document, "SFT", None, None) == []  # LoRA alone, by the guide
    with pytest.raises(ServiceError) as missing:
        registry.describe_hub_content({**given, "HubContentName": "none"})
    assert missing.value.code == "ResourceNotFound"


def test_packages_are_versions_of_their_group_and_outlive_a_restart(tmp_path: Path) -> None:
    registry = ModelRegistry(State("us-east-1", tmp_path))
    registry.create_model_package_group({"ModelPackageGroupName": "team"})
    arns = [registry.add_package("team", f"s3://b/{n}/") for n in (1, 2)]
    assert [arn.rpartition("/")[2] for arn in arns] == ["1", "2"]
    again = ModelRegistry(State("us-east-1", tmp_path))
    answer: Any = again.describe_model_package({"ModelPackageName": arns[1]})
    source = answer["InferenceSpecification"]["Containers"][0]["ModelDataSource"]["S3DataSource"]
    assert (source["S3Uri"], answer["ModelPackageVersion"]) == ("s3://b/2/", 2)
    with pytest.raises(ServiceError):
        again.create_model_package_group({"ModelPackageGroupName": "team"})
    with pytest.raises(ServiceError):
        again.describe_model_package({"ModelPackageName": f"{arns[1]}0"})
