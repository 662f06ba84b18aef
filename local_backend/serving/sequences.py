"""Sequences that a decoder works on, and what decoders have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


@dataclass(eq=False)
class Decoded:
    """A prompt and its answer. `place` is the decoder's own; its `length` are the tokens there.

    `tokens` are those that have gone through the model.
    """

    adapter: int
    prompt_tokens: int
    place: Any
    tokens: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Return how many tokens have gone through the model."""
        return int(self.place.length)


@dataclass(frozen=True)
class NewTokens:
    """Tokens of a sequence that go through the model in the next step.

    With `is_complete` the token after them is predicted. `on_logits` is called with the logits
    [tokens, vocabulary] after each of them, some tokens at a time.
    """

    sequence: Decoded
    ids: Sequence[int]
    is_complete: bool = True
    on_logits: Callable[[torch.Tensor], None] | None = None


class Decoder(Protocol):
    """Computes the next tokens of sequences that come and go."""

    vocabulary: int
    splits_prompts: bool
    """Whether the tokens of a prompt may come in several steps."""

    @property
    def cached_tokens(self) -> int:
        """Return how many tokens have their keys and values in memory."""

    def add(self, adapter: int, prompt: Sequence[int], *, reuse: bool = True) -> Decoded:
        """Return a sequence for a prompt. Its `length` is how much of it is known already.

        Without `reuse` that is nothing: all of its tokens go through the model.
        """

    def known_prefix(self, adapter: int, prompt: Sequence[int]) -> int:
        """Return how many tokens of a prompt `add` would find computed already."""

    def remove(self, sequence: Decoded) -> None:
        """Forget a sequence."""

    def must_restart(self, sequence: Decoded) -> bool:
        """Return whether the next token changes what was computed of all tokens before it."""

    def restart(self, sequence: Decoded, tokens: int) -> None:
        """Forget what was computed of a sequence, whose `tokens` tokens go through again."""

    def step(self, work: Sequence[NewTokens]) -> tuple[list[NewTokens], torch.Tensor]:
        """Return the complete ones of `work`, and the logits [ones, vocabulary] after them."""
