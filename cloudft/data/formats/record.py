"""What a record says, whatever format it came in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from cloudft.types import Severity

RawRecord = Mapping[str, object]
"""One record as it was read: a JSON object, or a row of a table by its column names."""
JsonObject = dict[str, object]


class BadRecord(Exception):
    """One record that can't be used: code, message, remedy, and a JSON pointer to the field."""

    severity: Severity = "error"

    def __init__(self, code: str, message: str, fix: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.fix = code, message, fix
        self.field = None if field is None else _to_pointer(field)


class OmittedRecord(BadRecord):
    """A record that is left out on a warning: there is nothing in it to learn."""

    severity: Severity = "warning"


_NESTED = re.compile(r"\w+(\[\d+\]|\.\w+)+")
_PATH = re.compile(r"\w+")


def _to_pointer(field: str) -> str:
    """Return the JSON pointer of `messages[0].content`, as messages write it, or of a plain key."""
    if _NESTED.fullmatch(field):
        return json_pointer(*_PATH.findall(field))
    return json_pointer(field)


def json_pointer(*keys: str | int) -> str:
    """Return the JSON pointer (RFC 6901) to a field within a record: /messages/0/content."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


@dataclass(frozen=True)
class Reasoning:
    """What an assistant thought before it answered (`reasoning_content`, `reasoningContent`)."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A tool that an assistant called, with its arguments. `id` is "" where the record has none."""

    id: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True)
class ToolResult:
    """What a tool returned: texts and JSON values. `id` is that of the call, "" if unknown."""

    id: str
    content: tuple[str | JsonObject, ...]
    name: str = ""
    is_error: bool = False


@dataclass(frozen=True)
class Media:
    """A picture, video, document or sound within a turn.

    `block` is the block of Bedrock's Converse API that holds it, or the block or value that the
    record has where Converse knows none.
    """

    kind: Literal["image", "video", "document", "audio"]
    block: JsonObject


Block = str | Reasoning | ToolCall | ToolResult | Media
"""A part of a turn; a text is a plain string."""
Feature = Literal["tools", "reasoning", "weights", "image", "video", "document", "audio"]
"""What a record may have besides texts, and not every model can be trained on."""


class Turn(NamedTuple):
    """What one side says. `role` is `user` or `assistant`; a user's turn also has tool results.

    `is_learned` is False for an assistant's turn that is context only (OpenAI's `weight: 0`).
    """

    role: str
    content: tuple[Block, ...]
    is_learned: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts, without reasoning, tools and media."""
        return tuple([block for block in self.content if isinstance(block, str)])

    @property
    def text(self) -> str:
        """Return the texts as one."""
        return "\n".join(self.texts)

    @property
    def all_texts(self) -> tuple[str, ...]:
        """Return each block as text: what a model reads of it, tool calls and results as JSON."""
        return tuple([block if isinstance(block, str) else block_text(block) for block in self[1]])


def block_text(block: Block) -> str:
    """Return a block as text: tool calls, results and media as JSON."""
    if isinstance(block, str):
        return block
    if isinstance(block, Reasoning):
        return block.text
    if isinstance(block, ToolCall):
        return _dump({"name": block.name, "arguments": block.arguments})
    if isinstance(block, ToolResult):
        parts = [
            p if isinstance(p, str) else json.dumps(p, ensure_ascii=False) for p in block.content
        ]
        return "\n".join(parts)
    return _dump(block.block)


def join_answer(text: str, calls: Sequence[ToolCall]) -> str:
    """Return an answer as text: its text, then its tool calls as a JSON object or a list."""
    values = [{"name": call.name, "arguments": call.arguments} for call in calls]
    if not values:
        return text
    dumped = json.dumps(values if len(values) > 1 else values[0], ensure_ascii=False)
    return f"{text}\n{dumped}" if text else dumped


def _dump(value: JsonObject) -> str:
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Tool:
    """A tool that an assistant may call. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject


@dataclass(frozen=True)
class Conversation:
    """A conversation: the system prompt's texts, the turns, and the tools that may be called."""

    format: str
    system: tuple[str, ...]
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = field(default=(), kw_only=True)
    left_out: tuple[str, ...] = field(default=(), kw_only=True)
    """Keys that say nothing to a model and were left out: `id`, `message.timestamp`."""

    @property
    def answer(self) -> str:
        """Return what the last turn answers: its texts, and its tool calls as JSON.

        One call is an object, several are a list. Reasoning is no part of the answer.
        """
        turn = self.turns[-1]
        return join_answer(turn.text, [b for b in turn.content if isinstance(b, ToolCall)])

    @property
    def all_turns(self) -> tuple[Turn, ...]:
        """Return every turn of the record, a worse answer's as well."""
        return self.turns

    def features(self) -> set[Feature]:
        """Return what the conversation has besides texts."""
        found: set[Feature] = {"tools"} if self.tools else set()
        for _, content, is_learned in self.all_turns:
            if not is_learned:
                found.add("weights")
            for block in content:
                if not isinstance(block, str):
                    found.add(_feature_of(block))
        return found


def _feature_of(block: Reasoning | ToolCall | ToolResult | Media) -> Feature:
    if isinstance(block, Media):
        return block.kind
    return "reasoning" if isinstance(block, Reasoning) else "tools"


@dataclass(frozen=True)
class PromptWithReference(Conversation):
    """A prompt with the reference for its answer. The grader gets both and `extra_fields`."""

    reference: object
    extra_fields: RawRecord


@dataclass(frozen=True, kw_only=True)
class PreferencePair(Conversation):
    """A conversation that ends with the better answer, and the turns of the worse one.

    The first `prompt_length` turns are what both answer.
    """

    rejected: tuple[Turn, ...]
    prompt_length: int

    @property
    def all_turns(self) -> tuple[Turn, ...]:
        """Return the turns of the prompt, of the better answer and of the worse one."""
        return (*self.turns, *self.rejected)

    def answers(self) -> tuple[str, str]:
        """Return the better and the worse answer, each as one text."""
        better = self.turns[self.prompt_length :]
        return _join_turns(better), _join_turns(self.rejected)


def _join_turns(turns: Sequence[Turn]) -> str:
    return "\n".join([text for turn in turns for text in turn.all_texts])


@dataclass(frozen=True)
class Document:
    """A text without labels, for continued pre-training."""

    format: str
    text: str
    left_out: tuple[str, ...] = field(default=(), kw_only=True)
    """Keys that say nothing to a model and were left out, as in Conversation."""


Record = Conversation | Document


def require_text(text: str, what: str, field: str) -> str:
    """Return the text. Raises BadRecord (EmptyField) if it is empty or blank."""
    if not text.strip():
        fix = "give it text, or take the record out"
        raise BadRecord("EmptyField", f"{what} is empty", fix, field)
    return text
