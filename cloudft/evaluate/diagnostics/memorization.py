"""Memorising: training answers that come back word for word, where new ones do not."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level

VERBATIM_LENGTH = 40
"""Characters in a row that are the reference's own."""
MIN_LONG_ANSWERS = 8
"""So many answers long enough on each side, or nothing is said."""
WARNING_GAP, BAD_GAP = 0.2, 0.5
"""How much more often training answers come back than held-out ones: told, and bad."""


def diagnose_memorization(
    train: Sequence[tuple[str, str]], held_out: Sequence[tuple[str, str]]
) -> Diagnostic | None:
    """Of (reference, answer) pairs: what share comes back verbatim. None for short answers.

    The measure is extractable memorisation (Carlini et al. 2023, "Quantifying Memorization Across
    Neural Language Models"), with the record's own prompt; held-out records tell how much of it is
    the task's own form.
    """
    seen, new = _keep_long(train), _keep_long(held_out)
    if min(len(seen), len(new)) < MIN_LONG_ANSWERS:
        return None
    share, beside = _verbatim_share(seen), _verbatim_share(new)
    gap = share - beside
    level: Level = "bad" if gap >= BAD_GAP else "warning" if gap >= WARNING_GAP else "good"
    told = (
        f"{share:.0%} of {len(seen)} training answers come back with {VERBATIM_LENGTH} characters or more"
        f" in a row, {beside:.0%} of {len(new)} held-out ones"
    )
    sentence = {
        "good": f"Not memorised: {told}.",
        "warning": f"Some training answers are memorised: {told}.",
        "bad": f"Training answers are memorised: {told}. Fewer epochs, or more records, help.",
    }[level]
    return Diagnostic(
        level, sentence, {"trainShare": share, "heldOutShare": beside, "n": len(seen)}
    )


def _keep_long(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in pairs if len(pair[0]) >= VERBATIM_LENGTH]


def _verbatim_share(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(_is_verbatim(*pair) for pair in pairs) / len(pairs)


def _is_verbatim(reference: str, answer: str) -> bool:
    matcher = SequenceMatcher(None, reference, answer, autojunk=False)
    return matcher.find_longest_match().size >= VERBATIM_LENGTH
