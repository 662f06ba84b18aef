"""Write turns as messages of OpenAI's form and as those of Bedrock's Converse API."""

from __future__ import annotations

import json

from cloudft.data.formats.record import (
    BadRecord,
    Block,
    Conversation,
    JsonObject,
    Media,
    Reasoning,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
    block_text,
)

FEATURE_NAMES = {
    "tools": "tools and their calls",
    "reasoning": "reasoning",
    "weights": "turns with weight 0",
    "image": "images",
    "video": "videos",
    "document": "documents",
    "audio": "audio",
}
"""What each feature of a record is called in messages."""


def require_texts_only(record: Conversation, target: str) -> None:
    """Raise BadRecord (LosesContent) if a record has more than texts."""
    refuse_features(record, target, frozenset())


def refuse_features(record: Conversation, target: str, allowed: frozenset[str]) -> None:
    """Raise BadRecord (LosesContent) if a record has a feature that format `target` can't hold."""
    for feature in sorted(record.features() - allowed):
        message = f"{FEATURE_NAMES[feature]} do not fit into the format {target}"
        fix = (
            "choose a base model that takes them (an open-weight one for tools and reasoning);"
            " a command keeps them with --to messages or --to converse"
        )
        raise BadRecord("LosesContent", message, fix)


def plain_messages(record: Conversation) -> list[JsonObject]:
    """Return the turns as messages whose content is one text each."""
    return [{"role": turn.role, "content": turn.text} for turn in record.turns]


def openai_messages(record: Conversation) -> list[JsonObject]:
    """Return the turns as messages of OpenAI's form: a message for each tool result.

    Raise BadRecord (LosesContent) for a result that is marked as an error, and for a text after a
    tool call of the same turn: the form has neither.
    """
    messages: list[JsonObject] = []
    for turn in record.turns:
        results = [block for block in turn.content if isinstance(block, ToolResult)]
        if any(result.is_error for result in results):
            message = "a tool result that is marked as an error does not fit into OpenAI's messages"
            fix = "write into its text that it failed, and take the mark out; or keep the format"
            raise BadRecord("LosesContent", message, fix)
        if has_text_after_call(turn):
            message = (
                "a text after a tool call of the same turn does not fit into OpenAI's messages"
            )
            raise BadRecord("LosesContent", message, "put the text before the call")
        messages += [
            {"role": "tool", "tool_call_id": result.id, "content": block_text(result)}
            for result in results
        ]
        if turn.role == "assistant" or turn.texts or not results:
            messages.append(_openai_message(turn))
    return messages


def has_text_after_call(turn: Turn) -> bool:
    """Return whether a turn goes on after its first tool call with anything but calls."""
    is_call = [isinstance(block, ToolCall) for block in turn.content]
    return True in is_call and not all(is_call[is_call.index(True) :])


def _openai_message(turn: Turn) -> JsonObject:
    calls = [block for block in turn.content if isinstance(block, ToolCall)]
    thoughts = [block.text for block in turn.content if isinstance(block, Reasoning)]
    message: JsonObject = {"role": turn.role}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    message["content"] = turn.text if turn.texts or not calls else None
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for call in calls
        ]
    if not turn.is_learned:
        message["weight"] = 0
    return message


def openai_tool(tool: Tool) -> JsonObject:
    """Return a tool in OpenAI's form, which chat templates take."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def converse_message(turn: Turn) -> JsonObject:
    """Return a turn as a message of the Converse API.

    `weight` is no key of it: it is there for open-weight models alone, which are trained here.
    """
    message: JsonObject = {
        "role": turn.role,
        "content": [converse_block(block) for block in turn.content],
    }
    if not turn.is_learned:
        message["weight"] = 0
    return message


def converse_block(block: Block) -> JsonObject:
    """Return a block of the Converse API (botocore 1.44.5, bedrock-runtime, ContentBlock)."""
    if isinstance(block, str):
        return {"text": block}
    if isinstance(block, Reasoning):
        return {"reasoningContent": {"reasoningText": {"text": block.text}}}
    if isinstance(block, ToolCall):
        use = {"toolUseId": block.id, "name": block.name, "input": block.arguments}
        return {"toolUse": use}
    if isinstance(block, Media):
        return block.block
    content = [
        {"text": part} if isinstance(part, str) else {"json": part} for part in block.content
    ]
    result: JsonObject = {"toolUseId": block.id, "content": content}
    if block.is_error:
        result["status"] = "error"
    return {"toolResult": result}


def converse_tool_config(tools: tuple[Tool, ...]) -> JsonObject:
    """Return the Converse API's `toolConfig`."""
    specs = []
    for tool in tools:
        spec: JsonObject = {"name": tool.name}
        if tool.description:
            spec["description"] = tool.description
        specs.append({"toolSpec": {**spec, "inputSchema": {"json": tool.parameters}}})
    return {"tools": specs}
