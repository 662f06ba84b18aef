"""Answer many prompts greedily: a place of the batch that becomes free goes to the next prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_backend.models.lora import lora_layers
from local_backend.serving.adapter_set import NO_ADAPTER, AdapterSet
from local_backend.serving.decoder import BatchDecoder, unsupported_reason_with
from local_backend.serving.plain_decoder import changes_tokens
from local_backend.serving.sequences import Decoded, NewTokens

if TYPE_CHECKING:
    from local_backend.models.load_model import LoadedModel

ROWS = 32
"""Answers made at once."""
PROMPT_TOKENS = 1024
"""Tokens of prompts that go through the model in one step. Nobody waits for a first token here."""


@dataclass
class _Row:
    """An answer in the making; `pending` are the tokens that go through the model next."""

    index: int
    sequence: Decoded
    pending: list[int]
    ids: list[int]


class BatchedAnswers:
    """Decodes with the weights that a model has now: its own, or with its adapter."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._adapters = AdapterSet(loaded.model)
        has_adapter = any(True for _ in lora_layers(loaded.model))
        self._tuned = self._adapters.adopt() if has_adapter else NO_ADAPTER
        try:
            is_plain = changes_tokens(loaded.model)
            is_plain = is_plain or unsupported_reason_with(loaded, self._adapters) is not None
            self._decoder = None if is_plain else BatchDecoder(loaded, self._adapters, kept_bytes=0)
        finally:
            self._adapters.use(self._tuned)

    @property
    def can_decode(self) -> bool:
        """Return whether this model is one that can be decoded so."""
        return self._decoder is not None

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        stop_ids: Collection[int],
        *,
        with_adapter: bool,
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield each prompt's position and its answer, in order of completion.

        An answer has at most as many tokens as its limit, and ends with a stop token otherwise.
        """
        assert self._decoder is not None
        adapter = self._tuned if with_adapter else NO_ADAPTER
        waiting = deque(sorted(range(len(prompts)), key=lambda index: len(prompts[index])))
        rows: list[_Row] = []
        try:
            while waiting or rows:
                self._admit(prompts, waiting, rows, adapter)
                for row in self._step(rows, prompts):
                    if row.ids[-1] in stop_ids or len(row.ids) >= limits[row.index]:
                        rows.remove(row)
                        self._decoder.remove(row.sequence)
                        yield row.index, row.ids
        finally:
            for row in rows:
                self._decoder.remove(row.sequence)
            self._adapters.use(self._tuned)

    def _admit(
        self,
        prompts: Sequence[Sequence[int]],
        waiting: deque[int],
        rows: list[_Row],
        adapter: int,
    ) -> None:
        """Fill the places of the batch. What all prompts begin with, the first computes alone."""
        assert self._decoder is not None
        budget = PROMPT_TOKENS
        is_first = len(waiting) == len(prompts)
        while waiting and len(rows) < ROWS and budget > 0:
            index = waiting.popleft()
            sequence = self._decoder.add(adapter, prompts[index])
            pending = list(prompts[index][sequence.length :])
            budget -= len(pending)
            rows.append(_Row(index, sequence, pending, []))
            if is_first:
                return

    def _step(self, rows: Sequence[_Row], prompts: Sequence[Sequence[int]]) -> list[_Row]:
        """Compute the next token of each answer whose prompt is complete; return these."""
        assert self._decoder is not None
        work, by_sequence = [], {}
        for row in rows:
            if row.ids and self._decoder.must_restart(row.sequence):
                row.pending = [*prompts[row.index], *row.ids]
                self._decoder.restart(row.sequence, len(row.pending))
            part, row.pending = row.pending[:PROMPT_TOKENS], row.pending[PROMPT_TOKENS:]
            work.append(NewTokens(row.sequence, part, not row.pending))
            by_sequence[id(row.sequence)] = row
        complete, logits = self._decoder.step(work)
        done = [by_sequence[id(one.sequence)] for one in complete]
        for row, token in zip(done, logits.argmax(-1).tolist(), strict=True):
            row.ids.append(token)
            row.pending = [token]
        return done
