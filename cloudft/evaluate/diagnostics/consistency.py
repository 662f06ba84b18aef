"""Diagnose consistency: does the same question get the same answer, however it is phrased?"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level

DEFAULT_TEMPLATES = (
    "{prompt}",
    "Please answer the following.\n\n{prompt}",
    "{prompt}\n\nThank you.",
    "Here is a request: {prompt}",
)
"""Paraphrases of a question."""
MIN_CONSISTENT, MIN_MOSTLY_CONSISTENT = 0.9, 0.7
"""Agreement from which answers are consistent, and mostly consistent."""
MIN_LISTED_OPTIONS = 3
"""This number of labels in a row is a list of options."""
SHUFFLES_PER_ORDER = 4
"""Random shuffles tried for each order that is needed, because some give an order again."""


def shuffle_options(prompt: str, labels: Sequence[str], seed: int, count: int) -> list[str]:
    """Return the prompt and variants with its list of options in other orders, `count` at most.

    Returns nothing when the prompt has no such list. A list is at least three of the labels with
    only commas, `or`, `and`, slashes or new lines with dashes between them.
    """
    if len(labels) < MIN_LISTED_OPTIONS:
        return []
    # Longest first, so that a label that begins with another one is matched as a whole.
    label = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    gap = r"(?:\s*,\s*(?:or\s+|and\s+)?|\s+or\s+|\s+and\s+|\s*\n\s*[-*]?\s*|\s*/\s*)"
    more = f"(?:{gap}(?:{label})){{{MIN_LISTED_OPTIONS - 1},}}"
    listed = re.search(rf"(?<!\w)(?:{label}){more}(?!\w)", prompt)
    if listed is None:
        return []
    parts = re.split(rf"({label})", listed[0])
    options, gaps = parts[1::2], parts[0::2]
    draw, orders = random.Random(f"{seed}:{prompt}"), [options]
    for _ in range(count * SHUFFLES_PER_ORDER):
        order = draw.sample(options, len(options))
        if order not in orders and len(orders) < count:
            orders.append(order)
    return [
        prompt[: listed.start()]
        + "".join(itertools.chain.from_iterable(zip(gaps, [*order, ""], strict=True)))
        + prompt[listed.end() :]
        for order in orders
    ]


def diagnose_consistency(
    groups: Mapping[str, Sequence[Sequence[str]]], normalize: Callable[[str], Hashable]
) -> Diagnostic:
    """Measure the agreement of answers, given by kind and then by record.

    The kinds are `paraphrased`, `options` and `sampled`. Agreement is the share of equal pairs of a
    record's answers, entropy that of a record's answers in bits; both are means over records.
    """
    numbers: dict[str, object] = {}
    figures, agreements = [], [1.0]
    for kind, records in groups.items():
        normalized = [[normalize(answer) for answer in answers] for answers in records]
        compared = [answers for answers in normalized if len(answers) > 1]
        if not compared:
            continue
        agreement = sum(map(_agreement, compared)) / len(compared)
        entropy = sum(map(_entropy, compared)) / len(compared)
        numbers[kind] = {
            "records": len(compared),
            "agreement": agreement,
            "entropyBits": entropy,
        }
        agreements.append(agreement)
        figures.append(
            f"{kind}: {agreement:.0%} of answers agree (entropy {entropy:.2f} bits,"
            f" {len(compared)} records)"
        )
    lowest = min(agreements)
    level: Level = (
        "good"
        if lowest >= MIN_CONSISTENT
        else "warning"
        if lowest >= MIN_MOSTLY_CONSISTENT
        else "bad"
    )
    summary = {"good": "Consistent", "warning": "Mostly consistent", "bad": "Inconsistent"}[level]
    details = "; ".join(figures) or "no question could be asked in two ways"
    return Diagnostic(level, f"{summary}: {details}.", numbers)


def _agreement(answers: Sequence[Hashable]) -> float:
    pairs = list(itertools.combinations(answers, 2))
    return sum(a == b for a, b in pairs) / len(pairs)


def _entropy(answers: Sequence[Hashable]) -> float:
    shares = [count / len(answers) for count in Counter(answers).values()]
    # Adding 0.0 turns the -0.0 of equal answers into 0.0.
    return -sum(share * math.log2(share) for share in shares) + 0.0
