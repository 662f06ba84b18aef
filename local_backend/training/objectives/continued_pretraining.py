"""Continued pre-training: loss on every token of raw text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local_backend.data.chat_messages import Record
from local_backend.data.chat_template import RecordFormat, Segment
from local_backend.data.encode import pack_documents
from local_backend.data.examples import EncodedData
from local_backend.settings import DataFile, Settings
from local_backend.training.objectives.objective import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_SEQUENCE_LENGTH = 1024
"""Default length of packed sequences: long enough to learn from, short enough for a CPU."""


class ContinuedPreTraining(Objective):
    """Learn documents, packed into sequences of equal length."""

    customization_type = "CONTINUED_PRE_TRAINING"

    def render(self, record: Record, record_format: RecordFormat) -> list[Segment]:
        """Return the document as one segment with loss."""
        return [(str(record["input"]), True)]

    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the document."""
        return str(record["input"])

    def end_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Return the end token, which separates documents in a sequence."""
        return [int(tokenizer.eos_token_id)]

    def default_max_length(self, context_length: int) -> int:
        """Return DEFAULT_SEQUENCE_LENGTH, or the model's context if that is shorter."""
        return min(context_length, DEFAULT_SEQUENCE_LENGTH)

    def encode(
        self, file: DataFile, settings: Settings, record_format: RecordFormat, max_length: int
    ) -> EncodedData:
        """Return the documents as sequences of `max_length` tokens, the last one shorter."""
        end_tokens = self.end_tokens(record_format.tokenizer)
        return pack_documents(
            file,
            lambda record: self.render(record, record_format),
            record_format.tokenizer,
            end_tokens,
            max_length,
        )
