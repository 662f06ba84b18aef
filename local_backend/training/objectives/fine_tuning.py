"""Supervised fine-tuning: loss on the answers of prompts and conversations."""

from __future__ import annotations

from local_backend.data.chat_messages import Record, to_chat
from local_backend.data.chat_template import RecordFormat, render_prompt, split_turns
from local_backend.data.text_tokens import Segment
from local_backend.training.objectives.objective import Objective


class FineTuning(Objective):
    """Learn every assistant turn of a conversation, tool calls and reasoning included."""

    customization_type = "FINE_TUNING"

    def render(self, record: Record, record_format: RecordFormat) -> list[Segment]:
        """Return the conversation as segments, with loss on the assistant's learned turns."""
        chat = to_chat(record, record_format.name)
        segments = split_turns(record_format.tokenizer, chat, record_format.stop_texts)
        if sum(has_loss for _, has_loss in segments) < chat.learned_count:
            record_format.last_turn_only += 1
        return segments

    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the conversation up to its last answer."""
        chat = to_chat(record, record_format.name)
        return render_prompt(record_format.tokenizer, chat.up_to(len(chat.messages) - 1))
