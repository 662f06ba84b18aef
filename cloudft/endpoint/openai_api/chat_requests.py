"""Parse OpenAI's chat completion requests: messages, tools, and the form of the answer.

Source: OpenAI API reference, "Create chat completion". What a model here can't do is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudft.endpoint.bedrock.body_checks import (
    BodyKeys,
    JsonObject,
    inference_config,
    malformed,
)
from cloudft.endpoint.bedrock.converse_requests import parse_messages, parse_tools, parse_top_k
from cloudft.endpoint.bedrock.inference_request import (
    InferenceRequest,
    ToolUse,
    unsupported_block,
)
from cloudft.endpoint.protocols.json_shapes import load_json

NAMES = {
    "max_tokens": "maxTokens",
    "max_completion_tokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
}
SHARED_KEYS = (
    *NAMES,
    *("top_k", "stop", "seed", "n", "stream", "stream_options", "model", "user"),
    *("response_format", "frequency_penalty", "presence_penalty"),
)
"""Members that both of OpenAI's requests may have."""
CHAT_KEYS = BodyKeys(
    ("messages",),
    (
        *SHARED_KEYS,
        *("tools", "tool_choice", "parallel_tool_calls", "metadata", "logprobs", "top_logprobs"),
    ),
)
MAX_TOP_LOGPROBS = 20
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The schema of `json_object`."""


def parse_chat(body: JsonObject) -> InferenceRequest:
    """Parse a request. Raises ServiceError (ValidationException)."""
    CHAT_KEYS.check(body)
    messages = parse_messages([*_turns(body["messages"])], ())
    return replace(
        parse_shared(body),
        messages=messages,
        tools=_parse_tools(body),
        logprobs=_parse_logprobs(body),
    )


def parse_shared(body: JsonObject) -> InferenceRequest:
    """Return what both of OpenAI's requests have, without a prompt."""
    config = inference_config(body, NAMES)
    stop = body.get("stop")
    stops = {"stop": [stop] if isinstance(stop, str) else stop}
    config |= inference_config(stops, {"stop": "stopSequences"})
    if body.get("n") not in (None, 1):
        raise malformed("#/n: one answer is given to a request.")
    for name in ("frequency_penalty", "presence_penalty"):
        if body.get(name):
            raise malformed(f"#/{name}: this model has no penalties, leave it out.")
    seed = body.get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 1 << 32):
        raise malformed(f"#/seed: {str(seed)[:100]} is no integer from 0 to 4294967295.")
    return InferenceRequest(
        inference_config=config,
        top_k=parse_top_k(body.get("top_k")),
        json_schema=_parse_response_format(body.get("response_format")),
        seed=seed,
    )


def _parse_logprobs(body: JsonObject) -> int | None:
    """Return how many likeliest tokens each token of the answer comes with; None: no scores."""
    is_requested, top = body.get("logprobs"), body.get("top_logprobs")
    if is_requested not in (None, True, False):
        raise malformed("#/logprobs: expected type: Boolean.")
    if top is not None and (type(top) is not int or not 0 <= top <= MAX_TOP_LOGPROBS):
        raise malformed(f"#/top_logprobs: {str(top)[:100]} is no integer from 0 to 20.")
    if top and not is_requested:
        raise malformed("#/top_logprobs: it needs logprobs to be true.")
    return (top or 0) if is_requested else None


def _turns(messages: Sequence[JsonObject]) -> Iterator[JsonObject]:
    """Yield the messages by Converse's roles and blocks; results of tools are one message."""
    results: list[Mapping[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            parts = _texts(message["content"])
            result = {"toolUseId": message["tool_call_id"], "content": parts}
            results.append({"toolResult": result})
            continue
        if results:
            yield {"role": "user", "content": results}
            results = []
        if message["role"] not in ROLES:
            raise malformed(f"#/messages: there is no role {str(message['role'])[:100]}.")
        calls = [_call(call) for call in message.get("tool_calls") or ()]
        # An assistant that calls need not say anything.
        content = message.get("content") if calls else message["content"]
        texts = _texts(content) if content else []
        yield {"role": ROLES[message["role"]], "content": [*texts, *calls] or [{"text": ""}]}
    if results:
        yield {"role": "user", "content": results}


def _texts(content: Any) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    for part in content:
        if part["type"] != "text":
            raise unsupported_block(str(part["type"]))
    return [{"text": part["text"]} for part in content]


def _call(call: JsonObject) -> Mapping[str, Any]:
    function = call["function"]
    arguments = load_json(function["arguments"].encode())
    if not isinstance(arguments, dict):
        raise malformed("#/messages: the arguments of a tool call are no JSON object.")
    return {"toolUse": {"toolUseId": call["id"], "name": function["name"], "input": arguments}}


def _parse_tools(body: JsonObject) -> ToolUse:
    choice = body.get("tool_choice", "auto")
    if not body.get("tools") or choice == "none":
        return ToolUse()
    functions = []
    for tool in body["tools"]:
        if tool["type"] != "function":
            raise malformed(f"#/tools: a tool of the type {str(tool['type'])[:100]} is not taken.")
        functions.append(tool["function"])
    specs = [
        {
            "name": function["name"],
            **{name: function[name] for name in ("description", "strict") if name in function},
            "inputSchema": {"json": function.get("parameters") or ANY_OBJECT},
        }
        for function in functions
    ]
    tools = [{"toolSpec": spec} for spec in specs]
    use = parse_tools({"tools": tools, "toolChoice": _tool_choice(choice)})
    return replace(use, parallel=body.get("parallel_tool_calls") is not False)


def _tool_choice(choice: Any) -> Mapping[str, Any]:
    if choice in ("auto", None):
        return {"auto": {}}
    if choice == "required":
        return {"any": {}}
    if isinstance(choice, str):
        raise malformed(f"#/tool_choice: {choice[:100]} is not auto, none or required.")
    return {"tool": {"name": choice["function"]["name"]}}


def _parse_response_format(given: Any) -> Mapping[str, Any] | None:
    """Return the JSON schema that the answer has to keep; None for a text."""
    kind = given["type"] if given is not None else "text"
    if kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    if kind != "json_schema":
        raise malformed(f"#/response_format: {str(kind)[:100]} is not text or json_schema.")
    schema = given["json_schema"]["schema"]
    if not isinstance(schema, Mapping):
        raise malformed("#/response_format/json_schema/schema: expected type: JSONObject.")
    return schema
