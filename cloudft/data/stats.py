"""What a set of records is like: lengths, labels, twins, contradictions, languages."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from cloudft.data.dedupe import asked_text, digest, whole_text
from cloudft.data.labels import MOST
from cloudft.data.record import Turns
from cloudft.data.records import Located
from cloudft.data.tokens import estimated_tokens

CUTS = (256, 512, 1024, 2048, 4096, 8192, 32768)
QUANTILES = (0.5, 0.9, 0.99)
LISTED = 50
LANGUAGE_SAMPLE = 2000
"""So many records at most are asked for their language, from the beginning of the set."""
LONG_TAIL = 4
"""A record of so many times the median's tokens is in the long tail."""


@dataclass(frozen=True)
class Conflict:
    """Two records that answer one input differently."""

    file: str
    line: int
    of_file: str
    of_line: int


@dataclass
class Stats:
    """Counts of one role's records. Takes some 250 bytes a record."""

    records: int = 0
    characters: int = 0
    turns: Counter[int] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] | None = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    conflict_count: int = 0
    tokens: array[int] = field(default_factory=lambda: array("I"))
    tokens_estimated: bool = True

    def __post_init__(self) -> None:
        self._seen: set[int] = set()
        self._answers: dict[int, tuple[int, str, int]] = {}

    def add_all(self, records: Iterable[Located]) -> None:
        """Look at each record once."""
        language = find_spec("py3langid") is not None
        for located in records:
            text = whole_text(located.record)
            self.records += 1
            self.characters += len(text)
            self.tokens.append(estimated_tokens(len(text)))
            self.shapes[located.record.shape] += 1
            whole = digest(text)
            self.duplicates += whole in self._seen
            self._seen.add(whole)
            if isinstance(located.record, Turns):
                self._answer(located, located.record)
            if language and self.records <= LANGUAGE_SAMPLE:
                self.languages[_language(text)] += 1

    def _answer(self, located: Located, record: Turns) -> None:
        answer = "\n".join(record.turns[-1][1])
        self.turns[len(record.turns)] += 1
        if self.labels is not None:
            self.labels[answer] += 1
            if len(self.labels) > MOST:
                self.labels = None
        given = digest(answer)
        place = (given, located.file, located.line)
        first = self._answers.setdefault(digest(asked_text(record)), place)
        if first[0] != given:
            self.conflict_count += 1
            if len(self.conflicts) < LISTED:
                self.conflicts.append(Conflict(located.file, located.line, *first[1:]))

    def take_tokens(self, counts: Iterable[int]) -> None:
        """The true numbers of tokens, record by record, for the estimates."""
        self.tokens, self.tokens_estimated = array("I", counts), False

    def to_json(self) -> dict[str, Any]:
        """All of it, as values."""
        from cloudft.types import to_json

        labels = self.labels if self.labels and self.records >= 2 * len(self.labels) else None
        common = max(labels.values()) / self.records if labels else None
        return {
            "records": self.records,
            "characters": self.characters,
            "shapes": dict(self.shapes),
            "turns": {str(count): number for count, number in sorted(self.turns.items())},
            "tokens": lengths(self.tokens, self.tokens_estimated),
            "labels": dict(labels.most_common()) if labels else None,
            "commonestShare": common,
            "duplicates": self.duplicates,
            "conflicts": {"count": self.conflict_count, "first": to_json(self.conflicts)},
            "languages": dict(self.languages.most_common()),
        }


def _language(text: str) -> str:
    """The ISO 639-1 code of a text's language, as py3langid guesses it."""
    import py3langid

    return str(py3langid.classify(text[:1000])[0])


def lengths(tokens: Sequence[int], estimated: bool) -> Mapping[str, Any]:
    """How long the records are, and how many would be cut where."""
    import numpy as np

    counts = np.array(tokens, np.int64)
    if not len(counts):
        return {"estimated": estimated, "sum": 0}
    middle = float(np.median(counts))
    numbers, edges = np.histogram(counts, bins=min(30, max(1, len(np.unique(counts)))))
    return {
        "estimated": estimated,
        "sum": int(counts.sum()),
        "least": int(counts.min()),
        "greatest": int(counts.max()),
        **{f"p{q * 100:g}": float(np.quantile(counts, q)) for q in QUANTILES},
        "longTail": int((counts > LONG_TAIL * middle).sum()),
        "cut": {str(at): int((counts > at).sum()) for at in CUTS},
        "histogram": {"edges": edges.tolist(), "records": numbers.tolist()},
    }
