"""Prompts whose answers a grader judges: `messages`, and the reference answer for the grader.

Bedrock user guide, "Prepare data for reinforcement fine-tuning". Labeled records serve too: their
answer becomes the reference.
"""

from __future__ import annotations

from cloudft.data.formats import messages
from cloudft.data.formats.chat_messages import parse_messages
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    JsonObject,
    PromptWithReference,
    RawRecord,
    Record,
)
from cloudft.data.formats.record_format import Keys, RecordFormat

NAME = "reinforcement"
REFERENCE_KEY = "reference_answer"


def parse_unanswered(value: RawRecord) -> PromptWithReference | None:
    """Parse messages with a reference answer; None for records without messages.

    Keys besides these are kept: the grader gets them.
    """
    if "messages" not in value:
        return None
    if REFERENCE_KEY not in value:
        fix = f'add "{REFERENCE_KEY}": what the grader compares the answers with'
        raise BadRecord("WrongKeys", f"the record has no {REFERENCE_KEY!r}", fix, REFERENCE_KEY)
    parsed = parse_messages({"messages": value["messages"]}, NAME, allow_open_end=True)
    if parsed.turns[-1][0] != "user":
        message = "the last turn is the assistant's, but the model itself is to answer"
        raise BadRecord("BadTurns", message, f"move that answer into {REFERENCE_KEY!r}", "messages")
    extra = {key: item for key, item in value.items() if key not in ("messages", REFERENCE_KEY)}
    return PromptWithReference("graded", parsed.system, parsed.turns, value[REFERENCE_KEY], extra)


def to_prompt_with_reference(record: Record) -> PromptWithReference:
    """Return a record as a prompt with its reference: a labeled record's answer becomes that."""
    if isinstance(record, PromptWithReference):
        return record
    assert isinstance(record, Conversation)
    *question, (_, answer) = record.turns
    return PromptWithReference(record.format, record.system, tuple(question), "\n".join(answer), {})


def write(record: Record) -> JsonObject:
    """Return messages, the reference answer, and what else the grader gets."""
    prompt = to_prompt_with_reference(record)
    return {
        **messages.write(prompt),
        REFERENCE_KEY: prompt.reference,
        **prompt.extra_fields,
    }


FORMAT = RecordFormat(
    name=NAME,
    keys=Keys(("messages", REFERENCE_KEY)),
    parse=None,
    describe=messages.describe,
    write=write,
    parse_unanswered=parse_unanswered,
    is_convert_target=False,
)
