"""Prompts whose answers a grader judges: `messages`, and the reference answer for the grader.

Bedrock user guide, "Prepare data for reinforcement fine-tuning". Labeled records serve too: their
answer becomes the reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from cloudft.data.formats import messages
from cloudft.data.formats.chat_messages import is_message_list, parse_messages
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    JsonObject,
    PromptWithReference,
    RawRecord,
    Record,
)
from cloudft.data.formats.record_format import Keys, RecordFormat, describe_keys

NAME, PROMPT_NAME, VERL_NAME = "reinforcement", "prompt-chat", "verl"
REFERENCE_KEY = "reference_answer"
CHAT_KEYS = ("messages", "system", "tools", "schemaVersion", REFERENCE_KEY)


def parse_unanswered(value: RawRecord) -> PromptWithReference | None:
    """Parse messages with or without a reference answer, or verl's prompt; None for other records.

    Keys besides these are kept: the grader gets them. AWS's guide calls the reference optional: a
    grader may use any other field.
    """
    if _is_verl(value):
        return _parse_verl(value)
    name = NAME
    if _is_prompt_alone(value):
        name = PROMPT_NAME
        value = {("messages" if key == "prompt" else key): item for key, item in value.items()}
    if value.get("messages") is None:
        return None
    chat = {key: value[key] for key in CHAT_KEYS if key in value}
    parsed = parse_messages(chat, NAME, allow_open_end=True)
    if parsed.turns[-1].role != "user":
        if REFERENCE_KEY not in value:
            return None  # a labeled record: its answer becomes the reference
        message = "the last turn is the assistant's, but the model itself is to answer"
        raise BadRecord("BadTurns", message, f"move that answer into {REFERENCE_KEY!r}", "messages")
    extra = {key: item for key, item in value.items() if key not in CHAT_KEYS}
    reference = value.get(REFERENCE_KEY)
    if reference in ("", {}, []) or (isinstance(reference, str) and not reference.strip()):
        reference = None  # an empty reference is none: Amazon's validator refuses it
    return PromptWithReference(
        name, parsed.system, parsed.turns, reference, extra, tools=parsed.tools
    )


def _is_verl(value: RawRecord) -> bool:
    """Return whether a record is verl's: a prompt of messages, and a reward model beside it."""
    return isinstance(value.get("prompt"), list) and isinstance(value.get("reward_model"), Mapping)


def _is_prompt_alone(value: RawRecord) -> bool:
    """Return whether a record is a prompt of messages without an answer, as trl's graders take."""
    return (
        isinstance(value.get("prompt"), list)
        and is_message_list(value["prompt"])
        and not {"messages", "completion", "chosen", "rejected"} & set(value)
    )


def _parse_verl(value: RawRecord) -> PromptWithReference:
    reward = value["reward_model"]
    assert isinstance(reward, Mapping)
    parsed = parse_messages({"messages": value["prompt"]}, NAME, allow_open_end=True)
    extra = {key: item for key, item in value.items() if key != "prompt" and item is not None}
    return PromptWithReference(
        VERL_NAME, parsed.system, parsed.turns, reward.get("ground_truth"), extra
    )


def refuse(value: RawRecord) -> Conversation:
    """Raise BadRecord (WrongTask): no answer to learn, but one to grade by."""
    raise BadRecord(
        "WrongTask",
        "records for reinforcement: a prompt, and what a grader compares answers with",
        "set customization_type: REINFORCEMENT_FINE_TUNING, and a base_model that has it: cloudft"
        " models lists them",
        REFERENCE_KEY if REFERENCE_KEY in value else None,
    )


def to_prompt_with_reference(record: Record) -> PromptWithReference:
    """Return a record as a prompt with its reference: a labeled record's answer becomes that."""
    if isinstance(record, PromptWithReference):
        return record
    assert isinstance(record, Conversation)
    *question, _ = record.turns
    return PromptWithReference(record.format, record.system, tuple(question), record.answer, {})


def write(record: Record) -> JsonObject:
    """Return messages, the reference answer, and what else the grader gets."""
    prompt = to_prompt_with_reference(record)
    value = messages.write(prompt)
    if prompt.reference is not None:
        value[REFERENCE_KEY] = prompt.reference
    return {**value, **prompt.extra_fields}


FORMAT = RecordFormat(
    name=NAME,
    title="reinforcement records",
    keys=Keys(("messages", REFERENCE_KEY), ("system", "tools", "schemaVersion")),
    parse=refuse,
    describe=messages.describe,
    write=write,
    parse_unanswered=parse_unanswered,
    is_trained_on=False,
    is_convert_target=False,
)
PROMPT_FORMAT = RecordFormat(
    name=PROMPT_NAME,
    title="prompts without answers",
    keys=Keys(("prompt",), ("tools", "ground_truth", "solution", "answer", REFERENCE_KEY)),
    parse=refuse,
    recognizes=_is_prompt_alone,
    describe=describe_keys("prompt"),
    is_trained_on=False,
)
VERL_FORMAT = RecordFormat(
    name=VERL_NAME,
    title="verl's reinforcement records",
    keys=Keys(("prompt", "reward_model"), ("data_source", "ability", "extra_info")),
    parse=refuse,
    recognizes=_is_verl,
    describe=describe_keys("prompt", "reward_model"),
    is_trained_on=False,
)
