"""openai: the endpoint has no path of OpenAI's API; an imported model answers in its objects."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import PROMPT, ROLE
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.mark.parametrize("base", ["/openai/v1", "/v1"])
def test_the_api_itself_is_refused(url: str, base: str) -> None:
    client = openai.OpenAI(base_url=url + base, api_key="any", max_retries=0)
    calls = {
        "chat/completions": lambda: client.chat.completions.create(model="any", messages=MESSAGES),
        "responses": lambda: client.responses.create(model="any", input=PROMPT),
        "models": lambda: client.models.list(),
    }
    for path, call in calls.items():
        with pytest.raises(openai.PermissionDeniedError) as caught:
            call()
        words = f"There is no operation of bedrock or bedrock-runtime at {base}/{path}; "
        assert words in str(caught.value)


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
