"""Diagnose memorization: training answers returned verbatim, where held-out ones are not."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, choose_level
from cloudft.evaluate.metrics.labels import normalize_text

VERBATIM_LENGTH = 40
"""Consecutive characters of the reference that count as verbatim."""
MIN_LONG_ANSWERS = 8
"""With fewer long answers on either side there is no diagnosis."""
WARNING_GAP, BAD_GAP = 0.2, 0.5
"""How much larger the verbatim share of training answers is than that of held-out ones."""

Pairs = Sequence[tuple[str, str]]
"""Pairs of a reference and an answer."""


def diagnose_memorization(train: Pairs, held_out: Pairs) -> Diagnostic | None:
    """Compare the share of verbatim answers; None when the references are short.

    The measure is extractable memorization (Carlini et al. 2023, "Quantifying Memorization Across
    Neural Language Models"), with the record's own prompt. Held-out records show how much of it
    follows from the task's format.
    """
    seen, unseen = _keep_long(train), _keep_long(held_out)
    if min(len(seen), len(unseen)) < MIN_LONG_ANSWERS:
        return None
    train_share, held_out_share = _verbatim_share(seen), _verbatim_share(unseen)
    level = choose_level(train_share - held_out_share, warning=WARNING_GAP, bad=BAD_GAP)
    figures = (
        f"{train_share:.0%} of {len(seen)} training answers and {held_out_share:.0%} of"
        f" {len(unseen)} held-out answers repeat {VERBATIM_LENGTH} or more consecutive characters"
        " of the reference"
    )
    sentence = {
        "good": f"No memorization: {figures}.",
        "warning": f"Some training answers are memorized: {figures}.",
        "bad": f"Training answers are memorized: {figures}. Use fewer epochs or more records.",
    }[level]
    numbers = {"trainShare": train_share, "heldOutShare": held_out_share, "n": len(seen)}
    return Diagnostic(level, sentence, numbers)


def _keep_long(pairs: Pairs) -> list[tuple[str, str]]:
    return [pair for pair in pairs if len(pair[0]) >= VERBATIM_LENGTH]


def _verbatim_share(pairs: Pairs) -> float:
    return sum(_is_verbatim(*pair) for pair in pairs) / len(pairs)


def _is_verbatim(reference: str, answer: str) -> bool:
    texts = normalize_text(reference), normalize_text(answer)
    matcher = SequenceMatcher(None, *texts, autojunk=False)
    return matcher.find_longest_match().size >= VERBATIM_LENGTH
