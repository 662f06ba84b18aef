"""Compare what two runtimes make of the same records, and name the layer that differs.

The layers are checked in the order in which an answer comes about: the template, the tokenizer, the
weights with their settings (by the probabilities of equal tokens), the end tokens, and last the
decoding. The first that differs is the fault; what follows from it is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

TEMPLATE, TOKENIZER, LOGITS = "template", "tokenizer", "logits"
END_TOKENS, DECODING = "end tokens", "decoding"
TOLERANCE = {"float32": 2e-3, "float16": 0.1, "bfloat16": 1.0}
"""Largest allowed difference of a token's log-probability, by the format of the weights.

It is that of the export's own proof; in float32, runtimes sum in another order than PyTorch: up to
1e-3 was seen on SmolLM2-135M, and wrong settings gave 0.02 at least.
"""


class RuntimeRecord(TypedDict):
    """What one runtime makes of one record.

    `prompt` are the tokens of its own rendering, `plain` those of our rendered text by its
    tokenizer. `answer` is greedy, from our prompt's tokens; `finish` is `stop` or `length`.
    `scores` are log-probabilities of the tokens after the first of our prompt and answer.
    """

    prompt: list[int]
    plain: list[int]
    answer: list[int]
    text: str
    finish: str
    scores: list[float]


@dataclass(frozen=True)
class Difference:
    """The layer in which two runtimes differ, the record's index, and what differs."""

    layer: str
    record: int
    detail: str


def find_difference(
    ours: Sequence[RuntimeRecord], theirs: Sequence[RuntimeRecord], tolerance: float | None
) -> Difference | None:
    """Return the first layer that differs in any record; None if all are equal.

    `tolerance` of log-probabilities; None (quantized weights) leaves them and the answers out, as
    these differ by design.
    """
    checks = [_compare_prompts]
    if tolerance is not None:
        checks += [_logit_check(tolerance), _compare_answers]
    else:
        checks += [_compare_ends]
    for check in checks:
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            found = check(a, b)
            if found is not None:
                return Difference(found[0], number, found[1])
    return None


_Found = tuple[str, str] | None


def _compare_prompts(ours: RuntimeRecord, theirs: RuntimeRecord) -> _Found:
    if ours["prompt"] == theirs["prompt"]:
        return None
    is_same_plain = _ends_alike(ours["prompt"], theirs["plain"])
    layer = TEMPLATE if is_same_plain else TOKENIZER
    return layer, describe_tokens(ours["prompt"], theirs["prompt"])


def _ends_alike(ours: list[int], theirs: list[int]) -> bool:
    """Return whether the tokens are equal but for a begin token that one of them has."""
    return theirs in (ours, ours[1:]) or theirs[1:] == ours


def describe_tokens(ours: Sequence[int], theirs: Sequence[int]) -> str:
    """Return where two rows of tokens begin to differ, in words."""
    pairs = zip(ours, theirs, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    shown = [str(row[at]) if at < len(row) else "the end" for row in (ours, theirs)]
    lengths = f"{len(ours)} and {len(theirs)} tokens"
    return f"token {at} is {shown[0]} here and {shown[1]} there ({lengths})"


def largest_difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, int]:
    """Return the largest difference of log-probabilities, and the position of its token.

    Infinite where one of the two is no number.
    """
    differences = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    differences = [math.inf if math.isnan(value) else value for value in differences]
    worst = max(differences, default=0.0)
    return worst, (differences.index(worst) + 1 if differences else 0)


class _logit_check:
    """Compare the log-probabilities of a record with a tolerance."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    def __call__(self, ours: RuntimeRecord, theirs: RuntimeRecord) -> _Found:
        """Return what differs, or None."""
        worst, at = largest_difference(ours["scores"], theirs["scores"])
        if worst <= self.tolerance:
            return None
        detail = (
            f"the log-probability of token {at} differs by {worst:.2g}, allowed are"
            f" {self.tolerance:g}"
        )
        return LOGITS, detail


def _compare_ends(ours: RuntimeRecord, theirs: RuntimeRecord) -> _Found:
    """Find an answer that equals ours as far as ours goes, and does not end there, or ends early.

    One of them is a part of the other, so the same tokens were chosen up to the end of the shorter.
    """
    a, b = ours["answer"], theirs["answer"]
    shorter = min(len(a), len(b))
    if a[:shorter] != b[:shorter] or len(a) == len(b):
        return None
    long_one, short_one = ("there", "here") if len(a) < len(b) else ("here", "there")
    return END_TOKENS, f"an answer ends {short_one} after {shorter} tokens and goes on {long_one}"


def _compare_answers(ours: RuntimeRecord, theirs: RuntimeRecord) -> _Found:
    if ours["answer"] == theirs["answer"] and ours["finish"] == theirs["finish"]:
        return None
    if ours["answer"] == theirs["answer"]:
        detail = f"an answer ends by `{ours['finish']}` here and by `{theirs['finish']}` there"
        return END_TOKENS, detail
    return _compare_ends(ours, theirs) or (
        DECODING,
        "a greedy answer: " + describe_tokens(ours["answer"], theirs["answer"]),
    )
