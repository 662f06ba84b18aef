"""Records of questions: what a teacher answers (distillation) or a grader judges (reinforcement).

Shapes: Bedrock user guide, "Prepare your training datasets for distillation" and "Prepare data for
reinforcement fine-tuning". A labelled record serves too: its answer is the golden one, or the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.data.formats.chat_messages import parse_messages
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    Document,
    PromptWithReference,
    require_text,
)

DISTILLATION, REINFORCEMENT = "distillation", "reinforcement"
REFERENCE_KEY = "reference_answer"
CHAT_KEYS = {"messages", "system", "schemaVersion"}


def parse_prompt_only(value: Mapping[str, Any], target: str) -> Conversation | None:
    """The question that a record of such a target asks; None for a shape that others read."""
    if target == DISTILLATION and set(value) == {"prompt"} and isinstance(value["prompt"], str):
        return Conversation(
            "prompt", (), (("user", (require_text(value["prompt"], "'prompt'", "prompt"),)),)
        )
    if target == DISTILLATION and "messages" in value and set(value) <= CHAT_KEYS:
        return parse_messages(value, allow_open_end=True)
    if target == REINFORCEMENT and "messages" in value:
        return _graded(value)
    return None


def _graded(value: Mapping[str, Any]) -> PromptWithReference:
    if REFERENCE_KEY not in value:
        fix = f'add "{REFERENCE_KEY}": what the grader compares the answers with'
        raise BadRecord("WrongKeys", f"the record has no {REFERENCE_KEY!r}", fix, REFERENCE_KEY)
    turns = parse_messages({"messages": value["messages"]}, allow_open_end=True)
    if turns.turns[-1][0] != "user":
        message = "the last turn is the assistant's: the model itself is to answer"
        raise BadRecord("BadTurns", message, f"move that answer into {REFERENCE_KEY!r}", "messages")
    more = {name: item for name, item in value.items() if name not in ("messages", REFERENCE_KEY)}
    return PromptWithReference("graded", turns.system, turns.turns, value[REFERENCE_KEY], more)


def to_prompt_with_reference(record: Conversation | Document) -> PromptWithReference:
    """A record as a graded question: a labelled one gives its answer as the key."""
    if isinstance(record, PromptWithReference):
        return record
    assert isinstance(record, Conversation)
    *asked, (_, answered) = record.turns
    return PromptWithReference(record.format, record.system, tuple(asked), "\n".join(answered), {})
