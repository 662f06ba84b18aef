"""Convert staged records to chats: the messages and tools that chat templates take.

The form is transformers' ("Tool use", "Chat templates"): an assistant's `tool_calls` with arguments
as an object, its `reasoning_content`, and a message of the role `tool` for each result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, cast

from local_backend.errors import TrainerError

Record = Mapping[str, object]
"""A canonical record, as JSON has it."""
JsonObject = dict[str, Any]
Message = dict[str, Any]
"""A chat message: `role`, `content`, and the keys of tools and reasoning that templates read."""


@dataclass(frozen=True)
class Chat:
    """A conversation for a chat template.

    `unlearned` are the positions of assistant messages without loss. `mixes_calls` is True if a
    text follows a tool call in one turn, which no template can render.
    """

    messages: Sequence[Message]
    tools: Sequence[JsonObject] = ()
    unlearned: frozenset[int] = frozenset()
    mixes_calls: bool = False

    def up_to(self, end: int) -> Chat:
        """Return the chat of the first `end` messages."""
        return replace(self, messages=self.messages[:end])

    def is_learned(self, index: int) -> bool:
        """Return whether the message at `index` carries loss."""
        return self.messages[index]["role"] == "assistant" and index not in self.unlearned

    @property
    def learned_count(self) -> int:
        """Return how many messages carry loss."""
        return sum(map(self.is_learned, range(len(self.messages))))


class Turn(TypedDict, total=False):
    """A message of Bedrock's Converse API; its content is a text or a list of blocks.

    `weight` 0 marks a turn without loss.
    """

    role: str
    content: str | list[JsonObject]
    weight: int


class Conversation(TypedDict, total=False):
    """A canonical supervised record in the format `converse`, or a prompt of such turns."""

    system: list[JsonObject]
    messages: list[Turn]
    toolConfig: JsonObject


def to_chat(record: Record, format_name: str) -> Chat:
    """Return a canonical supervised record as a chat, the system message first.

    Raise TrainerError for content that no chat template takes.
    """
    if format_name == "prompt-completion":
        return Chat(
            [
                {"role": "user", "content": str(record["prompt"])},
                {"role": "assistant", "content": str(record["completion"])},
            ]
        )
    conversation = cast(Conversation, record)
    system = "\n".join(block["text"] for block in conversation.get("system") or [])
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    unlearned = set()
    names: dict[str, str] = {}
    mixes_calls = False
    for turn in conversation["messages"]:
        content = turn["content"]
        if isinstance(content, str):
            messages.append({"role": turn["role"], "content": content})
        else:
            messages += _convert_turn(turn["role"], content, names)
            mixes_calls = mixes_calls or _has_text_after_call(content)
        if turn.get("weight") == 0:
            unlearned.add(len(messages) - 1)
    tools = _convert_tools(conversation.get("toolConfig") or {})
    return Chat(messages, tools, frozenset(unlearned), mixes_calls)


def _convert_turn(
    role: str, blocks: Sequence[JsonObject], names: dict[str, str]
) -> Iterator[Message]:
    """Yield a turn's messages: its tool results first, which templates have after their calls.

    `names` maps a call's id to the name of its tool, for the results.
    """
    texts, thoughts, calls, has_results = [], [], [], False
    for block in blocks:
        if "toolResult" in block:
            has_results = True
            yield _convert_result(block["toolResult"], names)
        elif "toolUse" in block:
            calls.append(_convert_call(block["toolUse"]))
            names[block["toolUse"]["toolUseId"]] = block["toolUse"]["name"]
        elif "reasoningContent" in block:
            thoughts.append(block["reasoningContent"]["reasoningText"]["text"])
        elif "text" in block:
            texts.append(block["text"])
        else:
            raise TrainerError(
                f"A record has a block of type {next(iter(block), '?')!r}, which language models"
                " without vision can't be trained on.",
                fix="leave out records with such blocks.",
            )
    if has_results and not texts:
        return
    message: Message = {"role": role, "content": "\n".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    yield message


def _convert_call(use: JsonObject) -> JsonObject:
    function = {"name": use["name"], "arguments": use["input"]}
    return {"id": use["toolUseId"], "type": "function", "function": function}


def _convert_result(result: JsonObject, names: Mapping[str, str]) -> Message:
    """Return a result as a message; one of status `error` begins with "Error: "."""
    parts = [
        part["text"] if "text" in part else json.dumps(part["json"], ensure_ascii=False)
        for part in result["content"]
    ]
    identifier = result["toolUseId"]
    prefix = "Error: " if result.get("status") == "error" else ""
    return {
        "role": "tool",
        "tool_call_id": identifier,
        "name": names.get(identifier, ""),
        "content": prefix + "\n".join(parts),
    }


def _has_text_after_call(blocks: Sequence[JsonObject]) -> bool:
    kinds = ["toolUse" in block for block in blocks]
    return True in kinds and not all(kinds[kinds.index(True) :])


def _convert_tools(config: JsonObject) -> list[JsonObject]:
    """Return Converse's `toolConfig` as the list of functions that templates take."""
    return [
        {
            "type": "function",
            "function": {
                "name": spec["name"],
                "description": spec.get("description", ""),
                "parameters": spec["inputSchema"]["json"],
            },
        }
        for tool in config.get("tools", ())
        for spec in [tool["toolSpec"]]
    ]
