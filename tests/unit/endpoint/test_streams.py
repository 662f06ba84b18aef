"""Streams are sent while their answer is made, and end with their caller.

The endpoint runs in this process, so that its engine can be looked into; the server, the engine and
the connections are real. Its model can't end an answer by itself.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import talking_jobs
from botocore.exceptions import ClientError, EventStreamError
from endpoint import TOKEN, Endpoint
from processes import wait_until
from werkzeug.serving import make_server

from cloudft.endpoint.build import build_endpoint
from cloudft.endpoint.options import EndpointOptions
from cloudft.endpoint.server import open_listening_socket, request_handler_class
from cloudft.serving.engine import Engine

NOVA, CLAUDE = "amazon.nova-lite-v1:0", "anthropic.claude-3-haiku-20240307-v1:0"
LLAMA = "us.meta.llama3-1-8b-instruct-v1:0"
LONG = 3500
"""Tokens of an answer that takes seconds; the model's context has room for them."""
CHAT: list[Any] = [{"role": "user", "content": [{"text": "Where is the parcel for Oslo?"}]}]
MESSAGES: list[Any] = [{"role": "user", "content": "Where is the parcel for Oslo?"}]


@dataclass(frozen=True)
class Served:
    """A running endpoint, and the engine that answers."""

    endpoint: Endpoint
    engine: Engine

    def wait_until_idle(self) -> None:
        wait_until(lambda: self.engine.stats().running == 0, "no request runs")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("streams")
    model = talking_jobs.build_endless_model(folder / "model")
    options = EndpointOptions(stand_in=str(model), fast=True, token=TOKEN)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv(
            "CLOUDFT_MODEL_CACHE", str(folder / "cache")
        )
        listener = stack.enter_context(open_listening_socket("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        made = build_endpoint(options, url, folder / "endpoint", print)
        stack.callback(made.close)
        server = make_server(
            "127.0.0.1",
            0,
            made.app,
            threaded=True,
            request_handler=request_handler_class(),
            fd=listener.fileno(),
        )
        server.passthrough_errors = True
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.warm_up(print)
        [engine] = made.inference.engines.kept
        yield Served(Endpoint(url), engine)


@pytest.fixture
def runtime(served: Served) -> Any:
    return served.endpoint.client("bedrock-runtime")


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    base = f"{served.endpoint.url}/openai/v1"
    with openai.OpenAI(base_url=base, api_key="any", max_retries=0) as made:
        yield made


def open_stream(runtime: Any, client: openai.OpenAI, kind: str, tokens: int) -> tuple[Any, Any]:
    """Return the events of a stream, and what closes its connection."""
    if kind == "converse":
        config = {"maxTokens": tokens}
        stream = runtime.converse_stream(modelId=NOVA, messages=CHAT, inferenceConfig=config)
        return iter(stream["stream"]), stream["stream"].close
    if kind == "openai":
        chunks = client.chat.completions.create(
            model=NOVA, messages=MESSAGES, max_tokens=tokens, stream=True
        )
        return iter(chunks), chunks.close
    bodies: dict[str, Any] = {
        CLAUDE: {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": tokens,
            "messages": MESSAGES,
        },
        LLAMA: {"prompt": "Where is it?", "max_gen_len": tokens},
    }
    body = json.dumps(bodies[kind])
    stream = runtime.invoke_model_with_response_stream(modelId=kind, body=body)
    return iter(stream["body"]), stream["body"].close


@pytest.mark.parametrize("kind", sorted(["converse", "openai", CLAUDE, LLAMA]))
def test_events_come_while_the_answer_is_made_and_leaving_ends_it(
    served: Served, runtime: Any, client: openai.OpenAI, kind: str
) -> None:
    before = served.engine.stats().generated_tokens
    events, close = open_stream(runtime, client, kind, LONG)
    for _ in range(5):
        next(events)
    assert served.engine.stats().running == 1  # it is not complete
    close()
    served.wait_until_idle()
    assert served.engine.stats().generated_tokens - before < LONG


def test_a_caller_that_waits_for_a_whole_answer_can_leave(served: Served) -> None:
    before = served.engine.stats().generated_tokens
    with (
        openai.OpenAI(
            base_url=f"{served.endpoint.url}/openai/v1", api_key="any", max_retries=0, timeout=0.7
        ) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(model=NOVA, messages=MESSAGES, max_tokens=LONG)
    served.wait_until_idle()
    assert served.engine.stats().generated_tokens - before < LONG


def test_answers_of_several_callers_are_made_at_once(
    served: Served, runtime: Any, client: openai.OpenAI
) -> None:
    kinds = ["converse", "openai", CLAUDE, LLAMA]
    streams = [open_stream(runtime, client, kind, LONG) for kind in kinds]
    for events, _ in streams:
        for _ in range(3):
            next(events)
    assert served.engine.stats().running == len(kinds)
    for _, close in streams:
        close()
    served.wait_until_idle()


def test_a_stop_sequence_ends_the_generation(served: Served, runtime: Any) -> None:
    config: dict[str, Any] = {"maxTokens": 40}
    free = runtime.converse(modelId=NOVA, messages=CHAT, inferenceConfig=config)
    text = free["output"]["message"]["content"][0]["text"]
    stop = text[3:6]
    before = served.engine.stats().generated_tokens
    config |= {"maxTokens": LONG, "stopSequences": [stop]}
    cut = runtime.converse(modelId=NOVA, messages=CHAT, inferenceConfig=config)
    assert cut["stopReason"] == "stop_sequence"
    assert cut["output"]["message"]["content"][0]["text"] == text[: text.index(stop)]
    assert served.engine.stats().generated_tokens - before <= 40
    events = runtime.converse_stream(modelId=NOVA, messages=CHAT, inferenceConfig=config)["stream"]
    parts = [e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e]
    assert "".join(parts) == text[: text.index(stop)]


def test_a_stream_that_breaks_ends_with_an_exception_as_on_aws(
    served: Served, runtime: Any, client: openai.OpenAI
) -> None:
    served.endpoint.fault(
        {"operation": "ConverseStream", "do": "break", "message": "It broke."},
        {"operation": "InvokeModelWithResponseStream", "do": "break", "message": "It broke."},
        {"operation": "CreateInference", "do": "break", "message": "It broke."},
    )
    for kind in ("converse", CLAUDE):
        events, close = open_stream(runtime, client, kind, LONG)
        assert next(events)
        with pytest.raises(EventStreamError) as caught:
            list(events)
        error = caught.value.response["Error"]
        assert (error["Code"], error["Message"]) == ("modelStreamErrorException", "It broke.")
        close()
    events, close = open_stream(runtime, client, "openai", LONG)
    assert next(events)
    with pytest.raises(openai.APIError, match="It broke"):
        list(events)
    close()
    served.wait_until_idle()


def test_throttled_and_dropped_streams_make_no_answer(served: Served, runtime: Any) -> None:
    served.endpoint.fault({"operation": "ConverseStream", "do": "throttle", "times": 5})
    with pytest.raises(ClientError) as caught:
        runtime.converse_stream(modelId=NOVA, messages=CHAT)
    assert caught.value.response["Error"]["Code"] == "ThrottlingException"
    served.endpoint.fault({"operation": "ConverseStream", "do": "drop", "times": 1})
    # boto3 sends it again when its connection was closed without a response.
    config = {"maxTokens": 3}
    stream = runtime.converse_stream(modelId=NOVA, messages=CHAT, inferenceConfig=config)["stream"]
    assert "metadata" in list(stream)[-1]
    served.wait_until_idle()


def test_metrics_of_a_stream_are_measured(runtime: Any) -> None:
    body = json.dumps({"prompt": "Where?", "max_gen_len": 200})
    stream = runtime.invoke_model_with_response_stream(modelId=LLAMA, body=body)["body"]
    *before, last = [json.loads(event["chunk"]["bytes"]) for event in stream]
    metrics = last["amazon-bedrock-invocationMetrics"]
    assert metrics["outputTokenCount"] == last["generation_token_count"] == 200
    assert 0 < metrics["firstByteLatency"] < metrics["invocationLatency"]
    assert before[0]["prompt_token_count"] == metrics["inputTokenCount"]


def test_a_stream_is_logged_by_the_id_of_its_request(served: Served, runtime: Any) -> None:
    s3, bedrock = served.endpoint.client("s3"), served.endpoint.client("bedrock")
    s3.create_bucket(Bucket="logs")
    bedrock.put_model_invocation_logging_configuration(
        loggingConfig={"s3Config": {"bucketName": "logs"}, "textDataDeliveryEnabled": True}
    )
    config = {"maxTokens": 3}
    converse = runtime.converse_stream(modelId=NOVA, messages=CHAT, inferenceConfig=config)
    list(converse["stream"])
    body = json.dumps({"prompt": "Where?", "max_gen_len": 3})
    invoke = runtime.invoke_model_with_response_stream(modelId=LLAMA, body=body)
    list(invoke["body"])
    bedrock.delete_model_invocation_logging_configuration()
    records = {}
    for item in s3.list_objects_v2(Bucket="logs")["Contents"]:
        if item["Key"].endswith(".json.gz"):
            content = s3.get_object(Bucket="logs", Key=item["Key"])["Body"].read()
            record = json.loads(gzip.decompress(content))
            records[record["requestId"]] = record
    for answer, operation in (
        (converse, "ConverseStream"),
        (invoke, "InvokeModelWithResponseStream"),
    ):
        record = records.pop(answer["ResponseMetadata"]["RequestId"])
        assert record["operation"] == operation
        assert record["output"]["outputTokenCount"] == 3
        assert record["output"]["outputBodyJson"]
    assert not records


def test_a_schema_that_can_t_be_kept_is_refused_by_its_keyword(runtime: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    structure = {"jsonSchema": {"schema": json.dumps(schema)}}
    output = {"textFormat": {"type": "json_schema", "structure": structure}}
    for call in (runtime.converse, runtime.converse_stream):
        with pytest.raises(ClientError) as caught:
            call(modelId=NOVA, messages=CHAT, outputConfig=output)
        error = caught.value.response["Error"]
        assert error["Code"] == "ValidationException"
        assert error["Message"].startswith("The model returned the following errors:")
        assert "not" in error["Message"]


def test_a_prompt_that_is_too_long_is_refused_in_bedrock_s_words(runtime: Any) -> None:
    long = [{"role": "user", "content": [{"text": "Where is it? " * 4000}]}]
    counted = {"converse": {"messages": long}}
    for call, body in (
        (runtime.converse, {"messages": long}),
        (runtime.converse_stream, {"messages": long}),
        (runtime.count_tokens, {"input": counted}),
    ):
        with pytest.raises(ClientError) as caught:
            call(modelId=NOVA, **body)
        error = caught.value.response["Error"]
        assert (error["Code"], error["Message"]) == (
            "ValidationException",
            "Input is too long for requested model.",
        )
