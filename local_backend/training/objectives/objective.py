"""What a training objective defines: its examples, its loss, its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from local_backend.data.chat_messages import Record
from local_backend.data.chat_template import RecordFormat
from local_backend.data.encode import (
    StagedLines,
    check_truncation,
    encode_lines,
    split_into_blocks,
)
from local_backend.data.examples import EncodedData, Example, example_lengths, merge_data
from local_backend.data.text_tokens import Segment
from local_backend.errors import TrainerError
from local_backend.settings import DataFile, Settings
from local_backend.training.loss_curve import perplexity

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from local_backend.data.batches import MicroBatchLimit
    from local_backend.models.token_losses import TokenLosses


class Objective(ABC):
    """One way to train, chosen by the job's customization type.

    The packed and the padded path, the memory estimate, validation and the probe all use these
    methods, and nothing else knows what a job minimizes.
    """

    customization_type: str
    """Bedrock's name for it, as in job.json."""
    rows_per_record = 1
    """How many sequences `render_rows` makes of a record."""
    keeps_tokens = True
    """Whether its examples are tokens alone, which are made once and kept (token_cache.py)."""
    sum_count = 0
    """How many numbers `loss` adds to the sums that `describe_sums` gets."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None

    def for_job(self, settings: Settings) -> Objective:
        """Return the objective with the settings of a job. Default: there are none, so itself."""
        return self

    @property
    def needs_reference(self) -> bool:
        """Return whether `loss` reads the examples' `reference`. Default: False."""
        return False

    @abstractmethod
    def render(self, record: Record, record_format: RecordFormat) -> list[Segment]:
        """Return a canonical record as text segments, each with or without loss."""

    def render_rows(self, record: Record, record_format: RecordFormat) -> list[list[Segment]]:
        """Return each sequence of the record's example. Default: the one that `render` returns."""
        return [self.render(record, record_format)]

    @abstractmethod
    def render_prompt(self, record: Record, record_format: RecordFormat) -> str:
        """Return the text that a trained model continues, to compare models with each other."""

    def begin_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Return the tokens before each record that are not part of its text. Default: none."""
        return []

    def end_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Return the tokens after each record that are not part of its text. Default: none."""
        return []

    def complete(
        self, ids: list[int], loss_mask: list[bool], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[int], list[bool]]:
        """Return a record's tokens and loss mask with the tokens before and after it.

        The first token has no loss: nothing before it predicts it.
        """
        begin, end = self.begin_tokens(tokenizer), self.end_tokens(tokenizer)
        ids = [*begin, *ids, *end]
        loss_mask = [*([True] * len(begin)), *loss_mask, *([True] * len(end))]
        loss_mask[:1] = [False] * len(loss_mask[:1])
        return ids, loss_mask

    def default_max_length(self, context_length: int) -> int:
        """Return the longest sequence if the job names none. Default: the model's context."""
        return context_length

    def resolve_max_length(self, settings: Settings, context_length: int) -> int:
        """Return the length that sequences are cut or packed to.

        Raise TrainerError if local.max_length exceeds the model's context.
        """
        if settings.max_length is None:
            return self.default_max_length(context_length)
        if settings.max_length > context_length:
            raise TrainerError(
                f"local.max_length is {settings.max_length}, and the context of"
                f" {settings.model_name} is {context_length} tokens.",
                fix=f"set it to {context_length} or less.",
            )
        return settings.max_length

    def encode_lines(
        self, lines: StagedLines, record_format: RecordFormat, max_length: int
    ) -> EncodedData:
        """Return the examples of a block of records. Default: one for each, cut to `max_length`.

        It depends on its arguments alone: blocks are encoded in any order, by several processes.
        Raise TrainerError for a record that is refused.
        """
        before = record_format.last_turn_only
        encoded = encode_lines(
            lines,
            lambda record: self.render(record, record_format),
            record_format.tokenizer,
            max_length,
        )
        encoded.last_turn_only = record_format.last_turn_only - before
        return encoded

    def join_blocks(self, blocks: Iterable[EncodedData], max_length: int) -> Iterator[EncodedData]:
        """Yield the examples of consecutive blocks as training has them. Default: as they are."""
        yield from blocks

    def check_encoded(
        self, encoded: EncodedData, file: DataFile, settings: Settings, max_length: int
    ) -> None:
        """Raise TrainerError if too many records were cut, or lost their whole answer."""
        check_truncation(encoded, file.path.name, settings, max_length)

    def encode(
        self, file: DataFile, settings: Settings, record_format: RecordFormat, max_length: int
    ) -> EncodedData:
        """Return the examples of a staged file, in this process's memory.

        Raise TrainerError as `encode_lines` and `check_encoded` do.
        """
        blocks = (
            self.encode_lines(lines, record_format, max_length)
            for lines in split_into_blocks(file.path)
        )
        encoded = merge_data(self.join_blocks(blocks, max_length))
        encoded.records = file.records
        self.check_encoded(encoded, file, settings, max_length)
        return encoded

    def largest_batch(
        self, examples: Sequence[Example], settings: Settings, limit: MicroBatchLimit
    ) -> Sequence[Example]:
        """Return the step that takes the most memory. Default: the longest examples."""
        shortest_first = np.argsort(example_lengths(examples), kind="stable")
        return [examples[at] for at in shortest_first[-settings.batch_size :].tolist()]

    def count(self, examples: Sequence[Example]) -> int:
        """Return the denominator of the mean loss. Default: the number of loss tokens.

        The loss of a batch is `loss` summed over its parts, divided by this count of the whole
        batch. So a batch has the same gradient however it is split.
        """
        return sum(int(example.loss_mask.sum()) for example in examples)

    def loss(self, examples: Sequence[Example], losses: TokenLosses) -> torch.Tensor:
        """Return the loss summed over `examples`, a scalar. Default: the sum over loss tokens."""
        return losses.sum()

    def metrics(self, mean_loss: float) -> dict[str, float]:
        """Return what the loss curve shows that follows from the mean loss.

        This or `describe_sums` must include `perplexity`.
        """
        return {"perplexity": perplexity(mean_loss)}

    def add_to_sums(self, values: torch.Tensor) -> None:
        """Add what `loss` has measured of its examples: `sum_count` numbers."""
        self._sums = values if self._sums is None else self._sums + values

    def take_sums(self) -> list[float]:
        """Return what was added since the last call, and begin again from zero."""
        sums, self._sums = self._sums, None
        # A rank that had no share of a batch has zeros.
        return [0.0] * self.sum_count if sums is None else sums.tolist()

    def describe_sums(self, sums: Sequence[float]) -> dict[str, float]:
        """Return what the loss curve shows beside `metrics`, of the sums over all examples.

        Default: nothing, as `loss` measures nothing besides.
        """
        return {}

    def validation_result(self, loss: float) -> dict[str, object]:
        """Return what the summary says of a model with this validation loss."""
        return {"validationLoss": loss, **self.metrics(loss)}

    def describe_validation(self, loss: float) -> str:
        """Return a validation loss as words of the log."""
        return f"validation loss {loss:.4f}"
