"""Inference with the endpoint's models: each body format, whole, streamed, and in batches."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import BUCKET, ROLE, Endpoint, running_endpoint
from processes import wait_until

TITAN, NOVA = "amazon.titan-text-express-v1", "amazon.nova-lite-v1:0"
LLAMA, CLAUDE = "us.meta.llama3-1-8b-instruct-v1:0", "anthropic.claude-3-haiku-20240307-v1:0"
QUESTION = "Where is the parcel for Oslo?"
CHAT = [{"role": "user", "content": [{"text": QUESTION}]}]
BODIES: dict[str, dict[str, Any]] = {
    TITAN: {"inputText": QUESTION, "textGenerationConfig": {"maxTokenCount": 5}},
    NOVA: {"messages": CHAT, "inferenceConfig": {"maxTokens": 5}},
    LLAMA: {"prompt": QUESTION, "max_gen_len": 5},
    CLAUDE: {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": QUESTION}],
    },
}


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--stand-in", tiny_model) as made:
        yield made


def answer_text(model_id: str, answer: dict[str, Any]) -> tuple[str, int]:
    """Return text and token count of a response body."""
    if model_id == TITAN:
        [result] = answer["results"]
        return result["outputText"], result["tokenCount"]
    if model_id == NOVA:
        return answer["output"]["message"]["content"][0]["text"], answer["usage"]["outputTokens"]
    if model_id == LLAMA:
        return answer["generation"], answer["generation_token_count"]
    return answer["content"][0]["text"], answer["usage"]["output_tokens"]


def chunk_text(model_id: str, chunk: dict[str, Any]) -> str:
    """Return the text of one chunk of a stream."""
    if model_id == TITAN:
        return str(chunk["outputText"])
    if model_id == NOVA:
        return str(chunk.get("contentBlockDelta", {}).get("delta", {}).get("text", ""))
    if model_id == LLAMA:
        return str(chunk["generation"])
    return str(chunk.get("delta", {}).get("text", ""))


@pytest.mark.parametrize("model_id", BODIES)
def test_each_family_has_its_own_body_format_whole_and_streamed(
    endpoint: Endpoint, model_id: str
) -> None:
    runtime = endpoint.client("bedrock-runtime")
    body = json.dumps(BODIES[model_id])
    text, tokens = answer_text(
        model_id, json.load(runtime.invoke_model(modelId=model_id, body=body)["body"])
    )
    assert text and 1 <= tokens <= 5
    stream = runtime.invoke_model_with_response_stream(modelId=model_id, body=body)["body"]
    chunks = [chunk_text(model_id, json.loads(event["chunk"]["bytes"])) for event in stream]
    assert "".join(chunks) == text


def test_converse_whole_streamed_and_counted(endpoint: Endpoint) -> None:
    runtime = endpoint.client("bedrock-runtime")
    request = {"modelId": NOVA, "messages": CHAT, "system": [{"text": "Answer with one word."}]}
    limits = {"inferenceConfig": {"maxTokens": 6}}
    whole = runtime.converse(**request, **limits)
    events = list(runtime.converse_stream(**request, **limits)["stream"])
    names = [next(iter(event)) for event in events]
    assert names[0] == "messageStart" and names[-2:] == ["messageStop", "metadata"]
    deltas = [e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e]
    assert "".join(deltas) == whole["output"]["message"]["content"][0]["text"]
    assert events[-1]["metadata"]["usage"] == whole["usage"]
    counted_input = {"converse": {name: request[name] for name in ("messages", "system")}}
    counted = runtime.count_tokens(modelId=NOVA, input=counted_input)["inputTokens"]
    assert counted == whole["usage"]["inputTokens"] > 5


def test_an_answer_ends_at_a_stop_sequence(endpoint: Endpoint) -> None:
    runtime = endpoint.client("bedrock-runtime")
    free = runtime.converse(modelId=NOVA, messages=CHAT, inferenceConfig={"maxTokens": 12})
    text = free["output"]["message"]["content"][0]["text"]
    stop = text[2:4]
    cut = runtime.converse(
        modelId=NOVA,
        messages=CHAT,
        inferenceConfig={"maxTokens": 12, "stopSequences": [stop]},
    )
    assert cut["stopReason"] == "stop_sequence"
    assert cut["output"]["message"]["content"][0]["text"] == text[: text.index(stop)]


@pytest.mark.parametrize(
    ("model_id", "body"),
    [
        (TITAN, "{"),
        (TITAN, "[]"),
        (TITAN, "{}"),
        (NOVA, '{"messages": 1}'),
        (LLAMA, '{"prompt": 1}'),
    ],
)
def test_a_malformed_body_is_refused(endpoint: Endpoint, model_id: str, body: str) -> None:
    with pytest.raises(ClientError, match="Malformed input request"):
        endpoint.client("bedrock-runtime").invoke_model(modelId=model_id, body=body)


def upload_model(endpoint: Endpoint, model: Path, prefix: str, *, without: str = "") -> None:
    for path in model.iterdir():
        if path.name != without:
            endpoint.client("s3").upload_file(str(path), BUCKET, f"{prefix}/{path.name}")


def import_model(endpoint: Endpoint, prefix: str) -> dict[str, Any]:
    bedrock = endpoint.client("bedrock")
    arn = bedrock.create_model_import_job(
        jobName=prefix,
        importedModelName=prefix,
        roleArn=ROLE,
        modelDataSource={"s3DataSource": {"s3Uri": f"s3://{BUCKET}/{prefix}/"}},
    )["jobArn"]

    def ended_job() -> Any:
        job = bedrock.get_model_import_job(jobIdentifier=arn)
        return job if job["status"] != "InProgress" else None

    return dict(wait_until(ended_job, "the import has ended"))


def test_a_merged_model_folder_is_imported_and_answers(
    endpoint: Endpoint, tiny_model: Path
) -> None:
    bedrock, runtime = endpoint.client("bedrock"), endpoint.client("bedrock-runtime")
    upload_model(endpoint, tiny_model, "merged")
    job = import_model(endpoint, "merged")
    assert job["status"] == "Completed", job
    arn = job["importedModelArn"]
    response = bedrock.get_imported_model(modelIdentifier="merged")
    assert response["modelArchitecture"] == "LlamaForCausalLM" and response["modelArn"] == arn
    assert [m["modelName"] for m in bedrock.list_imported_models()["modelSummaries"]] == ["merged"]
    body = json.dumps({"prompt": QUESTION, "max_gen_len": 4})
    answer = json.load(runtime.invoke_model(modelId=arn, body=body)["body"])
    assert answer["generation_token_count"] <= 4 and answer["generation"]
    bedrock.delete_imported_model(modelIdentifier=arn)
    with pytest.raises(ClientError):
        runtime.invoke_model(modelId=arn, body=body)


@pytest.mark.parametrize(
    ("missing", "word"),
    [("config.json", "config.json"), ("model.safetensors", "no weights")],
)
def test_an_incomplete_model_folder_is_not_imported(
    endpoint: Endpoint, tiny_model: Path, missing: str, word: str
) -> None:
    name = f"broken-{word[:2]}"
    upload_model(endpoint, tiny_model, name, without=missing)
    job = import_model(endpoint, name)
    assert job["status"] == "Failed" and word in job["failureMessage"]


def test_a_batch_answers_every_record_and_names_the_broken_ones(endpoint: Endpoint) -> None:
    bedrock, s3 = endpoint.client("bedrock"), endpoint.client("s3")
    records = [{"recordId": f"r{n}", "modelInput": BODIES[NOVA]} for n in range(3)]
    lines = [*map(json.dumps, records), json.dumps({"recordId": "bad", "modelInput": {}})]
    s3.upload_fileobj(io.BytesIO("\n".join(lines).encode()), BUCKET, "in/questions.jsonl")
    arn = bedrock.create_model_invocation_job(
        jobName="batch",
        roleArn=ROLE,
        modelId=NOVA,
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"s3://{BUCKET}/in/"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://{BUCKET}/answers/"}},
    )["jobArn"]

    def ended_job() -> Any:
        job = bedrock.get_model_invocation_job(jobIdentifier=arn)
        return job if job["status"] not in ("Submitted", "InProgress") else None

    job = wait_until(ended_job, "the batch has ended")
    assert job["status"] == "Completed", job
    assert (job["successRecordCount"], job["errorRecordCount"]) == (3, 1)
    key = f"answers/{arn[-12:]}/questions.jsonl.out"
    out = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().splitlines()
    response = {record["recordId"]: record for record in map(json.loads, out)}
    assert set(response) == {"r0", "r1", "r2", "bad"} and "error" in response["bad"]
    assert answer_text(NOVA, response["r1"]["modelOutput"])[0]


def test_a_client_token_creates_one_import_job(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    request: dict[str, Any] = {
        "jobName": "once",
        "importedModelName": "once",
        "roleArn": ROLE,
        "modelDataSource": {"s3DataSource": {"s3Uri": f"s3://{BUCKET}/nothing/"}},
        "clientRequestToken": "once",
    }
    first = bedrock.create_model_import_job(**request)["jobArn"]
    assert bedrock.create_model_import_job(**request)["jobArn"] == first
    with pytest.raises(ClientError, match=r"ValidationException.*job name is currently in use"):
        bedrock.create_model_import_job(**request | {"clientRequestToken": "other"})
    listed = bedrock.list_model_import_jobs(nameContains="once")["modelImportJobSummaries"]
    assert [job["jobArn"] for job in listed] == [first]


def test_a_copied_model_outlives_its_source(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    endpoint.client("s3").put_object(
        Bucket=BUCKET, Key="one.jsonl", Body=b'{"prompt": "a", "completion": "b"}\n'
    )
    bedrock.create_model_customization_job(
        jobName="source",
        customModelName="source",
        roleArn=ROLE,
        baseModelIdentifier=f"{TITAN}:0:8k",
        trainingDataConfig={"s3Uri": f"s3://{BUCKET}/one.jsonl"},
        outputDataConfig={"s3Uri": f"s3://{BUCKET}/out"},
    )

    def model_arn() -> Any:
        return bedrock.get_model_customization_job(jobIdentifier="source").get("outputModelArn")

    source = wait_until(model_arn, "the job has ended")
    copy = bedrock.create_model_copy_job(sourceModelArn=source, targetModelName="copy")["jobArn"]
    job = bedrock.get_model_copy_job(jobArn=copy)
    assert job["status"] == "Completed" and job["targetModelArn"] != source
    bedrock.delete_custom_model(modelIdentifier=source)
    assert bedrock.get_custom_model(modelIdentifier="copy")["modelArn"] == job["targetModelArn"]
    listed = bedrock.list_model_copy_jobs(sourceModelArnEquals=source)["modelCopyJobSummaries"]
    assert [summary["jobArn"] for summary in listed] == [copy]


@pytest.mark.parametrize("phase", ["validationDetails", "trainingDetails"])
def test_a_job_fails_at_the_phase_of_an_injected_fault(endpoint: Endpoint, phase: str) -> None:
    bedrock = endpoint.client("bedrock")
    endpoint.client("s3").put_object(
        Bucket=BUCKET, Key="one.jsonl", Body=b'{"prompt": "a", "completion": "b"}\n'
    )
    endpoint.fault({"operation": phase, "do": "fail", "message": "injected"})
    name = f"fails-{phase}"
    bedrock.create_model_customization_job(
        jobName=name,
        customModelName=name,
        roleArn=ROLE,
        baseModelIdentifier=f"{TITAN}:0:8k",
        trainingDataConfig={"s3Uri": f"s3://{BUCKET}/one.jsonl"},
        outputDataConfig={"s3Uri": f"s3://{BUCKET}/out"},
    )

    def ended_job() -> Any:
        job = bedrock.get_model_customization_job(jobIdentifier=name)
        return job if job["status"] != "InProgress" else None

    job = wait_until(ended_job, "the job has ended")
    assert (job["status"], job["failureMessage"]) == ("Failed", "injected")
    assert job["statusDetails"][phase]["status"] == "Failed"
    assert "outputModelArn" not in job


TASK = {"Type": "Task", "End": True}
CONVERSE = {
    "ModelId": NOVA,
    "Messages": [{"Role": "user", "Content": [{"Text": QUESTION}]}],
    "InferenceConfig": {"MaxTokens": 5, "Temperature": 0},
}
INVOKE = {"ModelId": TITAN, "ContentType": "application/json", "Body": BODIES[TITAN]}
INPUT = f"s3://{BUCKET}/body.json"


def run_machine(endpoint: Endpoint, resource: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the description of an execution that calls one service, when it has ended."""
    client = endpoint.client("stepfunctions")
    task = TASK | {"Resource": f"arn:aws:states:::{resource}", "Parameters": parameters}
    definition = json.dumps({"StartAt": "Only", "States": {"Only": task}})
    made = client.create_state_machine(name="calls", definition=definition, roleArn=ROLE)
    machine = {"stateMachineArn": made["stateMachineArn"]}
    started = client.start_execution(**machine)

    def ended() -> Any:
        execution = client.describe_execution(executionArn=started["executionArn"])
        return execution if execution["status"] != "RUNNING" else None

    try:
        return dict(wait_until(ended, "the execution has ended"))
    finally:
        client.delete_state_machine(**machine)


def test_state_machines_call_models(endpoint: Endpoint) -> None:
    """Bodies: Step Functions developer guide, "Invoke and customize Amazon Bedrock models"."""
    sdk = run_machine(endpoint, "aws-sdk:bedrockruntime:converse", CONVERSE)
    answer = json.loads(sdk["output"])
    text = answer["Output"]["Message"]["Content"][0]["Text"]
    assert text and answer["Usage"]["OutputTokens"] <= 5
    whole = json.loads(run_machine(endpoint, "bedrock:invokeModel", INVOKE)["output"])
    assert whole["ContentType"] == "application/json"
    written = json.loads(
        run_machine(endpoint, "aws-sdk:bedrockruntime:invokeModel", INVOKE)["output"]
    )
    # The SDK's integration has the body as text; the one for Bedrock parses it.
    assert json.loads(written["Body"]) == whole["Body"]
    assert answer_text(TITAN, whole["Body"])[0] == text
    body = json.dumps(BODIES[TITAN]).encode()
    endpoint.client("s3").put_object(Bucket=BUCKET, Key="body.json", Body=body)
    stored = {"ModelId": TITAN, "Input": {"S3Uri": INPUT}}
    assert json.loads(run_machine(endpoint, "bedrock:invokeModel", stored)["output"]) == whole
    listed = run_machine(endpoint, "aws-sdk:bedrock:listCustomModels", {"MaxResults": 1})
    assert "ModelSummaries" in json.loads(listed["output"])


@pytest.mark.parametrize(
    ("resource", "parameters", "error", "cause"),
    [
        # The prefixes are those of the developer guide's list of AWS SDK integrations.
        (
            "aws-sdk:bedrockruntime:converse",
            {**CONVERSE, "ModelId": "none"},
            "BedrockRuntime.",
            "",
        ),
        ("bedrock:invokeModel", {**INVOKE, "ModelId": "none"}, "Bedrock.", ""),
        ("bedrock:invokeModel", {"ModelId": TITAN}, "States.Runtime", "Body or Input"),
        (
            "bedrock:invokeModel",
            {**INVOKE, "Output": {"S3Uri": INPUT}},
            "States.Runtime",
            "does not offer Output",
        ),
        (
            "aws-sdk:bedrockruntime:converse",
            {**CONVERSE, "Messages": [{"role": "user"}]},
            "States.Runtime",
            'The field "role" is not supported by Step Functions',
        ),
    ],
)
def test_a_call_that_a_state_machine_makes_wrongly_fails_with_its_reason(
    endpoint: Endpoint, resource: str, parameters: dict[str, Any], error: str, cause: str
) -> None:
    execution = run_machine(endpoint, resource, parameters)
    assert execution["status"] == "FAILED" and execution["error"].startswith(error)
    assert cause in execution["cause"]
