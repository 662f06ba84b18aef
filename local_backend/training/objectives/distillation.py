"""Distillation: supervised fine-tuning on the answers of a teacher (training/teacher.py)."""

from __future__ import annotations

from local_backend.data.chat_messages import Record, to_chat
from local_backend.data.chat_template import RecordFormat, render_prompt, split_prompt
from local_backend.data.text_tokens import Segment
from local_backend.training.objectives.fine_tuning import FineTuning


class Distillation(FineTuning):
    """Learn the last answer of each record, as supervised fine-tuning does."""

    customization_type = "DISTILLATION"

    def render(self, record: Record, record_format: RecordFormat) -> list[Segment]:
        """Return the conversation as segments; a prompt without an answer has no loss."""
        chat = to_chat(record, record_format.name)
        if chat.messages[-1]["role"] == "assistant":
            return super().render(record, record_format)
        texts = split_prompt(record_format.tokenizer, chat, record_format.stop_texts)
        return [(text, False) for text in texts]

    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the conversation up to its last answer, or whole where the teacher gives it."""
        chat = to_chat(record, record_format.name)
        is_answered = chat.messages[-1]["role"] == "assistant"
        end = len(chat.messages) - is_answered
        return render_prompt(record_format.tokenizer, chat.up_to(end))
