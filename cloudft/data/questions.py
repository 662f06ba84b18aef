"""Records of questions: what a teacher answers (distillation) or a grader judges (reinforcement).

Shapes: Bedrock user guide, "Prepare your training datasets for distillation" and "Prepare data for
reinforcement fine-tuning". A labelled record serves too: its answer is the golden one, or the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.data.chat import read_messages
from cloudft.data.record import BadRecord, Document, Graded, Turns, not_blank

DISTILLATION, REINFORCEMENT = "distillation", "reinforcement"
KEY = "reference_answer"
CHAT = {"messages", "system", "schemaVersion"}


def read_question(value: Mapping[str, Any], target: str) -> Turns | None:
    """The question that a record of such a target asks; None for a shape that others read."""
    if target == DISTILLATION and set(value) == {"prompt"} and isinstance(value["prompt"], str):
        return Turns("prompt", (), (("user", (not_blank(value["prompt"], "'prompt'", "prompt"),)),))
    if target == DISTILLATION and "messages" in value and set(value) <= CHAT:
        return read_messages(value, open_end=True)
    if target == REINFORCEMENT and "messages" in value:
        return _graded(value)
    return None


def _graded(value: Mapping[str, Any]) -> Graded:
    if KEY not in value:
        fix = f'add "{KEY}": what the grader compares the answers with'
        raise BadRecord("WrongKeys", f"the record has no {KEY!r}", fix, KEY)
    turns = read_messages({"messages": value["messages"]}, open_end=True)
    if turns.turns[-1][0] != "user":
        message = "the last turn is the assistant's: the model itself is to answer"
        raise BadRecord("BadTurns", message, f"move that answer into {KEY!r}", "messages")
    more = {name: item for name, item in value.items() if name not in ("messages", KEY)}
    return Graded("graded", turns.system, turns.turns, value[KEY], more)


def graded(record: Turns | Document) -> Graded:
    """A record as a graded question: a labelled one gives its answer as the key."""
    if isinstance(record, Graded):
        return record
    assert isinstance(record, Turns)
    *asked, (_, answered) = record.turns
    return Graded(record.shape, record.system, tuple(asked), "\n".join(answered), {})
