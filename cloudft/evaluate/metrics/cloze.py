"""Test whether a model knows a domain's terms: leave them out of held-out text and score them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from cloudft.inference import Prompt, ScoringRequest

WORD = re.compile(r"[A-Za-z][\w-]{4,}")
MIN_TERM_COUNT = 3
"""A term occurs at least this often in the documents; no more gaps are made of one term."""
MAX_GAPS = 100
CONTEXT_CHARACTERS = 400
"""Characters of text before a gap, at most."""
MIN_OFFSET = 80
"""A gap has more characters of its document before it than this."""
MIN_FREQUENCY_RATIO = 5.0
"""A term is more frequent in the domain than in general text by this factor."""


def find_cloze_gaps(documents: Sequence[str], general: Sequence[str]) -> list[ScoringRequest]:
    """Return gaps before terms of the domain: the text so far, and the term that continues it.

    Terms are words whose share of all words is higher in `documents` than in `general` text by
    `MIN_FREQUENCY_RATIO` (with one added to each count). At most `MAX_GAPS` gaps, evenly spread.
    """
    terms = _find_terms(documents, general)
    gaps: list[ScoringRequest] = []
    gaps_of_term: Counter[str] = Counter()
    for text in documents:
        for match in WORD.finditer(text):
            term, start = match[0], match.start()
            if term not in terms or gaps_of_term[term] >= MIN_TERM_COUNT:
                continue
            # The gap replaces the space as well: most tokenizers join it to the word.
            if text[start - 1 : start] == " " and start > MIN_OFFSET:
                gaps_of_term[term] += 1
                context = text[max(0, start - CONTEXT_CHARACTERS) : start - 1]
                gaps.append(ScoringRequest(Prompt(text=context), f" {term}"))
    step = max(1, len(gaps) / MAX_GAPS)
    return [gaps[int(i * step)] for i in range(min(MAX_GAPS, len(gaps)))]


def _find_terms(documents: Sequence[str], general: Sequence[str]) -> set[str]:
    domain_counts = Counter(word for text in documents for word in WORD.findall(text))
    general_counts = Counter(word for text in general for word in WORD.findall(text))
    # One is added so that a word without a count in general text has a finite ratio.
    domain_size, general_size = domain_counts.total() + 1, general_counts.total() + 1
    return {
        word
        for word, count in domain_counts.items()
        if count >= MIN_TERM_COUNT
        and (count + 1) / domain_size
        > MIN_FREQUENCY_RATIO * (general_counts[word] + 1) / general_size
    }
