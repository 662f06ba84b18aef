"""The prompts of a reinforcement job: their tokens, and what the grader gets beside the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local_backend.data.chat_messages import Chat, JsonObject, Record
from local_backend.data.chat_template import RecordFormat, split_prompt
from local_backend.data.encode import read_records
from local_backend.data.examples import EncodedData, Example
from local_backend.data.text_tokens import Segment, tokenize_segments
from local_backend.errors import TrainerError
from local_backend.grading.shapes import NOT_METADATA
from local_backend.settings import DataFile, Reinforcement, Settings


@dataclass(frozen=True, kw_only=True)
class PromptExample(Example):
    """A prompt that awaits its answers. `ids` are its tokens, and none of them has loss."""

    name: str
    """The record's file and line: an error of the grader names them."""
    messages: tuple[JsonObject, ...]
    metadata: Mapping[str, object]


def to_prompt_chat(record: Record) -> Chat:
    """Return the prompt of a staged record (OpenAI's messages) as a chat."""
    messages = record["messages"]
    assert isinstance(messages, list)
    tools = record.get("tools") or []
    assert isinstance(tools, list)
    return Chat([_to_message(message) for message in messages], tools)


def _to_message(message: JsonObject) -> JsonObject:
    """Return a message of OpenAI's form as templates take it: a call's arguments as an object."""
    kept = {key: value for key, value in message.items() if key != "weight"}
    kept["content"] = message.get("content") or ""
    if message.get("tool_calls"):
        kept["tool_calls"] = [_to_call(call) for call in message["tool_calls"]]
    return kept


def _to_call(call: JsonObject) -> JsonObject:
    function = call["function"]
    arguments = function["arguments"]
    read = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {**call, "function": {**function, "arguments": read}}


def render_segments(record: Record, record_format: RecordFormat) -> list[Segment]:
    """Return a record's prompt as segments without loss."""
    chat = to_prompt_chat(record)
    texts = split_prompt(record_format.tokenizer, chat, record_format.stop_texts)
    return [(text, False) for text in texts]


def encode_prompts(
    file: DataFile, settings: Settings, record_format: RecordFormat, max_length: int
) -> EncodedData:
    """Return the prompts of a staged file. Those that are too long are left out and counted.

    Raise TrainerError if their share is above `max_truncated_share`.
    """
    reinforcement = settings.reinforcement
    assert reinforcement is not None
    longest = longest_prompt(reinforcement, max_length)
    encoded = EncodedData([], file.records)
    segments = _render_all(file.path, record_format)
    tokenized = tokenize_segments(segments, record_format.tokenizer)
    for line, (record, (ids, _)) in enumerate(
        zip(read_records(file.path), tokenized, strict=True), start=1
    ):
        encoded.longest = max(encoded.longest, len(ids))
        if len(ids) > longest:
            encoded.truncated += 1
            continue
        example = _make_prompt(record, ids, f"{file.path.name}:{line}")
        encoded.append(example)
    _check_length(encoded, file.path.name, settings, longest)
    return encoded


def longest_prompt(reinforcement: Reinforcement, context: int) -> int:
    """Return how many tokens a prompt may have. Raise TrainerError if none leaves room."""
    room = context - reinforcement.max_new_tokens
    if room < 1:
        raise TrainerError(
            f"inferenceMaxTokens is {reinforcement.max_new_tokens}, and {context} tokens are all"
            " that prompt and answer may have together.",
            fix=f"set it below {context}, or raise local.max_length.",
        )
    named = reinforcement.max_prompt_length
    return room if named is None else min(named, room)


def _make_prompt(record: Record, ids: list[int], place: str) -> PromptExample:
    messages = record["messages"]
    assert isinstance(messages, list)
    return PromptExample(
        np.array(ids, dtype=np.int32),
        np.zeros(len(ids), dtype=bool),
        name=place,
        messages=tuple(messages),
        metadata={key: value for key, value in record.items() if key not in NOT_METADATA},
    )


def _render_all(path: Path, record_format: RecordFormat) -> Iterator[list[Segment]]:
    """Yield the text of each prompt. Raise TrainerError with the line of one that is refused."""
    for line, record in enumerate(read_records(path), start=1):
        try:
            yield render_segments(record, record_format)
        except TrainerError as error:
            raise TrainerError(
                f"{path.name}, line {line}: {error.message}", fix=error.fix
            ) from error


def _check_length(encoded: EncodedData, name: str, settings: Settings, longest: int) -> None:
    too_many = encoded.truncated > settings.max_truncated_share * encoded.records
    if encoded.examples and not too_many:
        return
    raise TrainerError(
        f"{encoded.truncated} of {encoded.records} prompts of {name} are longer than {longest}"
        " tokens and would be left out; the allowed share is"
        f" {settings.max_truncated_share:g} (local.max_truncated_share).",
        fix=f"raise maxPromptLength (the longest prompt has {encoded.longest} tokens), lower"
        " inferenceMaxTokens, shorten the prompts, or raise local.max_truncated_share.",
    )
