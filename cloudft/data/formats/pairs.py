"""A prompt and its answer under two keys, with what belongs to them under further keys.

People's tools have a dozen names for each; every pair of known names is one format here. A record
that has two names of one kind (`answer` and `response`) has two readings: the error has both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from cloudft.data.formats.chat_blocks import parse_tools
from cloudft.data.formats.chat_messages import is_message_list, parse_turns
from cloudft.data.formats.chat_writers import require_texts_only
from cloudft.data.formats.columns_line import columns_line
from cloudft.data.formats.record import (
    BadRecord,
    Block,
    Conversation,
    JsonObject,
    RawRecord,
    Reasoning,
    Record,
    Turn,
)
from cloudft.data.formats.record_format import (
    Keys,
    RecordFormat,
    describe_keys,
    get_text,
    join_pair,
)

PROMPT_KEYS = ("prompt", "input", "instruction", "question", "query", "problem", "user", "human")
COMPLETION_KEYS = (
    "completion",
    "output",
    "answer",
    "response",
    "solution",
    "assistant",
    "sql",
)
SYSTEM_KEYS = ("system", "system_prompt", "system_message")
REASONING_KEYS = ("reasoning", "reasoning_content", "thinking", "Complex_CoT")
CONTEXT_KEYS: Mapping[str, tuple[str, ...]] = {
    "instruction": ("input", "context"),
    "question": ("context",),
    "query": ("context",),
    "prompt": ("context",),
}
"""Keys of a text that the prompt is about, by the prompt's key."""
NAMES = {("prompt", "completion"): "prompt-completion", ("instruction", "output"): "instruction"}
"""Names of formats that are not made of their keys."""


class _PromptCompletion(msgspec.Struct, gc=False):
    prompt: str
    completion: str


class _InputOutput(msgspec.Struct, gc=False):
    input: str
    output: str


_BATCH_RECORDS: Mapping[tuple[str, str], type] = {
    ("prompt", "completion"): _PromptCompletion,
    ("input", "output"): _InputOutput,
}
"""The pairs that are written, too: Bedrock's format for text models, and `data convert`'s."""


def make_pair_format(prompt_key: str, completion_key: str) -> RecordFormat:
    """Return the format of records with a prompt and a completion under these two keys."""
    name = NAMES.get((prompt_key, completion_key), f"{prompt_key}-{completion_key}")
    batch_record = _BATCH_RECORDS.get((prompt_key, completion_key))
    context_keys = CONTEXT_KEYS.get(prompt_key, ())
    return RecordFormat(
        name=name,
        title=f"pairs of {prompt_key!r} and {completion_key!r}",
        keys=Keys(
            (prompt_key, completion_key),
            (*context_keys, *SYSTEM_KEYS, *REASONING_KEYS, "history", "tools"),
        ),
        parse=partial(_parse, name, prompt_key, completion_key, context_keys),
        recognizes=partial(_holds_texts, prompt_key, completion_key),
        describe=partial(_describe, prompt_key, completion_key),
        write=partial(_write, prompt_key, completion_key) if batch_record else None,
        text_keys=(prompt_key, completion_key),
        canonical_columns=pair_columns(prompt_key, completion_key),
        batch_record=batch_record,
    )


def pair_columns(prompt_key: str, completion_key: str) -> dict[str, str]:
    """Return the names in `data.columns` of a pair's keys."""
    further = {
        **dict.fromkeys(SYSTEM_KEYS, "system"),
        **dict.fromkeys(REASONING_KEYS, "reasoning"),
        "history": "history",
        "tools": "tools",
    }
    if prompt_key == "instruction":
        contexts = dict.fromkeys(CONTEXT_KEYS[prompt_key], "input")
        return {"instruction": "instruction", **contexts, completion_key: "output", **further}
    return {prompt_key: "prompt", "context": "context", completion_key: "completion", **further}


def _holds_texts(prompt_key: str, completion_key: str, value: RawRecord) -> bool:
    """Return whether both are texts or numbers: lists are trl's chats, or preference pairs."""
    return not isinstance(value[prompt_key], (list, dict)) and not isinstance(
        value[completion_key], (list, dict)
    )


def _describe(prompt_key: str, completion_key: str, values: Sequence[RawRecord]) -> str:
    further = [
        key
        for key in (*CONTEXT_KEYS.get(prompt_key, ()), *SYSTEM_KEYS, *REASONING_KEYS, "history")
        if any(value.get(key) not in (None, "", []) for value in values)
    ]
    return describe_keys(prompt_key, *further, completion_key)(values)


def _parse(
    name: str,
    prompt_key: str,
    completion_key: str,
    context_keys: Sequence[str],
    value: RawRecord,
) -> Conversation:
    prompt = get_text(value, prompt_key)
    answer = get_text(value, completion_key)
    if len(value) == 2:
        return Conversation(name, (), (Turn("user", (prompt,)), Turn("assistant", (answer,))))
    contexts = [text for key in context_keys if (text := _optional_text(value, key))]
    # An instruction says what to do with the text after it; a question is about the one before it.
    parts = [prompt, *contexts] if prompt_key == "instruction" else [*contexts, prompt]
    systems = [text for key in SYSTEM_KEYS if (text := _optional_text(value, key))]
    if len(systems) > 1:
        raise _two_system_prompts(value, pair_columns(prompt_key, completion_key))
    thoughts = [text for key in REASONING_KEYS if (text := _optional_text(value, key))]
    blocks: list[Block] = [*map(Reasoning, thoughts), answer]
    turns = (
        *_parse_history(value.get("history")),
        Turn("user", ("\n\n".join(parts),)),
        Turn("assistant", tuple(blocks)),
    )
    tools = parse_tools(value.get("tools"), "tools") if "tools" in value else ()
    return Conversation(name, tuple(systems), turns, tools=tools)


def _two_system_prompts(value: RawRecord, names: Mapping[str, str]) -> BadRecord:
    """Return the error, whose fix has a line for each of the system prompts."""
    keys = [key for key in SYSTEM_KEYS if _optional_text(value, key)]
    others = {name: key for key, name in names.items() if key in value and name != "system"}
    lines = [columns_line({**others, "system": key}) for key in keys]
    message = f"two system prompts: {' and '.join(map(repr, keys))}"
    return BadRecord("TwoSystemPrompts", message, " or ".join(lines), keys[1])


def _optional_text(value: RawRecord, key: str) -> str:
    """Return the text at `key`, texts of a list joined; "" if it is missing, null or blank."""
    item = value.get(key)
    if item is None:
        return ""
    if isinstance(item, list) and all(isinstance(part, str) for part in item):
        item = "\n\n".join(item)
    if not isinstance(item, (str, int, float)) or isinstance(item, bool):
        return get_text(value, key)  # raises
    text = str(item)
    return text if text.strip() else ""


def _parse_history(history: object) -> list[Turn]:
    """Return earlier turns: a list of [question, answer] (LLaMA-Factory), or of messages."""
    if history in (None, [], ""):
        return []
    if is_message_list(history):
        return list(parse_turns(history, "history"))
    turns: list[Turn] = []
    for index, pair in enumerate(history if isinstance(history, list) else [history]):
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not is_pair or not all(isinstance(text, str) and text.strip() for text in pair):
            message = f"history[{index}] is no pair of a question and an answer"
            fix = 'write "history": [["question", "answer"], ...]'
            raise BadRecord("WrongHistory", message, fix, f"history[{index}]")
        turns += [Turn("user", (pair[0],)), Turn("assistant", (pair[1],))]
    return turns


def _write(prompt_key: str, completion_key: str, record: Record) -> JsonObject:
    assert isinstance(record, Conversation)
    require_texts_only(record, NAMES.get((prompt_key, completion_key), "input-output"))
    prompt, completion = join_pair(record)
    return {prompt_key: prompt, completion_key: completion}


def _all_pairs() -> tuple[RecordFormat, ...]:
    pairs = [(p, c) for p in PROMPT_KEYS for c in COMPLETION_KEYS]
    # The formats that are written come first, in the order that help texts list them.
    pairs.sort(key=lambda pair: pair not in _BATCH_RECORDS)
    return tuple(make_pair_format(*pair) for pair in pairs)


FORMATS = _all_pairs()
