"""Put the most informative records first, and say why each one is shown.

A share of the records is drawn at random, whatever models make of them: only these estimate how
often the suggestions, and the answers in the file, are right. The draws depend on a record's key
and the project's seed alone, so that records that are added later change none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloudft.evaluate.metrics.labels import normalize_text
from cloudft.labeling.near_groups import NearGroups
from cloudft.labeling.settings import ProjectSettings
from cloudft.labeling.suggestions import Suggestion

Reason = Literal[
    "random", "contradiction", "doubtful", "disagreement", "uncertain", "near", "unranked"
]


@dataclass(frozen=True)
class RankedRecord:
    """A record with what it is expected to teach: 0 (nothing) to 3, and the main reason.

    Contradictions score 3, doubtful answers 1 to 2, models that disagree 0.5 to 1, uncertain
    suggestions 0 to 1. Without a suggestion the score is below 0.
    """

    key: str
    score: float
    reason: Reason


def draw(settings: ProjectSettings, purpose: str, key: str) -> float:
    """Return a number from 0 to 1 that only the seed, the purpose and the key decide."""
    text = f"{settings.seed}:{purpose}:{key}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64


def is_random(settings: ProjectSettings, key: str) -> bool:
    """Return whether a record belongs to the share that is drawn at random."""
    return draw(settings, "random", key) < settings.random_share


def is_shared(settings: ProjectSettings, key: str) -> bool:
    """Return whether a record is labeled by everybody."""
    return draw(settings, "overlap", key) < settings.overlap_share


def rank_record(
    key: str, given: Sequence[str], suggestion: Suggestion | None, settings: ProjectSettings
) -> RankedRecord:
    """Return what a decision about a record is worth."""
    labels = {normalize_text(answer) for answer in given}
    if settings.kind == "labels" and len(labels) > 1:
        return RankedRecord(key, 3.0, "contradiction")
    if suggestion is None:
        return RankedRecord(key, -1.0, "unranked")
    if settings.kind != "labels":
        doubt = 0.0 if suggestion.confidence is None else 1 - suggestion.confidence
        return RankedRecord(key, doubt, "doubtful" if settings.kind == "check" else "uncertain")
    doubt = 1 - (suggestion.margin or 0.0)
    label = normalize_text(suggestion.text)
    if labels and label not in labels:
        ahead = (suggestion.confidence or 0.0) - _share_of(labels, suggestion, settings)
        return RankedRecord(key, 1 + max(0.0, ahead), "doubtful")
    if suggestion.base is not None and normalize_text(suggestion.base) != label:
        return RankedRecord(key, 0.5 + doubt / 2, "disagreement")
    return RankedRecord(key, doubt, "uncertain")


def _share_of(labels: set[str], suggestion: Suggestion, settings: ProjectSettings) -> float:
    """Return the likelihood of what the file says, among all labels."""
    pairs = zip(settings.labels, suggestion.shares, strict=False)
    return sum(share for label, share in pairs if normalize_text(label) in labels)


def order_records(
    keys: Sequence[str],
    given: Mapping[str, Sequence[str]],
    suggestions: Mapping[str, Suggestion],
    groups: NearGroups,
    settings: ProjectSettings,
) -> list[RankedRecord]:
    """Return the records in the order in which they are labeled.

    Groups of near duplicates come in the order of their best record. Records of the random share
    are spread evenly among the others, and are not grouped: that would show what they hold.
    """
    ranked = [rank_record(k, given.get(k, ()), suggestions.get(k), settings) for k in keys]
    drawn = [
        RankedRecord(one.key, one.score, "random") for one in ranked if is_random(settings, one.key)
    ]
    drawn.sort(key=lambda one: draw(settings, "turn", one.key))
    chosen = [one for one in ranked if not is_random(settings, one.key)]
    return list(_interleave(_by_group(chosen, groups, settings), drawn))


def _by_group(
    ranked: Sequence[RankedRecord], groups: NearGroups, settings: ProjectSettings
) -> list[RankedRecord]:
    members: dict[str, list[RankedRecord]] = {}
    for one in ranked:
        members.setdefault(groups.leader.get(one.key, one.key), []).append(one)

    def rank(one: RankedRecord) -> tuple[float, float]:
        return -one.score, draw(settings, "turn", one.key)

    in_order = sorted(
        (sorted(group, key=rank) for group in members.values()), key=lambda g: rank(g[0])
    )
    found = []
    for first, *others in in_order:
        found.append(first)
        # A contradiction is one wherever it comes; the others come because of the first.
        found += [
            one if one.reason == "contradiction" else RankedRecord(one.key, one.score, "near")
            for one in others
        ]
    return found


def _interleave(
    chosen: Sequence[RankedRecord], drawn: Sequence[RankedRecord]
) -> Iterator[RankedRecord]:
    """Yield all, with `drawn` spread evenly among `chosen`."""
    total, used = len(chosen) + len(drawn), 0
    rest = iter(chosen)
    for number in range(total):
        if (number + 1) * len(drawn) // total > used:
            yield drawn[used]
            used += 1
        else:
            yield next(rest)
