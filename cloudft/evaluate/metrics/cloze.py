"""Does the model know the domain's words: they are left out of held-out text, to be filled in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from cloudft.inference import Prompt, ScoringRequest

WORD = re.compile(r"[A-Za-z][\w-]{4,}")
MIN_TERM_COUNT, MAX_GAPS, CONTEXT_CHARACTERS = 3, 100, 400
"""A term stands so often in the text; so many gaps are asked; so many characters stand before."""
MIN_FREQUENCY_RATIO = 5.0
"""A domain's term is so many times as frequent there as in general text."""


def find_cloze_gaps(documents: Sequence[str], general: Sequence[str]) -> list[ScoringRequest]:
    """Gaps before terms of the domain: the text so far, and the term that goes on from it.

    Terms are words that stand more often in `documents` than in `general` text, by the ratio of
    their shares (one added to each count). Each term is asked at its second place or later, so that
    the text before could have told it; no term more than three times.
    """
    here = Counter(word for text in documents for word in WORD.findall(text))
    there = Counter(word for text in general for word in WORD.findall(text))
    size, other = sum(here.values()), sum(there.values())
    terms = {
        word
        for word, count in here.items()
        if count >= MIN_TERM_COUNT
        and (count + 1) / (size + 1) > MIN_FREQUENCY_RATIO * (there[word] + 1) / (other + 1)
    }
    found: list[ScoringRequest] = []
    asked: Counter[str] = Counter()
    for text in documents:
        for match in WORD.finditer(text):
            term, at = match[0], match.start()
            if (
                term in terms
                and asked[term] < MIN_TERM_COUNT
                and text[at - 1 : at] == " "
                and at > 80
            ):
                asked[term] += 1
                before = text[max(0, at - CONTEXT_CHARACTERS) : at - 1]
                found.append(ScoringRequest(Prompt(text=before), f" {term}"))
    step = max(1, len(found) / MAX_GAPS)
    return [found[int(i * step)] for i in range(min(MAX_GAPS, len(found)))]
