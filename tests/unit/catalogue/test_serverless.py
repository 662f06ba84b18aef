"""The models of SageMaker's serverless customization, and where check names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from job_files import write_job_file

from cloudft import catalogue
from cloudft.aws.request_validation import load_service_model
from cloudft.backends import make_backend
from cloudft.catalogue import serverless
from cloudft.errors import SpecError
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.types import Finding


def test_the_techniques_are_those_of_the_api() -> None:
    enum = load_service_model("sagemaker").shape_for("CustomizationTechnique").enum
    assert set(serverless.TECHNIQUES) == set(enum)
    named = {
        name for row in catalogue.CUSTOMIZATION_TYPES.values() for name in row.sagemaker_techniques
    }
    assert named <= set(serverless.TECHNIQUES)
    assert catalogue.techniques_for("CONTINUED_PRE_TRAINING") == ()  # no technique of the API is it


def test_each_model_has_a_source_and_names_that_the_catalogue_finds() -> None:
    listed = catalogue.load_serverless()
    assert set(listed.billed) < set(serverless.TECHNIQUES)
    for model in listed.by_hub.values():
        assert model.source.date >= "2026-08" and model.regions and model.names
        for name in model.names:
            assert catalogue.find_serverless_model(catalogue.find_model(name)) == model


@pytest.mark.parametrize(
    ("name", "hub", "techniques", "full"),
    [  # SageMaker developer guide, model-customize-open-weight.html, 2026-10; Nova: see the file
        ("Qwen/Qwen3-1.7B", "huggingface-reasoning-qwen3-1-7b", 4, ("SFT", "DPO", "RLAIF")),
        ("gpt-oss-20b", "openai-reasoning-gpt-oss-20b", 4, ("SFT", "DPO", "RLVR", "RLAIF")),
        ("llama-3.1-8b", "meta-textgeneration-llama-3-1-8b-instruct", 4, ()),
        ("nova-2-lite", "nova-textgeneration-lite-v2", 2, ("SFT",)),
        ("Qwen/Qwen3.8-27B", "huggingface-vlm-qwen3-8-27b", 0, ()),
    ],
)
def test_some_rows(name: str, hub: str, techniques: int, full: tuple[str, ...]) -> None:
    found = catalogue.find_serverless_model(catalogue.find_model(name))
    assert found is not None
    assert (found.hub, len(found.techniques), found.full) == (hub, techniques, full)


def test_a_model_that_the_hub_lacks_is_none() -> None:
    assert catalogue.find_serverless_model(catalogue.find_model("smollm2-135m")) is None
    assert catalogue.find_serverless_model(catalogue.find_model("titan-text-express")) is None


def write_job(tmp_path: Path, model: str, **more: Any) -> Path:
    write_job_file(tmp_path, Path("smollm2-135m"))  # the data
    path = tmp_path / "cloudft.yaml"
    spec = {"name": "x", "base_model": model, "data": {"train": "train.jsonl"}, **more}
    path.write_text(yaml.safe_dump(spec))
    return path


def offers(tmp_path: Path, backend: str, model: str, **more: Any) -> list[Finding]:
    path = write_job(tmp_path, model, **more)
    try:
        job = load_job(path)
    except SpecError as refused:
        found = list(refused.findings)
    else:
        found = make_backend(backend, Home(tmp_path)).for_job(job).check(job)
    return [one for one in found if one.code == "ServerlessServes"]


@pytest.mark.parametrize(
    ("backend", "model", "more", "words"),
    [
        ("bedrock", "Qwen/Qwen3-0.6B", {}, "by SFT in us-east-1"),
        ("bedrock", "gpt-oss-20b", {}, "by SFT in us-east-1"),
        ("bedrock", "google/gemma-4-e4b-it", {}, "the tuned weights are yours, in S3"),
        ("sagemaker", "nova-lite", {}, "by SFT in us-east-1 or us-west-2"),
    ],
)
def test_check_names_it_where_it_is_the_better_road(
    tmp_path: Path, backend: str, model: str, more: dict[str, Any], words: str
) -> None:
    region = {backend: {"region": "us-east-1"}}
    [offer] = offers(tmp_path, backend, model, **region, **more)
    assert words in offer.message and offer.severity == "warning"
    assert "at prices that no source here has" in offer.message  # unknown is said
    assert "sagemaker.serverless" in str(offer.fix)


@pytest.mark.parametrize("model", ["nova-lite", "titan-text-express", "smollm2-135m"])
def test_check_is_silent_where_bedrock_does_it_or_the_hub_lacks_it(
    tmp_path: Path, model: str
) -> None:
    assert offers(tmp_path, "bedrock", model, bedrock={"region": "us-east-1"}) == []


@pytest.mark.parametrize(
    ("technique", "words"),
    [
        ("DPO", "use DPOTrainer"),
        ("RLVR", "write REINFORCEMENT_FINE_TUNING"),
        ("SFT", "FINE_TUNING"),
    ],
)
def test_a_technique_as_a_type_is_led_to_what_trains_it(
    tmp_path: Path, technique: str, words: str
) -> None:
    path = write_job(tmp_path, "nova-lite", customization_type=technique)
    with pytest.raises(SpecError) as refused:
        load_job(path)
    [finding] = [one for one in refused.value.findings if one.field == "customization_type"]
    assert words in str(finding.fix) and serverless.SERVICE in finding.message


def test_who_wants_weights_of_a_bedrock_model_is_led_to_it() -> None:
    route = catalogue.owned_weights_route("llama-3.1-8b")
    assert "meta-llama/Llama-3.1-8B-Instruct" in route and "sagemaker.serverless" in route
    assert catalogue.owned_weights_route("nova-lite") == ""  # AWS keeps Nova's weights
    assert catalogue.owned_weights_route("smollm2-135m") == ""
