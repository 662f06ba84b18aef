"""openai: Bedrock's fine-tuning API, and the objects that an imported model answers in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from conftest import MAX_TOKENS, NOVA, PROMPT, ROLE, ROOM, Expected, running_endpoint
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

MESSAGES = [{"role": "user", "content": PROMPT}]


GRADER = "arn:aws:lambda:us-west-2:000000000000:function:grader"
METHOD: Any = {
    "type": "reinforcement",
    "reinforcement": {
        "grader": {"type": "lambda", "lambda": {"function": GRADER}},
        "hyperparameters": {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 1.0},
    },
}


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


@pytest.fixture(scope="module")
def training(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> Iterator[openai.OpenAI]:
    """The client of an endpoint that trains by a clock: 4 seconds a job."""
    folder = tmp_path_factory.mktemp("training")
    with running_endpoint(folder, model_folder, "--clock", "fast", "--seconds", "4") as found:
        yield openai.OpenAI(base_url=f"{found}/v1", api_key="any", max_retries=0)


def test_fine_tuning_jobs_are_created_followed_and_cancelled(
    training: openai.OpenAI, tmp_path: Path
) -> None:
    client = training
    path = tmp_path / "train.jsonl"
    record = {"messages": [{"role": "user", "content": "1 + 1?"}], "reference_answer": "2"}
    path.write_text(f"{json.dumps(record)}\n" * 100, encoding="utf-8")
    file = client.files.create(file=path, purpose="fine-tune")
    assert (file.filename, file.bytes) == (path.name, path.stat().st_size)
    assert [one.id for one in client.files.list()] == [file.id]
    trained, cancelled = (
        client.fine_tuning.jobs.create(
            model="openai.gpt-oss-20b", training_file=file.id, method=METHOD
        )
        for _ in range(2)
    )
    newest = [job.id for job in client.fine_tuning.jobs.list(limit=1)]
    assert newest == [cancelled.id, trained.id]
    assert client.fine_tuning.jobs.cancel(cancelled.id).id == cancelled.id
    ended = [wait_for_end(client, job.id) for job in (trained, cancelled)]
    assert [job.status for job in ended] == ["succeeded", "cancelled"]
    [tuned, none] = [job.fine_tuned_model for job in ended]
    assert none is None and ended[0].method.reinforcement.hyperparameters.batch_size == 4
    assert tuned in {model.id for model in client.models.list()}
    events = list(client.fine_tuning.jobs.list_events(trained.id, limit=30))
    assert events[-1].message == f"Created fine-tuning job: {trained.id}"
    assert [e.data["step"] for e in events if e.type == "metrics"] == list(range(99, -1, -1))
    [checkpoint] = client.fine_tuning.jobs.checkpoints.list(trained.id)
    assert checkpoint.step_number == 99 and checkpoint.fine_tuned_model_checkpoint == tuned
    client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError, match="No such File"):
        client.files.retrieve(file.id)


def wait_for_end(client: openai.OpenAI, job_id: str) -> Any:
    while (job := client.fine_tuning.jobs.retrieve(job_id)).finished_at is None:
        time.sleep(0.2)
    return job


def test_a_base_model_chats_whole_and_streamed(client: openai.OpenAI) -> None:
    assert {"openai.gpt-oss-20b", "qwen.qwen3-32b"} <= {one.id for one in client.models.list()}
    ask = {"model": "openai.gpt-oss-20b", "messages": MESSAGES, "max_completion_tokens": 5}
    whole = client.chat.completions.create(**ask)
    chunks = list(client.chat.completions.create(**ask, stream=True))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert whole.choices[0].message.content == "".join(pieces) != ""
    assert whole.usage is not None and whole.usage.completion_tokens == 5


def test_what_the_api_lacks_is_refused_in_its_words(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="has no operation at /v1/responses"):
        client.responses.create(model="any", input=PROMPT)
    with pytest.raises(openai.BadRequestError, match="Unknown member suffix"):
        client.fine_tuning.jobs.create(
            model="openai.gpt-oss-20b", training_file="file-any", method=METHOD, suffix="mine"
        )
    # bedrock-runtime has no operation but one.
    elsewhere = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="any", max_retries=0)
    with pytest.raises(openai.PermissionDeniedError, match="There is no operation of bedrock"):
        elsewhere.models.list()


@pytest.fixture
def runtime_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/openai/v1", api_key="any", max_retries=0)


def test_bedrock_runtime_chats_as_converse_does(
    runtime_client: openai.OpenAI, expected: Expected
) -> None:
    ask = {"model": NOVA, "messages": MESSAGES, "max_tokens": MAX_TOKENS}
    whole = runtime_client.chat.completions.create(**ask)
    assert whole.choices[0].message.content == expected.text and whole._request_id
    chunks = list(
        runtime_client.chat.completions.create(
            **ask, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == expected.text and len(pieces) > 3
    assert chunks[-1].usage == whole.usage and chunks[-1].choices == []
    assert whole.usage.prompt_tokens == expected.input_tokens
    with pytest.raises(openai.BadRequestError, match="provided model identifier is invalid"):
        runtime_client.chat.completions.create(**ask | {"model": "none"})


def test_a_stream_that_breaks_is_an_error(
    runtime_client: openai.OpenAI, break_streams: Any
) -> None:
    break_streams("CreateInference")
    with pytest.raises(openai.APIError, match="It broke"):
        list(runtime_client.chat.completions.create(model=NOVA, messages=MESSAGES, stream=True))


class Paint(BaseModel):
    """A paint."""

    color: Literal["red", "green"]
    is_dark: bool


def test_tools_and_schemas_are_kept_whole_and_streamed(tools_url: str) -> None:
    client = openai.OpenAI(base_url=f"{tools_url}/openai/v1", api_key="any", max_retries=0)
    ask = {"model": NOVA, "messages": MESSAGES, "max_tokens": ROOM}
    parsed = client.chat.completions.parse(**ask, response_format=Paint)
    assert isinstance(parsed.choices[0].message.parsed, Paint)
    tools = [openai.pydantic_function_tool(Paint)]
    called = client.chat.completions.parse(**ask, tools=tools, tool_choice="required")
    [call] = called.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Paint)
    assert called.choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(**ask, tools=tools, tool_choice="required") as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls[0].function.parsed_arguments == call.function.parsed_arguments


def test_an_imported_model_answers_in_openai_s_objects(boto: Any, model_folder: Path) -> None:
    arn = import_model(boto, model_folder)
    runtime = boto("bedrock-runtime")

    def invoke(operation: str, **body: Any) -> Any:
        return getattr(runtime, operation)(modelId=arn, body=json.dumps({**body, "max_tokens": 5}))

    whole = ChatCompletion.model_validate_json(
        invoke("invoke_model", messages=MESSAGES)["body"].read(), strict=True
    )
    stream = invoke("invoke_model_with_response_stream", messages=MESSAGES)["body"]
    chunks = [ChatCompletionChunk.model_validate_json(e["chunk"]["bytes"]) for e in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert whole.choices[0].message.content == "".join(pieces) != ""
    assert whole.usage is not None and whole.usage.completion_tokens == 5
    text = Completion.model_validate_json(invoke("invoke_model", prompt=PROMPT)["body"].read())
    assert text.choices[0].text


def import_model(boto: Any, folder: Path) -> str:
    s3, bedrock = boto("s3"), boto("bedrock")
    s3.create_bucket(Bucket="weights")
    for path in folder.iterdir():
        s3.upload_file(str(path), "weights", f"model/{path.name}")
    source = {"s3DataSource": {"s3Uri": "s3://weights/model/"}}
    bedrock.create_model_import_job(
        jobName="import", importedModelName="import", roleArn=ROLE, modelDataSource=source
    )
    while (job := bedrock.get_model_import_job(jobIdentifier="import"))["status"] == "InProgress":
        time.sleep(0.2)
    assert job["status"] == "Completed", job
    return str(job["importedModelArn"])
