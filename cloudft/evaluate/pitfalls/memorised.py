"""Memorising: training answers that come back word for word, where new ones do not."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from cloudft.evaluate.pitfalls import Level, Pitfall

VERBATIM = 40
"""Characters in a row that are the reference's own."""
LEAST = 8
"""So many answers long enough on each side, or nothing is said."""
GAP, LARGE_GAP = 0.2, 0.5
"""How much more often training answers come back than held-out ones: told, and bad."""


def memorised(
    train: Sequence[tuple[str, str]], held_out: Sequence[tuple[str, str]]
) -> Pitfall | None:
    """Of (reference, answer) pairs: what share comes back verbatim. None for short answers.

    The measure is extractable memorisation (Carlini et al. 2023, "Quantifying Memorization Across
    Neural Language Models"), with the record's own prompt; held-out records tell how much of it is
    the task's own form.
    """
    seen, new = _long(train), _long(held_out)
    if min(len(seen), len(new)) < LEAST:
        return None
    share, beside = _share(seen), _share(new)
    gap = share - beside
    level: Level = "bad" if gap >= LARGE_GAP else "warning" if gap >= GAP else "good"
    told = (
        f"{share:.0%} of {len(seen)} training answers come back with {VERBATIM} characters or more"
        f" in a row, {beside:.0%} of {len(new)} held-out ones"
    )
    sentence = {
        "good": f"Not memorised: {told}.",
        "warning": f"Some training answers are memorised: {told}.",
        "bad": f"Training answers are memorised: {told}. Fewer epochs, or more records, help.",
    }[level]
    return Pitfall(level, sentence, {"trainShare": share, "heldOutShare": beside, "n": len(seen)})


def _long(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in pairs if len(pair[0]) >= VERBATIM]


def _share(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(_verbatim(*pair) for pair in pairs) / len(pairs)


def _verbatim(reference: str, answer: str) -> bool:
    matcher = SequenceMatcher(None, reference, answer, autojunk=False)
    return matcher.find_longest_match().size >= VERBATIM
