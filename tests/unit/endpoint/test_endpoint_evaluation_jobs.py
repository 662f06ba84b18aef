"""Evaluation jobs of the endpoint: judged and computed scores, refusals, states, restarts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import endpoint as endpoint_module
import pytest
from botocore.exceptions import ClientError
from endpoint import BUCKET, ROLE, Endpoint, running_endpoint
from processes import wait_until

from cloudft.catalogue import evaluation_metrics as facts
from cloudft.endpoint.bedrock import evaluation_scores as scores

JUDGE = "amazon.nova-pro-v1:0"
NOVA = "amazon.nova-lite-v1:0"
SOURCE = "tuned"


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--stand-in", tiny_model) as made:
        yield made


def dataset(endpoint: Endpoint, name: str, lines: list[Any]) -> str:
    key = f"in/{name}.jsonl"
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    endpoint.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body.encode())
    return f"s3://{BUCKET}/{key}"


def answered(prompt: str, response: str, source: str = SOURCE) -> dict[str, Any]:
    given = {"response": response, "modelIdentifier": source}
    return {"prompt": prompt, "referenceResponse": "Oslo", "modelResponses": [given]}


def request_of(name: str, uri: str, *, metrics: tuple[str, ...] = ("Correctness",)) -> Any:
    """Return the request of a job in which a judge rates given answers."""
    config = {
        "taskType": "General",
        "dataset": {"name": "held-out", "datasetLocation": {"s3Uri": uri}},
        "metricNames": [f"Builtin.{metric}" for metric in metrics],
    }
    judges = {"bedrockEvaluatorModels": [{"modelIdentifier": JUDGE}]}
    return {
        "jobName": name,
        "roleArn": ROLE,
        "evaluationConfig": {
            "automated": {"datasetMetricConfigs": [config], "evaluatorModelConfig": judges}
        },
        "inferenceConfig": {
            "models": [{"precomputedInferenceSource": {"inferenceSourceIdentifier": SOURCE}}]
        },
        "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/scores/"},
    }


def computed_request(name: str, uri: str, task: str, *metrics: str) -> Any:
    """Return the request of a job that invokes a model itself, without a judge."""
    request = request_of(name, uri, metrics=metrics)
    automated = request["evaluationConfig"]["automated"]
    del automated["evaluatorModelConfig"]
    automated["datasetMetricConfigs"][0]["taskType"] = task
    parameters = json.dumps({"inferenceConfig": {"maxTokens": 4}})
    model = {"modelIdentifier": NOVA, "inferenceParams": parameters}
    request["inferenceConfig"] = {"models": [{"bedrockModel": model}]}
    return request


def run(endpoint: Endpoint, request: Any) -> dict[str, Any]:
    """Create a job and return it when it has ended."""
    bedrock = endpoint.client("bedrock")
    arn = bedrock.create_evaluation_job(**request)["jobArn"]

    def ended() -> Any:
        job = bedrock.get_evaluation_job(jobIdentifier=arn)
        return job if job["status"] not in ("InProgress", "Stopping") else None

    job: dict[str, Any] = wait_until(ended, "the evaluation job has ended")
    return job


def results(endpoint: Endpoint, job: dict[str, Any]) -> list[dict[str, Any]]:
    keys = [k for k in endpoint.object_keys() if job["jobArn"][-12:] in k]
    [key] = [k for k in keys if k.endswith("_output.jsonl")]
    assert f"scores/{job['jobName']}/{job['jobArn'][-12:]}/models/" in f"{key}"
    body = endpoint.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return [json.loads(line) for line in body.splitlines()]


def test_a_judge_rates_given_answers_and_explains_each_rating(endpoint: Endpoint) -> None:
    uri = dataset(endpoint, "judged", [answered("Where?", "Oslo"), answered("Where?", "Rome")])
    metrics = ("Correctness", "Helpfulness", "FollowingInstructions")
    job = run(endpoint, request_of("judged", uri, metrics=metrics))
    assert job["status"] == "Completed", job
    lines = results(endpoint, job)
    assert [line["modelResponses"][0]["response"] for line in lines] == ["Oslo", "Rome"]
    assert lines[0]["inputRecord"] == {"prompt": "Where?", "referenceResponse": "Oslo"}
    for line in lines:
        rated = line["automatedEvaluationResult"]["scores"]
        assert [one["metricName"] for one in rated] == [f"Builtin.{name}" for name in metrics]
        for one, name in zip(rated, metrics, strict=True):
            steps = len(facts.JUDGE_METRICS[name].scale) - 1
            assert one["result"] is None or round(one["result"] * steps, 9) in range(steps + 1)
            [details] = one["evaluatorDetails"]
            assert details["modelIdentifier"] == JUDGE and details["explanation"]
    assert "scores/judged/amazon-bedrock-evaluations-permission-check" in endpoint.object_keys()


def test_computed_metrics_ask_the_model_themselves(endpoint: Endpoint) -> None:
    uri = dataset(endpoint, "computed", [{"prompt": "Where to?", "referenceResponse": "x"}] * 2)
    metrics = ("Accuracy", "Robustness")
    job = run(endpoint, computed_request("computed", uri, "Generation", *metrics))
    assert job["status"] == "Completed", job
    for line in results(endpoint, job):
        [response] = line["modelResponses"]
        assert response["modelIdentifier"] == NOVA and response["response"]
        by_name = {
            one["metricName"]: one["result"] for one in line["automatedEvaluationResult"]["scores"]
        }
        contains = float("x" in response["response"].lower())
        assert by_name["Accuracy"] == contains and by_name["Robustness"] >= 0


@pytest.mark.parametrize(
    ("task", "response", "reference", "expected"),
    [
        ("Generation", "It is in Oslo.", "oslo<OR>Bergen", 1.0),
        ("Generation", "It is in Rome.", "oslo<OR>Bergen", 0.0),
        ("QuestionAndAnswer", "the city of Oslo", "Oslo", 0.5),
        ("Summarization", "", "Oslo", 0.0),
        ("Classification", "Billing.", "billing", 1.0),
        ("Classification", "Billing or shipping", "billing", 0.0),
    ],
)
def test_accuracy_is_that_of_the_task_type(
    task: str, response: str, reference: str, expected: float
) -> None:
    assert scores.accuracy(task, response, reference) == pytest.approx(expected)


def test_perturbations_are_the_same_ones_each_time_and_word_errors_are_edits() -> None:
    prompt = "Send 2 parcels to Oslo"
    variants = scores.perturb(prompt)
    assert variants == scores.perturb(prompt) and len(variants) == scores.PERTURBATIONS
    assert variants[0] == prompt.lower() and " two " in variants[2]
    assert scores.word_error_rate("a b c", "a b c") == 0
    assert scores.word_error_rate("a c", "a b c") == pytest.approx(1 / 3)
    assert scores.word_error_rate("x y z w", "a b") == 2
    same = scores.robustness("QuestionAndAnswer", prompt, "Oslo", "Oslo", lambda text: "Oslo")
    half = scores.robustness("QuestionAndAnswer", prompt, "Oslo", "Oslo", lambda text: "a b Oslo")
    assert same == 0 and half == pytest.approx(100 / 3)
    assert scores.robustness("Classification", prompt, "Rome", "Oslo", lambda text: "") is None


def changed(request: Any, path: str, value: object) -> Any:
    """Return the request with another value at a path of its automated configuration."""
    copy = json.loads(json.dumps(request))
    *parents, last = path.split(".")
    place = copy
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value
    return copy


CONFIG = "evaluationConfig.automated.datasetMetricConfigs.0"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (f"{CONFIG}.metricNames", ["Builtin.Accuracy"], "Builtin.Accuracy is not supported"),
        (f"{CONFIG}.metricNames", ["Correctness"], "Correctness is not supported"),
        (f"{CONFIG}.taskType", "Generation", "task type Generation"),
        (f"{CONFIG}.taskType", "Anything", "enum value set"),
        (f"{CONFIG}.dataset", {"name": "Builtin.Bold"}, "datasetLocation"),
        (
            "evaluationConfig.automated.evaluatorModelConfig",
            {"bedrockEvaluatorModels": [{"modelIdentifier": NOVA}]},
            "not supported as an evaluator",
        ),
        (
            "inferenceConfig.models",
            [{"precomputedInferenceSource": {"inferenceSourceIdentifier": n}} for n in "ab"],
            "evaluates one model",
        ),
        (
            "inferenceConfig.models",
            [
                {
                    "bedrockModel": {
                        "modelIdentifier": "arn:aws:bedrock:us-east-1:000000000000:"
                        "custom-model-deployment/aaaaaaaaaaaa"
                    }
                }
            ],
            "regular expression",
        ),
        ("jobName", "Upper", "regular expression"),
    ],
)
def test_what_can_not_be_evaluated_is_refused(
    endpoint: Endpoint, path: str, value: object, words: str
) -> None:
    request = changed(request_of("refused", f"s3://{BUCKET}/in/x.jsonl"), path, value)
    with pytest.raises(ClientError, match=f"ValidationException.*{words}"):
        endpoint.client("bedrock").create_evaluation_job(**request)


def test_toxicity_and_computed_scores_of_given_answers_are_refused(endpoint: Endpoint) -> None:
    bedrock, uri = endpoint.client("bedrock"), f"s3://{BUCKET}/in/x.jsonl"
    with pytest.raises(ClientError, match="detoxify"):
        bedrock.create_evaluation_job(**computed_request("toxic", uri, "Generation", "Toxicity"))
    request = computed_request("given", uri, "Generation", "Accuracy")
    given = request_of("given", uri)["inferenceConfig"]
    with pytest.raises(ClientError, match="evaluated by a judge"):
        bedrock.create_evaluation_job(**{**request, "inferenceConfig": given})


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("other", [answered("Where?", "Oslo", "other")], "Line 1.*other than tuned"),
        ("none", [{"prompt": "Where?"}], "Line 1.*one element in modelResponses"),
        ("prompt", [answered("ok", "ok"), {"referenceResponse": "x"}], "Line 2.*no prompt"),
        ("json", ["{"], "."),
        ("empty", [""], "0 prompts"),
        ("many", [answered("q", "a")] * 1001, "1001 prompts"),
    ],
)
def test_a_damaged_dataset_fails_the_job_with_its_line(
    endpoint: Endpoint, name: str, lines: list[Any], words: str
) -> None:
    job = run(endpoint, request_of(f"bad-{name}", dataset(endpoint, f"bad-{name}", lines)))
    assert job["status"] == "Failed"
    [message] = job["failureMessages"]
    assert re.search(words, message), message


def test_a_token_creates_one_job_which_is_listed_and_deleted(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    uri = dataset(endpoint, "once", [answered("Where?", "Oslo")])
    request = {**request_of("once", uri), "clientRequestToken": "once"}
    job = run(endpoint, request)
    assert bedrock.create_evaluation_job(**request)["jobArn"] == job["jobArn"]
    with pytest.raises(ClientError, match="job name is currently in use"):
        bedrock.create_evaluation_job(**request | {"clientRequestToken": "other"})
    [listed] = bedrock.list_evaluation_jobs(nameContains="once")["jobSummaries"]
    assert listed["evaluatorModelIdentifiers"] == [JUDGE] and listed["status"] == "Completed"
    found = listed["inferenceConfigSummary"]["modelConfigSummary"]
    assert found["precomputedInferenceSourceIdentifiers"] == [SOURCE]
    with pytest.raises(ClientError, match="ConflictException"):
        bedrock.stop_evaluation_job(jobIdentifier=job["jobArn"])
    gone = job["jobArn"][:-12] + "a" * 12
    answer = bedrock.batch_delete_evaluation_job(jobIdentifiers=[job["jobArn"], gone])
    assert [one["jobStatus"] for one in answer["evaluationJobs"]] == ["Deleting"]
    assert [one["code"] for one in answer["errors"]] == ["ResourceNotFoundException"]
    assert bedrock.list_evaluation_jobs(nameContains="once")["jobSummaries"] == []


def test_a_job_is_stopped_and_an_interrupted_one_continues_after_a_restart(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--clock", "fast", "--stand-in", tiny_model, "--state", tmp_path / "state")
    with running_endpoint(*options) as first:
        bedrock = first.client("bedrock")
        uri = dataset(first, "long", [answered(f"Where? {n}", "Oslo") for n in range(300)])
        stopped = bedrock.create_evaluation_job(**request_of("stopped", uri))["jobArn"]
        bedrock.stop_evaluation_job(jobIdentifier=stopped)

        def ended() -> Any:
            status = bedrock.get_evaluation_job(jobIdentifier=stopped)["status"]
            return status if status != "Stopping" else None

        assert wait_until(ended, "the job has stopped") == "Stopped"
        short = dataset(first, "short", [answered(f"Where? {n}", "Oslo") for n in range(20)])
        running = bedrock.create_evaluation_job(**request_of("running", short))["jobArn"]
        assert bedrock.get_evaluation_job(jobIdentifier=running)["status"] == "InProgress"
    # Bucket and role are in the state.
    monkeypatch.setattr(endpoint_module, "create_bucket_and_roles", lambda made: None)
    with running_endpoint(*options) as second:

        def completed() -> Any:
            job = second.client("bedrock").get_evaluation_job(jobIdentifier=running)
            return job if job["status"] != "InProgress" else None

        job = wait_until(completed, "the job has ended after the restart")
        assert job["status"] == "Completed" and len(results(second, job)) == 20
