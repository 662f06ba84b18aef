"""Compute the log-likelihood of given text: of continuations after their prompts, of whole
documents.

Rows of similar length go through the model together, padded on the right, and a shared prefix goes
through once. Logits are computed only where a token is predicted.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from local_backend.data.text_tokens import text_tokenizer, tokenize_segments
from local_backend.device import empty_device_cache, is_out_of_memory
from local_backend.errors import TrainerError
from local_backend.inference.prefix_cache import PrefixCache, shared_prefix_length
from local_backend.models.load_model import LoadedModel

BATCH_TOKENS = 2048
"""Tokens that go through the model at once, padding included."""
LOGIT_CHUNK_ROWS = 256
"""Positions whose logits are converted to double precision at the same time."""
DEFAULT_WINDOW = 1024
"""Tokens of a window if none is requested and the model's context is not shorter."""


@dataclass(frozen=True)
class ScoredRow:
    """Tokens of which the last `target_count` are predicted from those before; `index` is the
    text's.
    """

    index: int
    ids: Sequence[int]
    target_count: int


@dataclass
class TextScore:
    """The score of one text, summed over its rows."""

    log_likelihood: float = 0.0
    tokens: int = 0
    greedy: bool = True


def score_rows(
    loaded: LoadedModel, rows: Iterable[ScoredRow], batch_tokens: int = BATCH_TOKENS
) -> dict[int, TextScore]:
    """Return the scores of all rows by index. Halve the batch when memory runs out.

    Raise TrainerError if one row is too long for the memory.
    """
    scores: dict[int, TextScore] = {}
    pending = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    # The token before a row's first target predicts it, so it must go through with its own row.
    prefix_length = shared_prefix_length(
        [row.ids[: len(row.ids) - row.target_count] for row in pending]
    )
    prefix = PrefixCache(loaded, pending[0].ids[:prefix_length] if prefix_length else ())
    pending = [ScoredRow(row.index, row.ids[prefix_length:], row.target_count) for row in pending]
    while pending:
        width = len(pending[0].ids)
        batch = pending[: max(1, batch_tokens // width)]
        try:
            results = list(score_batch(loaded, batch, prefix))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise TrainerError(
                    f"Memory ran out with a text of {width} tokens.", fix="use shorter texts."
                ) from error
            batch_tokens = width * (len(batch) // 2)
            gc.collect()
            empty_device_cache(loaded.model.device)
            continue
        for row, (log_likelihood, greedy) in zip(batch, results, strict=True):
            score = scores.setdefault(row.index, TextScore())
            score.log_likelihood += log_likelihood
            score.tokens += row.target_count
            score.greedy = score.greedy and greedy
        pending = pending[len(batch) :]
    return scores


def score_batch(
    loaded: LoadedModel, rows: Sequence[ScoredRow], prefix: PrefixCache
) -> Iterator[tuple[float, bool]]:
    """Yield for each row after `prefix`: the sum of its targets' ln p, and if each was the
    likeliest.
    """
    device, width = loaded.model.device, max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), loaded.pad_id)
    mask = torch.ones((len(rows), prefix.length + width), dtype=torch.long)
    predicts = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        mask[number, prefix.length + len(row.ids) :] = 0
        predicts[number, len(row.ids) - row.target_count - 1 : len(row.ids) - 1] = True
    # Columns in which at least one row predicts a target: the only ones that need logits.
    kept = predicts.any(dim=0).nonzero().flatten()
    with torch.inference_mode():
        logits = loaded.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            logits_to_keep=kept.to(device),
            past_key_values=prefix.repeat(len(rows)),
            use_cache=prefix.length > 0,
        ).logits
        targets = ids[:, 1:].to(device)
        for number in range(len(rows)):
            own = predicts[number, kept]
            yield sum_log_probs(
                logits[number, own.to(device)], targets[number, kept[own].to(device)]
            )


def sum_log_probs(logits: torch.Tensor, targets: torch.Tensor) -> tuple[float, bool]:
    """Return the sum of the targets' ln p in double precision, and if each was the likeliest.

    `logits` has shape [positions, vocabulary], `targets` [positions].
    """
    total, greedy = 0.0, True
    for at in range(0, len(targets), LOGIT_CHUNK_ROWS):
        part = logits[at : at + LOGIT_CHUNK_ROWS].double()
        tokens = targets[at : at + LOGIT_CHUNK_ROWS]
        log_probs = torch.log_softmax(part, dim=-1).gather(1, tokens[:, None])
        total += float(log_probs.sum())
        greedy = greedy and bool((part.argmax(dim=-1) == tokens).all())
    return total, greedy


@dataclass(frozen=True)
class TokenScore:
    """How probable a token was, its `rank` (1 is the likeliest), and the likeliest tokens there.

    `top` has pairs of token and probability.
    """

    token: int
    probability: float
    rank: int
    top: Sequence[tuple[int, float]]


def score_tokens(
    loaded: LoadedModel, prompt: Sequence[int], ids: Sequence[int], top: int
) -> list[TokenScore]:
    """Return the score of each token of an answer, given what is before it.

    The probabilities are those of the model itself: of a temperature of 1 and of all tokens.
    """
    if not ids:
        return []
    rows = [row.ids for row in build_continuation_rows(loaded, [(prompt, ids)])]
    row = torch.tensor(rows, device=loaded.model.device)
    with torch.inference_mode():
        # The token before the first one predicts it, and nothing is predicted by the last one.
        logits = loaded.model(input_ids=row, logits_to_keep=len(ids) + 1, use_cache=False).logits
    targets = row[0, -len(ids) :]
    scores: list[TokenScore] = []
    for at in range(0, len(ids), LOGIT_CHUNK_ROWS):
        part = targets[at : at + LOGIT_CHUNK_ROWS]
        probabilities = torch.softmax(logits[0, at : at + len(part)].double(), dim=-1)
        own = probabilities.gather(1, part[:, None])
        ranks = (probabilities > own).sum(dim=1) + 1
        best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        scores += [
            TokenScore(token, probability, rank, tuple(zip(tokens, values, strict=True)))
            for token, probability, rank, tokens, values in zip(
                part.tolist(),
                own[:, 0].tolist(),
                ranks.tolist(),
                best.indices.tolist(),
                best.values.tolist(),
                strict=True,
            )
        ]
    return scores


def build_continuation_rows(
    loaded: LoadedModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[ScoredRow]:
    """Yield a row for each (prompt, continuation). A prompt that is too long loses its start.

    Raise TrainerError if a continuation alone exceeds the model's context.
    """
    context = loaded.context_length
    for index, (prompt, text) in enumerate(pairs):
        if len(text) >= context:
            raise TrainerError(
                f"The text to score has {len(text)} tokens; the model's context is {context}.",
                fix="leave that record out.",
            )
        ids = [*prompt, *text][-context:]
        yield ScoredRow(index, ids, len(text))


def build_window_rows(index: int, ids: Sequence[int], window: int) -> Iterator[ScoredRow]:
    """Yield a document as overlapping windows: every token except the first is predicted once.

    Windows advance by half of their length, so a token has at least half a window before it, or all
    there is (strided evaluation: Hugging Face, "Perplexity of fixed-length models").
    """
    scored = 1
    for start in range(0, max(1, len(ids) - 1), max(1, window // 2)):
        end = min(len(ids), start + window)
        if end > scored:
            yield ScoredRow(index, ids[start:end], end - scored)
            scored = end


def resolve_window(loaded: LoadedModel, requested: int | None) -> int:
    """Return the tokens of a window: the requested number, at most the model's context."""
    return max(2, min(requested or DEFAULT_WINDOW, loaded.context_length))


def tokenize_documents(loaded: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of documents as training has them, without what it puts between them."""
    tokens = text_tokenizer(loaded.tokenizer)
    begin, _ = tokens.own_marks
    documents = [[(tokens.literal.mark(text), True)] for text in texts]
    return [[*begin, *ids] for ids, _ in tokenize_segments(documents, loaded.tokenizer)]
