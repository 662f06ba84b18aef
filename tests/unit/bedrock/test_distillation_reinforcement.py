"""Prompts for a teacher or a grader, and their jobs on Bedrock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from endpoint import running_endpoint
from job_files import write_job_file
from processes import Cli

from cloudft import catalogue
from cloudft.aws.request_validation import validate_request
from cloudft.backends.aws_base.request_checks import field_for_member
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock import customizations, request
from cloudft.backends.findings import FindingFactory
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record
from cloudft.spec.load import load_job

ROLE = "arn:aws:iam::000000000000:role/bedrock"
SECTION = {"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://some-bucket/team"}
TEACHER = {"teacher": "amazon.nova-pro-v1:0", "max_response_length": 1000}
LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:grader"
GRADER = {"lambda_arn": LAMBDA, "hyperparameters": {"epochCount": 2, "reasoningEffort": "high"}}
USER = {"role": "user", "content": "How much is 2 and 2?"}


def encoded(value: dict[str, Any], target: str) -> Any:
    return json.loads(encode_record(parse_record(value, {}, target), target)[0])


@pytest.mark.parametrize(
    ("value", "last"),
    [
        ({"prompt": "Hi?"}, "user"),
        ({"prompt": "Hi?", "completion": "Ho!"}, "assistant"),
        ({"messages": [USER]}, "user"),
        ({"messages": [USER, {"role": "assistant", "content": "4"}]}, "assistant"),
    ],
)
def test_distillation_takes_questions_and_golden_answers(value: dict[str, Any], last: str) -> None:
    written = encoded(value, "distillation")
    assert written["schemaVersion"] == "bedrock-conversation-2024"
    assert written["messages"][-1]["role"] == last


def test_reinforcement_keeps_the_key_and_all_that_the_grader_gets() -> None:
    value = {"messages": [USER], "reference_answer": {"number": 4}, "task_id": "sum"}
    assert encoded(value, "reinforcement") == value
    # The grader may use any other field, or none; an empty reference is none.
    for reference in (None, "", {}):
        value = {"messages": [USER], "rubric": "short"}
        assert encoded({**value, "reference_answer": reference}, "reinforcement") == value
    labeled = encoded({"prompt": "2 and 2?", "completion": "4"}, "reinforcement")
    prompt = {"role": "user", "content": "2 and 2?"}
    assert labeled == {"messages": [prompt], "reference_answer": "4"}


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [USER, {"role": "assistant", "content": "4"}], "reference_answer": "4"},
        {"prompt": "2 and 2?"},
    ],
)
def test_a_question_that_cannot_be_graded_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(BadRecord):
        encoded(value, "reinforcement")


def test_a_question_without_an_answer_is_no_record_for_fine_tuning() -> None:
    for value in ({"prompt": "Hi?"}, {"messages": [USER]}):
        with pytest.raises(BadRecord):
            encoded(value, "converse")


def job(folder: Path, model: str, **more: Any) -> Any:
    options = {"bedrock": SECTION, "hyperparameters": {}, "records": 120} | more
    path = write_job_file(folder, Path(model), **options)
    text = path.read_text()
    for setting in ("batchSize: 4", "learningRate: 0.01", "learningRateWarmupSteps: 0"):
        text = text.replace(setting, "")
    path.write_text(
        text.replace("  epochCount: 2\n", "", 1) if "hyperparameters:" in text else text
    )
    return load_job(path)


@pytest.mark.parametrize(
    ("kind", "section", "model"),
    [
        ("DISTILLATION", {"distillation": TEACHER}, "nova-micro"),
        ("REINFORCEMENT_FINE_TUNING", {"reinforcement": GRADER}, "nova-2-lite"),
    ],
)
def test_the_request_fits_and_the_section_must_be_there(
    tmp_path: Path, kind: str, section: dict[str, Any], model: str
) -> None:
    loaded = job(tmp_path, model, customization_type=kind, **section)
    parameters = request.create_request(with_placeholder_data(loaded))
    assert validate_request("bedrock", "CreateModelCustomizationJob", parameters) == []
    assert ("hyperParameters" in parameters) == (kind == "DISTILLATION")
    assert list(customizations.check_customization(loaded, FindingFactory(loaded))) == []
    [missing] = customizations.check_customization(
        bare := job(tmp_path, model, customization_type=kind), FindingFactory(bare)
    )
    assert missing.code == "MissingValue" and missing.field in section
    [unused] = customizations.check_customization(
        plain := job(tmp_path, model, **section), FindingFactory(plain)
    )
    assert unused.code == "UnusedValue"


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("trainingSamplePerPrompt", 1, ".trainingSamplePerPrompt"),
        ("batchSize", 16.5, ".batchSize"),
        ("groupSize", 4, ""),
    ],
)
def test_a_wrong_hyperparameter_is_found_where_it_is_written(
    tmp_path: Path, name: str, value: float, place: str
) -> None:
    section = {**GRADER, "hyperparameters": {name: value}}
    loaded = job(
        tmp_path,
        "nova-2-lite",
        customization_type="REINFORCEMENT_FINE_TUNING",
        reinforcement=section,
    )
    parameters = request.create_request(with_placeholder_data(loaded))
    [problem] = validate_request("bedrock", "CreateModelCustomizationJob", parameters)
    field = field_for_member(problem, customizations.request_fields(), "bedrock.request")
    assert field == f"reinforcement.hyperparameters{place}" and name in problem


def test_a_custom_model_is_known_by_the_model_it_was_made_from() -> None:
    base = "amazon.nova-micro-v1:0:128k"
    arn = f"arn:aws:bedrock:us-east-1:123456789012:custom-model/{base}/abcdefghijkl"
    assert catalogue.find_model(arn).alias == "nova-micro"


def test_a_custom_model_is_trained_further(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_endpoint("--clock", "fast") as endpoint:
        for name, value in endpoint.environ.items():
            monkeypatch.setenv(name, value)
        words = ("submit", "--backend", "bedrock", "--wait", "--output", "json")
        first = job(tmp_path / "one", "nova-micro", bedrock=endpoint.bedrock_section)
        done = cli(*words, first.path)
        assert done.returncode == 0, done.stderr
        model = json.loads(done.stdout)["summary"]["customModel"]
        second = job(
            tmp_path / "two", "nova-micro", name="further", bedrock=endpoint.bedrock_section
        )
        text = second.path.read_text().replace("base_model: nova-micro", f"base_model: {model}")
        second.path.write_text(text)
        done = cli(*words, second.path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "Completed"
        [_, parameters] = endpoint.calls("CreateModelCustomizationJob")
        assert parameters["baseModelIdentifier"] == model
