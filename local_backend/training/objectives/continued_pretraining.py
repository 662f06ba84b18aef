"""Continued pre-training: loss on every token of raw text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from local_backend.data.chat_messages import Record
from local_backend.data.chat_template import RecordFormat
from local_backend.data.encode import StagedLines, pack_documents
from local_backend.data.examples import EncodedData
from local_backend.data.text_tokens import Segment, text_tokenizer, tokenize_segments
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
        """Return the document as one segment with loss. Special tokens in it are text."""
        literal = text_tokenizer(record_format.tokenizer).literal
        return [(literal.mark(str(record["input"])), True)]

    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the document."""
        return str(record["input"])

    def begin_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Return what the tokenizer itself puts before a text: BOS, if the model has one.

        Models that were trained with it (Llama, Gemma, Mistral) predict badly without it.
        """
        return text_tokenizer(tokenizer).own_marks[0]

    def end_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Return what the tokenizer puts after a text, else EOS, which separates documents."""
        return text_tokenizer(tokenizer).own_marks[1] or [int(tokenizer.eos_token_id)]

    def default_max_length(self, context_length: int) -> int:
        """Return DEFAULT_SEQUENCE_LENGTH, or the model's context if that is shorter."""
        return min(context_length, DEFAULT_SEQUENCE_LENGTH)

    def encode_lines(
        self, lines: StagedLines, record_format: RecordFormat, max_length: int
    ) -> EncodedData:
        """Return the documents whole: `join_blocks` makes sequences of them."""
        tokenizer = record_format.tokenizer
        records = (self.render(record, record_format) for record in lines.records())
        documents = EncodedData([], lines.count)
        for ids, mask in tokenize_segments(records, tokenizer):
            documents.add_document(self.complete(ids, mask, tokenizer)[0])
        return documents

    def join_blocks(self, blocks: Iterable[EncodedData], max_length: int) -> Iterator[EncodedData]:
        """Yield the documents as sequences of `max_length` tokens, the last one shorter."""
        return pack_documents(blocks, max_length)

    def check_encoded(
        self, encoded: EncodedData, file: DataFile, settings: Settings, max_length: int
    ) -> None:
        """Refuse nothing: no token is cut off."""
