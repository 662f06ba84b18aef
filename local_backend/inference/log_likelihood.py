"""How likely a model holds given text: of continuations behind their prompts, of whole documents.

Rows of like length go through the model together, padded on the right; what they all begin with
goes through once. Logits are computed where a token is predicted, and nowhere else.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from local_backend.device import empty_device_cache, is_out_of_memory
from local_backend.errors import TrainerError
from local_backend.inference.prefix_cache import PrefixCache, shared_prefix_length
from local_backend.models.load_model import LoadedModel

BATCH_TOKENS = 2048
"""Tokens that go through the model at once, padding included."""
LOGIT_CHUNK_ROWS = 256
"""Positions whose logits are looked at together, in double precision."""
DEFAULT_WINDOW = 1024
"""Tokens of a window where none is asked for and the model's context is not shorter."""


@dataclass(frozen=True)
class ScoredRow:
    """Tokens, the last `asked` of which are to be predicted from those before; `index` is whose."""

    index: int
    ids: Sequence[int]
    target_count: int


@dataclass
class TextScore:
    """What has come together of one text."""

    log_likelihood: float = 0.0
    tokens: int = 0
    greedy: bool = True


def score_rows(
    loaded: LoadedModel, rows: Iterable[ScoredRow], tokens: int = BATCH_TOKENS
) -> dict[int, TextScore]:
    """The sums by index, of all rows. Halves what goes at once when memory runs out."""
    sums: dict[int, TextScore] = {}
    waiting = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    # The token before the first one that is asked for has to go through with its own row.
    common = shared_prefix_length([row.ids[: len(row.ids) - row.target_count] for row in waiting])
    prefix = PrefixCache(loaded, waiting[0].ids[:common] if common else ())
    waiting = [ScoredRow(row.index, row.ids[common:], row.target_count) for row in waiting]
    while waiting:
        width = len(waiting[0].ids)
        batch = waiting[: max(1, tokens // width)]
        try:
            found = list(score_batch(loaded, batch, prefix))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise TrainerError(
                    f"Memory ran out with a text of {width} tokens.", fix="use shorter texts."
                ) from error
            tokens = width * (len(batch) // 2)
            gc.collect()
            empty_device_cache(loaded.model.device)
            continue
        for row, (log_likelihood, greedy) in zip(batch, found, strict=True):
            total = sums.setdefault(row.index, TextScore())
            total.log_likelihood += log_likelihood
            total.tokens += row.target_count
            total.greedy = total.greedy and greedy
        waiting = waiting[len(batch) :]
    return sums


def score_batch(
    loaded: LoadedModel, rows: Sequence[ScoredRow], prefix: PrefixCache
) -> Iterator[tuple[float, bool]]:
    """Of each row behind `prefix`: the sum of its asked tokens' ln p; was each the likeliest?"""
    device, width = loaded.model.device, max(len(row.ids) for row in rows)
    pad = loaded.tokenizer.pad_token_id or 0
    ids = torch.full((len(rows), width), pad)
    mask = torch.ones((len(rows), prefix.length + width), dtype=torch.long)
    predicting = torch.zeros((len(rows), width), dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        mask[place, prefix.length + len(row.ids) :] = 0
        predicting[place, len(row.ids) - row.target_count - 1 : len(row.ids) - 1] = True
    kept = predicting.any(dim=0).nonzero().flatten()
    with torch.inference_mode():
        logits = loaded.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            logits_to_keep=kept.to(device),
            past_key_values=prefix.repeat(len(rows)),
            use_cache=prefix.length > 0,
        ).logits
        targets = ids[:, 1:].to(device)
        for place in range(len(rows)):
            here = predicting[place, kept]
            yield sum_log_probs(
                logits[place, here.to(device)], targets[place, kept[here].to(device)]
            )


def sum_log_probs(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[float, bool]:
    """The sum of the wanted tokens' ln p, in double precision, and whether each was the likeliest.

    `logits` has shape [positions, vocabulary], `wanted` [positions].
    """
    total, greedy = 0.0, True
    for at in range(0, len(wanted), LOGIT_CHUNK_ROWS):
        part, tokens = (
            logits[at : at + LOGIT_CHUNK_ROWS].double(),
            wanted[at : at + LOGIT_CHUNK_ROWS],
        )
        said = torch.log_softmax(part, dim=-1).gather(1, tokens[:, None])
        total += float(said.sum())
        greedy = greedy and bool((part.argmax(dim=-1) == tokens).all())
    return total, greedy


def build_continuation_rows(
    loaded: LoadedModel, asked: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[ScoredRow]:
    """Each (prompt, continuation); one that is too long for the model loses its prompt's start."""
    room = loaded.context_length
    for index, (prompt, text) in enumerate(asked):
        if len(text) >= room:
            raise TrainerError(
                f"A text of {len(text)} tokens is to be scored; the model was made for {room}.",
                fix="leave that record out.",
            )
        ids = [*prompt, *text][-room:]
        yield ScoredRow(index, ids, len(text))


def build_window_rows(index: int, ids: Sequence[int], window: int) -> Iterator[ScoredRow]:
    """A document as overlapping windows: every token but the first is predicted once.

    Windows move on by half of their length, so a token has half a window before it, or all there is
    (strided evaluation: Hugging Face, "Perplexity of fixed-length models").
    """
    done = 1
    for start in range(0, max(1, len(ids) - 1), max(1, window // 2)):
        end = min(len(ids), start + window)
        if end > done:
            yield ScoredRow(index, ids[start:end], end - done)
            done = end


def resolve_window(loaded: LoadedModel, wanted: int | None) -> int:
    """Tokens of a window: what is asked for, never more than the model was made for."""
    return max(2, min(wanted or DEFAULT_WINDOW, loaded.context_length))


def tokenize_texts(loaded: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts, as training has them."""
    if not texts:
        return []
    ids: Any = loaded.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [list(one) for one in ids]
