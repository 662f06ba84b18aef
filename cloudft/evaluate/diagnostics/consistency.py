"""Consistency: does the same question get the same answer, however it is put?"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic, Level

DEFAULT_TEMPLATES = (
    "{prompt}",
    "Please answer the following.\n\n{prompt}",
    "{prompt}\n\nThank you.",
    "Here is a request: {prompt}",
)
"""The same question in other words."""
MIN_CONSISTENT, MIN_MOSTLY_CONSISTENT = 0.9, 0.7
"""Agreement from which answers are steady, and below which they are not to be relied on."""
MIN_LISTED_OPTIONS = 3
"""So many labels in a row are a list of options."""


def shuffle_options(prompt: str, labels: Sequence[str], seed: int, count: int) -> list[str]:
    """The prompt, and it with its list of options in other orders; nothing where there is no list.

    A list is at least three of the labels with nothing between them but commas, `or`, `and` or new
    lines with dashes.
    """
    if len(labels) < MIN_LISTED_OPTIONS:
        return []
    one = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    gap = r"(?:\s*,\s*(?:or\s+|and\s+)?|\s+or\s+|\s+and\s+|\s*\n\s*[-*]?\s*|\s*/\s*)"
    found = re.search(
        rf"(?<!\w)(?:{one})(?:{gap}(?:{one})){{{MIN_LISTED_OPTIONS - 1},}}(?!\w)", prompt
    )
    if found is None:
        return []
    parts = re.split(rf"({one})", found[0])
    options, gaps = parts[1::2], parts[0::2]
    draw, orders = random.Random(f"{seed}:{prompt}"), [options]
    for _ in range(count * 4):
        mixed = draw.sample(options, len(options))
        if mixed not in orders and len(orders) < count:
            orders.append(mixed)
    return [
        prompt[: found.start()]
        + "".join(itertools.chain.from_iterable(zip(gaps, [*order, ""], strict=True)))
        + prompt[found.end() :]
        for order in orders
    ]


def diagnose_consistency(
    groups: Mapping[str, Sequence[Sequence[str]]], normalize: Callable[[str], str]
) -> Diagnostic:
    """Answers by kind (`paraphrased`, `options`, `sampled`), then by record.

    Agreement is the share of pairs of answers that are equal, entropy that of a record's answers in
    bits; both are means over records.
    """
    numbers = {}
    for kind, records in groups.items():
        plain = [[normalize(answer) for answer in answers] for answers in records]
        several = [answers for answers in plain if len(answers) > 1]
        if several:
            numbers[kind] = {
                "records": len(several),
                "agreement": sum(map(_agreement, several)) / len(several),
                "entropyBits": sum(map(_entropy, several)) / len(several),
            }
    least = min((n["agreement"] for n in numbers.values()), default=1.0)
    level: Level = (
        "good"
        if least >= MIN_CONSISTENT
        else "warning"
        if least >= MIN_MOSTLY_CONSISTENT
        else "bad"
    )
    told = "; ".join(
        f"{kind}: {n['agreement']:.0%} of answers agree (entropy {n['entropyBits']:.2f} bits,"
        f" {n['records']} records)"
        for kind, n in numbers.items()
    )
    word = {"good": "Steady", "warning": "Not quite steady", "bad": "Not to be relied on"}[level]
    return Diagnostic(level, f"{word}: {told or 'nothing could be asked in two ways'}.", numbers)


def _agreement(answers: Sequence[str]) -> float:
    pairs = list(itertools.combinations(answers, 2))
    return sum(a == b for a, b in pairs) / len(pairs)


def _entropy(answers: Sequence[str]) -> float:
    shares = [count / len(answers) for count in Counter(answers).values()]
    return -sum(share * math.log2(share) for share in shares) + 0.0
