"""What real clients send to bedrock-runtime and read of its answers: ids, bodies, tools, metrics.

Each form is that of the service model, of the user guide, or of the thread named beside it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import tiny
import yaml
from botocore.exceptions import ClientError
from endpoint import ACCOUNT, BUCKET, REGION, ROLE, Endpoint, running_endpoint
from processes import wait_until

from cloudft import catalogue
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.endpoint.bedrock.deployments import Deployments
from cloudft.endpoint.bedrock.foundation_models import FoundationModels
from cloudft.endpoint.bedrock.inference_profiles import InferenceProfiles
from cloudft.endpoint.bedrock.runtime import BedrockRuntime
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import Model, ModelDeployment, State
from cloudft.inference import GenerationConfig, Prompt
from cloudft.spec.load import load_spec
from cloudft.storage.home import Home

NOVA, NOVA_PRO, NOVA_2 = (f"amazon.nova-{n}-v1:0" for n in ("lite", "pro", "2-lite"))
LLAMA, CLAUDE = "us.meta.llama3-1-8b-instruct-v1:0", "anthropic.claude-3-haiku-20240307-v1:0"
TITAN, COHERE = "amazon.titan-text-express-v1", "cohere.command-text-v14"
QUESTION = "Where is the parcel for Oslo?"
CHAT: list[Any] = [{"role": "user", "content": [{"text": QUESTION}]}]
SHORT = {"maxTokens": 4}
TOOL_SPEC = {
    "name": "find",
    "description": "Find a parcel.",
    "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
TOOLS = {"tools": [{"toolSpec": TOOL_SPEC}]}
PROFILE_ARN = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:inference-profile"
CLAUDE_BODY = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 6,
    "messages": [{"role": "user", "content": QUESTION}],
}
PIXEL = {"format": "png", "source": {"bytes": b"x"}}


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Return an endpoint whose Nova Pro has a chat template with tools."""
    folder = tmp_path_factory.mktemp("stand-ins")
    tiny.build_model(folder / "tools", chat_template=chat_templates.QWEN25, context=1536)
    (folder / "models.yaml").write_text(yaml.safe_dump({NOVA_PRO: str(folder / "tools")}))
    options = ("--stand-in", tiny_model, "--models", folder / "models.yaml")
    with running_endpoint("--clock", "fast", *options) as made:
        yield made


@pytest.fixture(scope="module")
def runtime(endpoint: Endpoint) -> Any:
    return endpoint.client("bedrock-runtime")


def invoke(runtime: Any, model: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = runtime.invoke_model(modelId=model, body=json.dumps(body))
    return dict(json.load(answer["body"]))


def invoke_stream(runtime: Any, model: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = runtime.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    return [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]


def refusal(call: Any, **request: Any) -> tuple[str, str]:
    """Return code and message of a refused call."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.mark.parametrize(
    "identifier", [f"us.{NOVA}", f"{PROFILE_ARN}/us.{NOVA}", f"global.{NOVA_2}"]
)
def test_an_inference_profile_answers_like_its_model(runtime: Any, identifier: str) -> None:
    body = {"messages": CHAT, "inferenceConfig": SHORT}
    own = runtime.converse(modelId=NOVA, messages=CHAT, inferenceConfig=SHORT)
    answer = runtime.converse(modelId=identifier, messages=CHAT, inferenceConfig=SHORT)
    assert answer["output"] == own["output"]
    assert invoke(runtime, identifier, body)["output"] == own["output"]
    assert "metadata" in invoke_stream(runtime, identifier, body)[-1]
    events = runtime.converse_stream(modelId=identifier, messages=CHAT, inferenceConfig=SHORT)
    assert "metadata" in list(events["stream"])[-1]


@pytest.mark.parametrize(
    ("identifier", "code", "words"),
    [
        # aws-samples/amazon-bedrock-workshop, issue 315
        *(
            (name, "ValidationException", "The provided model identifier is invalid.")
            for name in ("amazon.none-v1", "us.amazon.none-v1:0", f"eu.{NOVA}", f"us.{TITAN}")
        ),
        # anthropics/anthropic-sdk-python, issue 894
        (
            NOVA_2,
            "ValidationException",
            f"Invocation of model ID {NOVA_2} with on-demand throughput isn\u2019t supported. Retry"
            " your request with the ID or ARN of an inference profile that contains this model.",
        ),
    ],
)
def test_an_id_that_is_none_is_refused_in_bedrocks_words(
    runtime: Any, identifier: str, code: str, words: str
) -> None:
    assert refusal(runtime.converse, modelId=identifier, messages=CHAT) == (code, words)


def test_profiles_are_listed_created_used_and_deleted(endpoint: Endpoint, runtime: Any) -> None:
    bedrock = endpoint.client("bedrock")
    pages = bedrock.get_paginator("list_inference_profiles").paginate(
        typeEquals="SYSTEM_DEFINED", PaginationConfig={"PageSize": 5}
    )
    ids = [p["inferenceProfileId"] for page in pages for p in page["inferenceProfileSummaries"]]
    assert {f"us.{NOVA}", LLAMA, f"global.{NOVA_2}"} <= set(ids)
    assert all(i.startswith(("us.", "global.")) for i in ids), "others can't be called from here"
    shown = bedrock.get_inference_profile(inferenceProfileIdentifier=f"us.{NOVA}")
    assert shown["inferenceProfileArn"] == f"{PROFILE_ARN}/us.{NOVA}"
    regions = [model["modelArn"].split(":")[3] for model in shown["models"]]
    assert regions == ["us-east-1", "us-east-2", "us-west-2"]  # the card of Nova Lite
    request = {
        "inferenceProfileName": "team",
        "modelSource": {"copyFrom": shown["inferenceProfileArn"]},
        "tags": [{"key": "team", "value": "a"}],
    }
    arn = bedrock.create_inference_profile(**request)["inferenceProfileArn"]
    made = bedrock.get_inference_profile(inferenceProfileIdentifier=arn)
    assert (made["type"], made["models"]) == ("APPLICATION", shown["models"])
    assert bedrock.list_tags_for_resource(resourceARN=arn)["tags"] == request["tags"]
    assert runtime.converse(modelId=arn, messages=CHAT, inferenceConfig=SHORT)["output"]
    bedrock.delete_inference_profile(inferenceProfileIdentifier=arn)
    assert refusal(runtime.converse, modelId=arn, messages=CHAT)[0] == "ResourceNotFoundException"


def test_a_batch_takes_a_profile(endpoint: Endpoint) -> None:
    bedrock, s3 = endpoint.client("bedrock"), endpoint.client("s3")
    record = {"recordId": "r", "modelInput": {"messages": CHAT, "inferenceConfig": SHORT}}
    s3.upload_fileobj(io.BytesIO(json.dumps(record).encode()), BUCKET, "profile/in.jsonl")
    arn = bedrock.create_model_invocation_job(
        jobName="by-profile",
        roleArn=ROLE,
        modelId=f"us.{NOVA}",
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"s3://{BUCKET}/profile/in.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": f"s3://{BUCKET}/profile/out/"}},
    )["jobArn"]

    def ended() -> Any:
        job = bedrock.get_model_invocation_job(jobIdentifier=arn)
        return job if job["status"] in ("Completed", "Failed") else None

    assert wait_until(ended, "the batch has ended")["successRecordCount"] == 1


NO_IMAGE = "This model doesn't support the image content block that you provided. Update the"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        # langchain-ai/langchain-aws, issue 447
        ({"toolConfig": TOOLS}, "This model doesn't support tool use."),
        (
            {"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}},
            "The guardrail identifier or version provided in the request does not exist.",
        ),
        # boto/boto3, issue 4581
        ({"messages": [{"role": "user", "content": [{"image": PIXEL}]}]}, NO_IMAGE),
        # vercel/ai, pull request 7537
        (
            {
                "messages": [
                    *CHAT,
                    {
                        "role": "assistant",
                        "content": [{"toolUse": {"toolUseId": "t", "name": "find", "input": {}}}],
                    },
                    {
                        "role": "user",
                        "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "x"}]}}],
                    },
                ]
            },
            "The toolConfig field must be defined when using toolUse and toolResult content",
        ),
        # run-llama/llama_index, issue 21420
        (
            {"additionalModelRequestFields": {"nonsense": 1}},
            "Malformed input request: #: extraneous key [nonsense] is not permitted",
        ),
        ({"additionalModelRequestFields": True}, "is no JSON object"),
    ],
)
def test_converse_refuses_what_the_model_lacks(
    runtime: Any, members: dict[str, Any], words: str
) -> None:
    request = {"modelId": NOVA, "messages": CHAT, **members}
    for call in (runtime.converse, runtime.converse_stream):
        code, message = refusal(call, **request)
        assert code == "ValidationException" and words in message


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        (NOVA, {"messages": CHAT, "toolConfig": TOOLS}, "doesn't support tool use"),
        (NOVA, {"messages": CHAT, "top_p": 0.5}, "#: extraneous key [top_p] is not permitted"),
        (
            NOVA,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "#/messages/0/content/0: extraneous key [type] is not permitted",
        ),
        (NOVA, {"messages": [{"role": "user", "content": [{"image": {}}]}]}, NO_IMAGE),
        (LLAMA, {"prompt": "x", "images": ["x"]}, "#: extraneous key [images] is not permitted"),
        (LLAMA, {"messages": []}, "#: required key [prompt] not found"),
        (TITAN, {"inputText": "x", "textGenerationConfig": {"topK": 1}}, "extraneous key [topK]"),
        (COHERE, {"prompt": "x", "num_generations": 2}, "extraneous key [num_generations]"),
        (CLAUDE, CLAUDE_BODY | {"thinking": {}}, "thinking: Extra inputs are not permitted"),
        (CLAUDE, {"messages": []}, "anthropic_version: Field required"),
        (
            CLAUDE,
            CLAUDE_BODY
            | {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            NO_IMAGE,
        ),
        (
            CLAUDE,
            CLAUDE_BODY | {"tools": [{"name": "find", "input_schema": {"type": "object"}}]},
            "doesn't support tool use",
        ),
    ],
)
def test_a_body_with_what_the_model_lacks_is_refused(
    runtime: Any, model: str, body: dict[str, Any], words: str
) -> None:
    code, message = refusal(runtime.invoke_model, modelId=model, body=json.dumps(body))
    assert code == "ValidationException" and words in message
    assert not any(name in message for name in ("KeyError", "TypeError", "dict")), message


def test_a_guardrail_of_invoke_model_is_refused(runtime: Any) -> None:
    code, message = refusal(
        runtime.invoke_model,
        modelId=CLAUDE,
        body=json.dumps(CLAUDE_BODY),
        guardrailIdentifier="abc",
        guardrailVersion="1",
    )
    assert code == "ValidationException" and "guardrail identifier" in message


def test_a_template_with_tools_gets_them_by_every_body(runtime: Any) -> None:
    bare = runtime.converse(modelId=NOVA_PRO, messages=CHAT, inferenceConfig=SHORT)
    answer = runtime.converse(
        modelId=NOVA_PRO, messages=CHAT, inferenceConfig=SHORT, toolConfig=TOOLS
    )
    assert answer["usage"]["inputTokens"] > bare["usage"]["inputTokens"] + 50
    body = {"messages": CHAT, "inferenceConfig": SHORT, "toolConfig": TOOLS}
    assert invoke(runtime, NOVA_PRO, body)["usage"] == answer["usage"]


COLORS = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "dark": {"type": "boolean"}},
    "required": ["color", "dark"],
    "additionalProperties": False,
}
ROOM = {"maxTokens": 800}
"""Enough for an answer that keeps COLORS, with all the white space that JSON may have."""
PAINT = {"toolSpec": {"name": "paint", "inputSchema": {"json": COLORS}}}


def is_color(value: Any) -> bool:
    return value.keys() == {"color", "dark"} and value["color"] in ("red", "green")


@pytest.mark.parametrize("choice", [{"any": {}}, {"tool": {"name": "paint"}}])
def test_a_tool_is_called_where_it_has_to_be(runtime: Any, choice: Any) -> None:
    config = {"tools": [PAINT], "toolChoice": choice}
    limits = {"inferenceConfig": ROOM}
    request = {"modelId": NOVA_PRO, "messages": CHAT, "toolConfig": config, **limits}
    answer = runtime.converse(**request)
    assert answer["stopReason"] == "tool_use"
    [block] = answer["output"]["message"]["content"]
    assert block["toolUse"]["name"] == "paint" and is_color(block["toolUse"]["input"])
    events = list(runtime.converse_stream(**request)["stream"])
    deltas = [e["contentBlockDelta"]["delta"] for e in events if "contentBlockDelta" in e]
    written = "".join(delta["toolUse"]["input"] for delta in deltas)
    assert json.loads(written) == block["toolUse"]["input"]
    wrong = config | {"toolChoice": {"tool": {"name": "find"}}}
    _, message = refusal(runtime.converse, **request | {"toolConfig": wrong})
    assert message == "toolConfig.toolChoice.tool.name: there is no tool find."


def test_an_answer_keeps_a_json_schema_by_every_body(
    endpoint: Endpoint, runtime: Any, imported: str
) -> None:
    structure = {"jsonSchema": {"schema": json.dumps(COLORS), "name": "color"}}
    output = {"textFormat": {"type": "json_schema", "structure": structure}}
    request = {"messages": CHAT, "outputConfig": output, "inferenceConfig": ROOM}
    whole = runtime.converse(modelId=NOVA_PRO, **request)
    text = whole["output"]["message"]["content"][0]["text"]
    assert whole["stopReason"] == "end_turn" and is_color(json.loads(text))
    stream = runtime.converse_stream(modelId=NOVA_PRO, **request)["stream"]
    deltas = [e["contentBlockDelta"]["delta"]["text"] for e in stream if "contentBlockDelta" in e]
    assert "".join(deltas) == text
    body = CLAUDE_BODY | {"max_tokens": 800}
    body["output_config"] = {"format": {"type": "json_schema", "schema": COLORS}}
    assert is_color(json.loads(invoke(runtime, CLAUDE, body)["content"][0]["text"]))
    given = {"type": "json_schema", "json_schema": {"name": "color", "schema": COLORS}}
    chat = {
        "messages": [{"role": "user", "content": QUESTION}],
        "response_format": given,
        "max_tokens": 800,
    }
    message = invoke(runtime, imported, chat)["choices"][0]["message"]
    assert is_color(json.loads(message["content"]))
    nonsense = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "["}}}}
    _, words = refusal(runtime.converse, modelId=NOVA, messages=CHAT, outputConfig=nonsense)
    assert "is no JSON object" in words


def test_claudes_answer_has_every_member_of_anthropics_message(runtime: Any) -> None:
    whole, again = (invoke(runtime, CLAUDE, CLAUDE_BODY) for _ in range(2))
    assert list(whole) == [
        *("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage")
    ]
    assert whole["id"] != again["id"] and whole["id"].startswith("msg_")
    assert whole["model"] == "claude-3-haiku-20240307"
    text = whole["content"][0]["text"]
    stopped = invoke(runtime, CLAUDE, CLAUDE_BODY | {"stop_sequences": [text[2:4]]})
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", text[2:4])
    start, *_, delta, stop = invoke_stream(runtime, CLAUDE, CLAUDE_BODY)
    assert start["message"]["model"] == whole["model"] and start["message"]["content"] == []
    assert delta["usage"] == {"output_tokens": whole["usage"]["output_tokens"]}
    assert stop["type"] == "message_stop"


@pytest.fixture(scope="module")
def imported(endpoint: Endpoint, tiny_model: Path) -> str:
    """Return the ARN of an imported model."""
    bedrock, s3 = endpoint.client("bedrock"), endpoint.client("s3")
    for path in tiny_model.iterdir():
        s3.upload_file(str(path), BUCKET, f"weights/{path.name}")
    bedrock.create_model_import_job(
        jobName="forms",
        importedModelName="forms",
        roleArn=ROLE,
        modelDataSource={"s3DataSource": {"s3Uri": f"s3://{BUCKET}/weights/"}},
    )

    def arn() -> Any:
        return bedrock.get_model_import_job(jobIdentifier="forms").get("importedModelArn")

    return str(wait_until(arn, "the model is imported"))


def test_an_imported_model_answers_in_openais_forms(runtime: Any, imported: str) -> None:
    chat = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 6}
    whole = invoke(runtime, imported, chat)
    assert list(whole) == ["id", "object", "created", "model", "choices", "usage"]
    assert (whole["object"], whole["model"]) == ("chat.completion", imported)
    [choice] = whole["choices"]
    assert choice["message"]["role"] == "assistant" and choice["finish_reason"] == "length"
    chunks = invoke_stream(runtime, imported, chat)
    assert {(c["object"], c["id"]) for c in chunks} == {("chat.completion.chunk", chunks[0]["id"])}
    parts = [c["choices"][0]["delta"].get("content", "") for c in chunks]
    assert "".join(parts) == choice["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    text = choice["message"]["content"]
    stopped = invoke(runtime, imported, chat | {"stop": text[2:4]})["choices"][0]
    assert stopped["message"]["content"] == text[: text.index(text[2:4])]
    assert stopped["finish_reason"] == "stop"
    completion = {"prompt": QUESTION, "max_tokens": 6}
    whole = invoke(runtime, imported, completion)
    assert (whole["object"], next(iter(whole))) == ("text_completion", "id")
    chunks = invoke_stream(runtime, imported, completion)
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert "".join(texts) == whole["choices"][0]["text"]
    own = invoke_stream(runtime, imported, {"prompt": QUESTION, "max_gen_len": 6})
    assert "".join(chunk["generation"] for chunk in own) == whole["choices"][0]["text"]


def test_tokens_and_latency_are_in_headers_and_in_the_last_chunk(runtime: Any) -> None:
    answer = runtime.invoke_model(modelId=CLAUDE, body=json.dumps(CLAUDE_BODY))
    usage = json.load(answer["body"])["usage"]
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-bedrock-input-token-count"] == str(usage["input_tokens"])
    assert headers["x-amzn-bedrock-output-token-count"] == str(usage["output_tokens"])
    assert int(headers["x-amzn-bedrock-invocation-latency"]) > 0
    for model, body in ((CLAUDE, CLAUDE_BODY), (LLAMA, {"prompt": QUESTION, "max_gen_len": 3})):
        *before, last = invoke_stream(runtime, model, body)
        metrics = last["amazon-bedrock-invocationMetrics"]
        assert metrics["inputTokenCount"] > 0 and metrics["outputTokenCount"] > 0
        assert metrics["invocationLatency"] >= metrics["firstByteLatency"] > 0
        assert not any("amazon-bedrock-invocationMetrics" in chunk for chunk in before)
    converse = runtime.converse(modelId=NOVA, messages=CHAT, inferenceConfig=SHORT)
    assert converse["metrics"]["latencyMs"] > 0


def test_base_models_are_listed_by_both_ids_and_bought(endpoint: Endpoint, runtime: Any) -> None:
    bedrock = endpoint.client("bedrock")
    listed = {m["modelId"]: m for m in bedrock.list_foundation_models()["modelSummaries"]}
    whole = listed[f"{NOVA}:300k"]
    assert listed[NOVA]["inferenceTypesSupported"] == ["ON_DEMAND"]
    assert listed[NOVA]["customizationsSupported"] == []
    assert listed[NOVA_2]["inferenceTypesSupported"] == ["INFERENCE_PROFILE"]
    assert whole["inferenceTypesSupported"] == ["PROVISIONED"]
    assert "FINE_TUNING" in whole["customizationsSupported"]
    tuned = bedrock.list_foundation_models(byCustomizationType="FINE_TUNING")["modelSummaries"]
    assert NOVA not in [m["modelId"] for m in tuned]
    details = bedrock.get_foundation_model(modelIdentifier=NOVA)["modelDetails"]
    assert details["modelId"] == NOVA and details["modelArn"].endswith(f"/{NOVA}")
    arn = bedrock.create_provisioned_model_throughput(
        modelUnits=1, provisionedModelName="base", modelId=whole["modelArn"]
    )["provisionedModelArn"]
    shown = bedrock.get_provisioned_model_throughput(provisionedModelId="base")
    assert shown["foundationModelArn"] == shown["modelArn"] == whole["modelArn"]
    own = runtime.converse(modelId=NOVA, messages=CHAT, inferenceConfig=SHORT)
    bought = runtime.converse(modelId=arn, messages=CHAT, inferenceConfig=SHORT)
    assert bought["output"] == own["output"]
    bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)


def test_a_model_from_s3_is_created_deployed_and_answers(
    endpoint: Endpoint, runtime: Any, imported: str
) -> None:
    bedrock = endpoint.client("bedrock")
    source = {"s3DataSource": {"s3Uri": f"s3://{BUCKET}/weights/"}}
    arn = bedrock.create_custom_model(modelName="own", modelSourceConfig=source, roleArn=ROLE)[
        "modelArn"
    ]
    assert ":custom-model/imported/" in arn

    def status() -> Any:
        model = bedrock.get_custom_model(modelIdentifier=arn)
        return model if model["modelStatus"] != "Creating" else None

    model = wait_until(status, "the model is created")
    assert (model["modelStatus"], model["customizationType"]) == ("Active", "IMPORTED"), model
    request = {"modelDeploymentName": "own", "modelArn": arn}
    deployed = bedrock.create_custom_model_deployment(**request)["customModelDeploymentArn"]
    assert runtime.converse(modelId=deployed, messages=CHAT, inferenceConfig=SHORT)["output"]
    empty = {"s3DataSource": {"s3Uri": f"s3://{BUCKET}/nothing/"}}
    failed = bedrock.create_custom_model(modelName="no", modelSourceConfig=empty, roleArn=ROLE)
    arn = failed["modelArn"]
    model = wait_until(status, "the model has failed")
    assert model["modelStatus"] == "Failed" and "config.json" in model["failureMessage"]


def test_the_configuration_of_invocation_logging_is_kept(endpoint: Endpoint) -> None:
    bedrock = endpoint.client("bedrock")
    assert "loggingConfig" not in bedrock.get_model_invocation_logging_configuration()
    config = {
        "s3Config": {"bucketName": BUCKET, "keyPrefix": "logs"},
        "textDataDeliveryEnabled": True,
    }
    bedrock.put_model_invocation_logging_configuration(loggingConfig=config)
    assert bedrock.get_model_invocation_logging_configuration()["loggingConfig"] == config
    bedrock.delete_model_invocation_logging_configuration()
    assert "loggingConfig" not in bedrock.get_model_invocation_logging_configuration()


def test_a_deployment_answers_when_it_is_active() -> None:
    state, models = State(REGION), FoundationModels(REGION, as_on_aws=False)
    model, deployment = Model("model", "m", models.arn_of(NOVA)), ModelDeployment("d", "d", "model")
    state.models["model"], state.deployments["d"] = model, deployment
    deployments: Any = Deployments(state, models, seconds=60)
    none: Any = None
    runtime = BedrockRuntime(state, InferenceProfiles(state, models), none, deployments, none)
    with pytest.raises(ServiceError) as caught:
        runtime.resolve_model("d")
    assert caught.value.code == "ModelNotReadyException"  # botocore: 429, and the SDK retries


@pytest.mark.parametrize(
    ("identifier", "region", "called"),
    [
        ("amazon.nova-2-lite-v1:0:256k", "us-east-1", f"us.{NOVA_2}"),
        ("amazon.nova-2-lite-v1:0:256k", "eu-west-1", f"eu.{NOVA_2}"),
        ("amazon.nova-2-lite-v1:0:256k", "ap-south-1", f"global.{NOVA_2}"),
        ("amazon.nova-lite-v1:0:300k", "us-east-1", NOVA),
        ("amazon.nova-lite-v1:0:300k", "eu-central-1", f"eu.{NOVA}"),
        ("meta.llama3-3-70b-instruct-v1:0:128k", "us-west-2", "us.meta.llama3-3-70b-instruct-v1:0"),
        ("meta.llama3-1-8b-instruct-v1:0:128k", "us-west-2", LLAMA.removeprefix("us.")),
        ("meta.llama3-1-8b-instruct-v1:0:128k", "us-east-1", LLAMA),
        ("amazon.titan-text-express-v1:0:8k", "us-east-1", f"{TITAN}:0"),
    ],
)
def test_cloudft_calls_a_base_model_by_the_id_that_answers(
    identifier: str, region: str, called: str
) -> None:
    """The models' cards in the Bedrock user guide, 2026-10."""
    assert catalogue.inference_id(identifier, region) == called


def test_generating_with_a_base_model_goes_through_its_profile(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    flags = {"name": "base", "base_model": "nova-2-lite", "data.train": "none.jsonl"}
    session = BedrockBackend(Home(tmp_path)).open_base_session(load_spec({}, flags=flags))
    assert session.model_identities() == {"base": f"us.{NOVA_2}"}
    [answer] = session.generate(
        [Prompt(({"role": "user", "content": QUESTION},))], ["base"], GenerationConfig(4)
    )
    assert answer.text
