"""Supervised fine-tuning: loss on the answers of prompts and conversations."""

from __future__ import annotations

from local_backend.data.chat_template import (
    Record,
    RecordFormat,
    Segment,
    render_chat,
    split_turns,
    to_messages,
)
from local_backend.training.objectives.objective import Objective


class FineTuning(Objective):
    """Learn every assistant turn of a conversation."""

    customization_type = "FINE_TUNING"

    def render(self, record: Record, record_format: RecordFormat) -> list[Segment]:
        """Return the conversation as segments, with loss on the assistant's."""
        messages = to_messages(record, record_format.name)
        return split_turns(record_format.tokenizer, messages, record_format.stop_texts)

    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the conversation up to its last answer."""
        messages = to_messages(record, record_format.name)
        return render_chat(record_format.tokenizer, messages[:-1], add_generation_prompt=True)
