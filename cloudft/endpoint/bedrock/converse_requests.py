"""Parse the requests of Converse, and refuse what no model here takes, in Bedrock's words.

Sources of the words are threads about failed calls that quote them: vercel/ai 7537 (no toolConfig),
strands-agents/harness-sdk 1241 (a field), boto/boto3 4581 (a content block), and, for a guardrail
that does not exist, the error that a wrong Region gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from cloudft.endpoint.bedrock.inference_request import (
    InferenceRequest,
    ToolUse,
    block_kinds,
    unsupported_block,
)
from cloudft.endpoint.bedrock.shapes import ConverseInput, InferenceConfig
from cloudft.endpoint.protocols.json_shapes import load_json
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.inference import Message

Block = Mapping[str, Any]
TAKEN_BLOCKS = frozenset({"text", "toolUse", "toolResult", "reasoningContent"})
"""Blocks that a model here may take; whether it does is a matter of its chat template."""
CACHE_POINT = "cachePoint"
"""A block that changes the price and the latency of an answer, and not the answer."""
NO_GUARDRAIL = "The guardrail identifier or version provided in the request does not exist."
"""Here are no guardrails: whatever the request names does not exist."""


def refuse(message: str) -> ServiceError:
    """Return a ValidationException."""
    return ServiceError("ValidationException", message)


def unsupported_field(name: str) -> ServiceError:
    """Return the error for a field that a model does not take."""
    return refuse(f"This model doesn't support the {name} field. Remove {name} and try again.")


def parse_converse_request(request: ConverseInput) -> InferenceRequest:
    """Return the conversation and the limits. Raises ServiceError (ValidationException)."""
    members = cast("Mapping[str, Any]", request)
    if members.get("guardrailConfig"):
        raise refuse(NO_GUARDRAIL)
    if members.get("promptVariables"):
        raise refuse("promptVariables needs the ARN of a prompt in modelId: this is a model's.")
    messages = parse_messages(members.get("messages", ()), members.get("system") or ())
    config = cast(InferenceConfig, members.get("inferenceConfig") or {})
    return InferenceRequest(
        messages=messages,
        tools=parse_tool_config(members.get("toolConfig"), messages),
        json_schema=_parse_output_config(members.get("outputConfig") or {}),
        inference_config=config,
        top_k=_parse_more_fields(members.get("additionalModelRequestFields") or {}),
    )


def parse_messages(messages: Sequence[Any], system: Sequence[Any]) -> tuple[Message, ...]:
    """Return the turns in Converse's blocks, the system message first. Raises ServiceError."""
    roles = [str(message["role"]) for message in messages]
    _require_user_first([role for role in roles if role != "system"])
    contents = [_content(message["content"]) for message in messages]
    turns = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
    texts = _content(system)
    if not isinstance(texts, str):
        raise unsupported_block(_first_kind(system))
    return ({"role": "system", "content": texts}, *turns) if system else tuple(turns)


def _require_user_first(roles: Sequence[str]) -> None:
    """Raise ServiceError for a conversation that the user does not begin."""
    if not roles or roles[0] != "user":
        raise refuse(
            "A conversation must start with a user message. Try again with a conversation that"
            " starts with a user message."
        )


def _content(blocks: Sequence[Block]) -> str | list[Block]:
    """Return blocks as one text if they are texts, else as they are, without cache points."""
    kept = [block for block in blocks if CACHE_POINT not in block]
    for block in kept:
        if not TAKEN_BLOCKS & block.keys():
            raise unsupported_block(_first_kind([block]))
        for part in block.get("toolResult", {}).get("content", ()):
            if not {"text", "json"} & part.keys():
                raise unsupported_block(_first_kind([part]))
    if all("text" in block for block in kept):
        return "\n".join(block["text"] for block in kept)
    return kept


def _first_kind(blocks: Iterable[Block]) -> str:
    return str(next((kind for block in blocks for kind in block if kind != "text"), "empty"))


def _parse_output_config(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the JSON schema in `outputConfig`; None without one. Raises ServiceError."""
    if config.get("effort") is not None:
        raise unsupported_field("outputConfig.effort")
    text_format = config.get("textFormat")
    if text_format is None:
        return None
    return parse_schema_text(text_format["structure"]["jsonSchema"]["schema"])


def parse_schema_text(text: str) -> Mapping[str, Any]:
    """Return the JSON schema that a text is. Raises ServiceError."""
    try:
        schema = load_json(text.encode())
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise refuse("outputConfig.textFormat.structure.jsonSchema.schema is no JSON object.")
    return schema


def parse_tool_config(config: Any, messages: Sequence[Message]) -> ToolUse:
    """Return the tools in Converse's `toolConfig`, which calls in the messages need.

    Raises ServiceError.
    """
    if not config:
        if block_kinds(messages) & {"toolUse", "toolResult"}:
            raise refuse(
                "The toolConfig field must be defined when using toolUse and toolResult content"
                " blocks."
            )
        return ToolUse()
    return parse_tools(config)


def parse_tools(config: Mapping[str, Any]) -> ToolUse:
    """Return the tools in Converse's `toolConfig`, and their choice. Raises ServiceError."""
    tools = [tool for tool in config["tools"] if CACHE_POINT not in tool]
    for tool in tools:
        if "toolSpec" not in tool:
            raise unsupported_field(f"toolConfig.tools.{_first_kind([tool])}")
    specs = [tool["toolSpec"] for tool in tools]
    names = [spec["name"] for spec in specs]
    strict = frozenset(spec["name"] for spec in specs if spec.get("strict"))
    # A chat template knows no strictness.
    shown = [{"toolSpec": {k: v for k, v in spec.items() if k != "strict"}} for spec in specs]
    return ToolUse({"tools": shown}, _forced_tools(config.get("toolChoice") or {}, names), strict)


def _forced_tools(choice: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the tools of which one must be called; none where the model chooses."""
    for kind, value in choice.items():
        if kind == "any":
            return tuple(names)
        if kind == "tool":
            if value["name"] not in names:
                raise refuse(f"toolConfig.toolChoice.tool.name: there is no tool {value['name']}.")
            return (value["name"],)
        if kind != "auto":
            raise unsupported_field(f"toolConfig.toolChoice.{kind}")
    return ()


TOP_K_NAMES = ("top_k", "topK")
"""What Claude and Nova call the limit of likeliest tokens, which Converse has no member for."""


def _parse_more_fields(fields: object) -> int:
    """Return the `top_k` in `additionalModelRequestFields`. Raises ServiceError for other fields.

    Nova has it in an `inferenceConfig` (Nova user guide, "Complete request schema").
    """
    if not isinstance(fields, Mapping):  # a document: any JSON value
        raise refuse("additionalModelRequestFields is no JSON object")
    inner = fields.get("inferenceConfig")
    given = {k: v for k, v in fields.items() if k != "inferenceConfig"}
    if isinstance(inner, Mapping):
        given |= inner
    unknown = [name for name in given if name not in TOP_K_NAMES]
    if unknown:
        raise refuse(
            "The model returned the following errors: Malformed input request: #: extraneous key"
            f" [{unknown[0]}] is not permitted, please reformat your input and try again."
        )
    return parse_top_k(next(iter(given.values()), None))


def parse_top_k(value: object) -> int:
    """Return a `top_k`, 0 if there is none. Raises ServiceError."""
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= 500:  # Claude's range is the widest
        raise refuse(f"top_k: {str(value)[:100]} is no integer from 0 to 500")
    return value
