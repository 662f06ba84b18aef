"""Statistics of a set of records: lengths, labels, duplicates, contradictions, languages."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from cloudft.data.analysis.duplicates import record_text
from cloudft.data.analysis.text_keys import hash_text, split_record
from cloudft.data.formats.record import Conversation
from cloudft.data.records import LocatedRecord
from cloudft.data.staging.label_encoder import MAX_LABELS
from cloudft.data.token_estimate import estimate_tokens

CUT_LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 32768)
QUANTILES = (0.5, 0.9, 0.99)
MAX_LISTED = 50
LANGUAGE_SAMPLE = 2000
"""Records whose language is detected, from the beginning of the set."""
MIN_LANGUAGE_CHARACTERS = 30
"""Characters of the shortest text whose language is detected: for shorter ones it is chance."""
LONG_TAIL_FACTOR = 4
"""A record with more than this many times the median's tokens is in the long tail."""


@dataclass(frozen=True)
class Conflict:
    """Two records that answer one input differently."""

    file: str
    line: int
    of_file: str
    of_line: int


@dataclass
class AnswerIndex:
    """Remembers hashes of prompts and answers, and where they are. Takes 32 bytes a record."""

    record_hashes: array[int] = field(default_factory=lambda: array("Q"))
    prompt_hashes: array[int] = field(default_factory=lambda: array("Q"))
    answer_hashes: array[int] = field(default_factory=lambda: array("Q"))
    lines: array[int] = field(default_factory=lambda: array("Q"))
    files: list[tuple[int, str]] = field(default_factory=list)

    def add(self, located: LocatedRecord, whole: str, answer: str) -> None:
        """Add one record."""
        if not self.files or self.files[-1][1] != located.file:
            self.files.append((len(self.lines), located.file))
        self.record_hashes.append(hash_text(whole))
        document = not isinstance(located.record, Conversation)
        self.prompt_hashes.append(
            hash_text("\x1d" + whole if document else split_record(located.record)[0])
        )
        self.answer_hashes.append(hash_text(answer))
        self.lines.append(located.line)

    def count_duplicates(self) -> int:
        """Return how many records repeat an earlier one."""
        import numpy as np

        hashes = np.frombuffer(self.record_hashes, np.uint64)
        return len(hashes) - len(np.unique(hashes))

    def find_conflicts(self, limit: int) -> tuple[int, list[Conflict]]:
        """Return the number of conflicts, and the first `limit` of them.

        A conflict is a record whose answer differs from that of the first record with its prompt.
        """
        import numpy as np

        prompts = np.frombuffer(self.prompt_hashes, np.uint64)
        answers = np.frombuffer(self.answer_hashes, np.uint64)
        if not len(prompts):
            return 0, []
        order = np.argsort(prompts, kind="stable")
        # Records in the order of their prompts; `first` is the first record with the same prompt.
        begins = np.ones(len(order), np.bool_)
        begins[1:] = prompts[order][1:] != prompts[order][:-1]
        first = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
        differ = answers[order] != answers[first]
        pairs = np.stack([order[differ], first[differ]], axis=1)
        shown = pairs[np.argsort(pairs[:, 0])][:limit]
        conflicts = [
            Conflict(*self._position(int(record)), *self._position(int(of))) for record, of in shown
        ]
        return len(pairs), conflicts

    def _position(self, index: int) -> tuple[str, int]:
        run = bisect_right(self.files, index, key=lambda entry: entry[0]) - 1
        return self.files[run][1], self.lines[index]


@dataclass
class DatasetStats:
    """Counts of one role's records. Takes 40 bytes a record, whatever their texts."""

    records: int = 0
    characters: int = 0
    turns: Counter[int] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] | None = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    answer_index: AnswerIndex = field(default_factory=AnswerIndex)
    tokens: array[int] = field(default_factory=lambda: array("Q"))
    tokens_estimated: bool = True
    limit: int | None = None
    """Tokens at which the job truncates a record; None if it does not, or there is no job."""

    def add_records(self, records: Iterable[LocatedRecord]) -> None:
        """Count records, reading each once."""
        language = find_spec("py3langid") is not None
        for located in records:
            text = record_text(located.record)
            self.records += 1
            self.characters += len(text)
            self.tokens.append(estimate_tokens(len(text)))
            self.formats[located.record.format] += 1
            answer = ""
            if isinstance(located.record, Conversation):
                answer = self._answer(located.record)
            self.answer_index.add(located, text, answer)
            if (
                language
                and self.records <= LANGUAGE_SAMPLE
                and len(text) >= MIN_LANGUAGE_CHARACTERS
            ):
                self.languages[_language(text)] += 1

    def _answer(self, record: Conversation) -> str:
        answer = record.answer
        self.turns[len(record.turns)] += 1
        if self.labels is not None:
            self.labels[answer] += 1
            if len(self.labels) > MAX_LABELS:
                self.labels = None
        return answer

    def set_token_counts(self, counts: Iterable[int]) -> None:
        """Replace the estimates by the true numbers of tokens, record by record."""
        self.tokens, self.tokens_estimated = array("Q", counts), False

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        from cloudft.types import to_json

        # A file that is there twice has every answer twice: no labels, but texts.
        distinct = self.records - self.answer_index.count_duplicates()
        labels = self.labels if self.labels and distinct >= 2 * len(self.labels) else None
        common = max(labels.values()) / self.records if labels else None
        count, first = self.answer_index.find_conflicts(MAX_LISTED)
        return {
            "records": self.records,
            "characters": self.characters,
            "shapes": dict(self.formats),
            "turns": {str(number): many for number, many in sorted(self.turns.items())},
            "tokens": summarize_lengths(self.tokens, self.tokens_estimated, self.limit),
            "labels": dict(labels.most_common()) if labels else None,
            "commonestShare": common,
            "duplicates": self.answer_index.count_duplicates(),
            "conflicts": {"count": count, "first": to_json(first)},
            "languages": dict(self.languages.most_common()),
        }


def _language(text: str) -> str:
    """Return the ISO 639-1 code of a text's language, as py3langid detects it."""
    import py3langid

    return str(py3langid.classify(text[:1000])[0])


def summarize_lengths(
    tokens: Sequence[int], estimated: bool, limit: int | None = None
) -> Mapping[str, Any]:
    """Return how long the records are, and how many would be truncated at which lengths.

    `limit` is the job's own.
    """
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
        "longTail": int((counts > LONG_TAIL_FACTOR * middle).sum()),
        "limit": limit,
        "cut": {
            str(at): int((counts > at).sum())
            for at in sorted({*CUT_LENGTHS, limit or CUT_LENGTHS[0]})
        },
        "histogram": {"edges": edges.tolist(), "records": numbers.tolist()},
    }
