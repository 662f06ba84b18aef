"""Collect people's judgments of two models' answers: blind, in random order, saved at once.

CLOUDFT_HOME/reviews/DIGEST/review.json            the two sides, the records, both answers
CLOUDFT_HOME/reviews/DIGEST/judgements-NAME.jsonl  one judgment per line; a record's last one counts
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypedDict

import msgspec
import orjson

from cloudft.data.staging.spreadsheet_csv import to_spreadsheet_csv
from cloudft.errors import BadDocument, UsageError
from cloudft.evaluate.compare import ModelResult
from cloudft.evaluate.human_review.agreement import CHOICES, JudgmentSummary, summarize_judgments
from cloudft.evaluate.human_review.whole_answers import is_cut, remove_unfinished_end, token_limit
from cloudft.evaluate.results import ScoredAnswer
from cloudft.storage.append_log import append_line
from cloudft.storage.atomic_files import as_store_error, atomic_write, make_private_folder
from cloudft.storage.documents import decode
from cloudft.storage.store import utc_now

REVIEWER_NAME = re.compile(r"[\w.@-]{1,40}")
MAX_NOTE_LENGTH = 4000
REVIEW_FILE = "review.json"
SEEN_CHOICES = ("left", "right", "tie", "bad")
"""Choices as a reviewer sees them."""


class Judgment(msgspec.Struct):
    """One saved judgment; `choice` is one of `CHOICES`, `at` an ISO 8601 time."""

    key: str
    choice: str
    note: str
    at: str


Side = Literal["a", "b"]


class SavedPair(msgspec.Struct):
    """One record of `review.json` with both answers, as they are shown."""

    key: str
    prompt: str
    reference: str
    a: str
    b: str
    cut: list[Side] = []


class SavedReview(msgspec.Struct, rename="camel"):
    """The content of `review.json`.

    `whole` are answers that were continued, by side and record key. `pairs` is None where an
    earlier cloudft has written the review.
    """

    a: str = ""
    b: str = ""
    records: list[str] = []
    whole: dict[Side, dict[str, str]] | None = None
    token_limit: int | None = None
    pairs: list[SavedPair] | None = None
    created_at: str | None = None


def read_review(folder: Path) -> SavedReview:
    """Return what is saved of a review. Raise StoreError, BadDocument."""
    path = folder / REVIEW_FILE
    with as_store_error("can't read the review", path):
        content = path.read_bytes() if path.exists() else b"{}"
    return decode(content, SavedReview, file=path)


@dataclass(frozen=True)
class AnswerPair:
    """One record with both answers, as they are shown. `cut` are sides that a limit has ended."""

    key: str
    prompt: str
    reference: str
    a: str
    b: str
    cut: frozenset[Side] = field(default=frozenset())


class ReviewSummary(JudgmentSummary):
    """The summary of a review, with the names of its sides."""

    review: str
    a: str
    b: str
    records: int


class ExportRow(TypedDict):
    """One judgment with its record."""

    reviewer: str
    key: str
    prompt: str
    reference: str
    a: str
    b: str
    choice: str
    note: str
    at: str


class ShownRecord(TypedDict):
    """A record as a reviewer sees it, without the names of the sides."""

    prompt: str
    reference: str
    left: str
    right: str
    choice: str | None
    note: str


class ReviewPosition(TypedDict):
    """A position in a reviewer's order; `record` is None after the last one.

    `tokenLimit` is where every answer ends that does not end before; None if unknown.
    """

    position: int
    total: int
    judged: int
    tokenLimit: int | None
    record: ShownRecord | None


class Review:
    """Two sides and the records that both have answered, for any number of reviewers at once."""

    def __init__(
        self,
        root: Path,
        first: ModelResult,
        second: ModelResult,
        *,
        sample: int = 0,
        seed: int = 7,
    ) -> None:
        pairs = _pair_answers(first, second)
        if sample and sample < len(pairs):
            pairs = random.Random(seed).sample(pairs, sample)
        self.names = (first.name, second.name)
        self.token_limit = token_limit(first, second)
        # The same sides and records give the same folder, so that a review is resumed.
        content = [[pair.key, pair.a, pair.b] for pair in pairs]
        self.id = hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]
        self.folder = root / self.id
        self._path = self.folder / REVIEW_FILE
        self.pairs = {pair.key: _without_unfinished_ends(pair) for pair in pairs}
        saved = read_review(self.folder)
        self.whole, self._is_saved = saved.whole, saved.pairs is not None
        self._created_at = saved.created_at
        if self.whole is not None:
            self._replace_answers(self.whole)

    @classmethod
    def load(cls, folder: Path) -> Review:
        """Return a review by its folder alone, without the evaluations that it was made from.

        Raises UsageError for one that there is not, or that does not hold its answers; StoreError.
        """
        saved = read_review(folder)
        if saved.pairs is None:
            raise UsageError(
                f"the review {folder.name} does not hold its answers",
                fix="open it once by its sides: cloudft review A B",
            )
        review = cls.__new__(cls)
        review.names, review.token_limit = (saved.a, saved.b), saved.token_limit
        review.id, review.folder, review._path = folder.name, folder, folder / REVIEW_FILE
        review.whole, review._is_saved = saved.whole, True
        review._created_at = saved.created_at
        review.pairs = {
            one.key: AnswerPair(
                one.key, one.prompt, one.reference, one.a, one.b, frozenset(one.cut)
            )
            for one in saved.pairs
        }
        return review

    def save(self) -> None:
        """Write the sides and the records to the review's folder, unless it has them.

        Raises StoreError.
        """
        if not self._is_saved:
            self._write()

    @property
    def shown_token_limit(self) -> int | None:
        """Return the tokens of the longest answer that is shown, at most.

        None if unknown: answers that were cut, and not continued to `token_limit`, end before it.
        """
        is_continued = self.whole is not None or not any(pair.cut for pair in self.pairs.values())
        return self.token_limit if is_continued else None

    def cut_keys(self, side: Side) -> list[str]:
        """Return the keys of the records whose answer a token limit has ended."""
        return [key for key, pair in self.pairs.items() if side in pair.cut]

    def save_whole(self, whole: dict[Side, dict[str, str]]) -> None:
        """Show these answers in place of those that were cut, now and later. Raises StoreError."""
        self.whole = whole
        self._replace_answers(whole)
        self._write()

    def _replace_answers(self, whole: Mapping[Side, Mapping[str, str]]) -> None:
        for key, pair in self.pairs.items():
            a, b = whole.get("a", {}).get(key, pair.a), whole.get("b", {}).get(key, pair.b)
            still_cut = frozenset(side for side in pair.cut if key not in whole.get(side, {}))
            self.pairs[key] = replace(pair, a=a, b=b, cut=still_cut)

    def _write(self) -> None:
        content = {
            "a": self.names[0],
            "b": self.names[1],
            "records": list(self.pairs),
            "whole": self.whole,
            "tokenLimit": self.token_limit,
            "createdAt": self._created_at or utc_now(),
            "pairs": [
                {
                    "key": pair.key,
                    "prompt": pair.prompt,
                    "reference": pair.reference,
                    "a": pair.a,
                    "b": pair.b,
                    "cut": sorted(pair.cut),
                }
                for pair in self.pairs.values()
            ],
        }
        with as_store_error("can't save the review", self.folder):
            make_private_folder(self.folder)
            atomic_write(self._path, orjson.dumps(content, option=orjson.OPT_INDENT_2))
        self._is_saved = True

    def load_judgments(self) -> dict[str, dict[str, Judgment]]:
        """Return every reviewer's last judgment of each record, by reviewer and key."""
        judgments: dict[str, dict[str, Judgment]] = {}
        for path in sorted(self.folder.glob("judgements-*.jsonl")):
            by_record: dict[str, Judgment] = {}
            with as_store_error("can't read the judgments", path):
                lines = path.read_bytes().splitlines()
            for line in lines:
                try:
                    judgment = decode(line, Judgment, file=path)
                except BadDocument:
                    continue  # truncated by a crash, or damaged
                if judgment.key in self.pairs and judgment.choice in CHOICES:
                    by_record[judgment.key] = judgment
            if by_record:
                judgments[path.stem.removeprefix("judgements-")] = by_record
        return judgments

    def summarize(self) -> ReviewSummary:
        """Return the summary of all judgments."""
        choices = {
            name: {key: judgment.choice for key, judgment in by_record.items()}
            for name, by_record in self.load_judgments().items()
        }
        return {
            "review": self.id,
            "a": self.names[0],
            "b": self.names[1],
            "records": len(self.pairs),
            **summarize_judgments(choices),
        }

    def export_rows(self) -> list[ExportRow]:
        """Return every judgment with its record."""
        return [
            {
                "reviewer": name,
                "key": key,
                "prompt": self.pairs[key].prompt,
                "reference": self.pairs[key].reference,
                "a": self.pairs[key].a,
                "b": self.pairs[key].b,
                "choice": judgment.choice,
                "note": judgment.note,
                "at": judgment.at,
            }
            for name, by_record in self.load_judgments().items()
            for key, judgment in by_record.items()
        ]


def format_csv(rows: Sequence[ExportRow]) -> str:
    """Return rows as CSV for a spreadsheet, with formulas in texts made harmless."""
    names = ("reviewer", "key", "prompt", "reference", "a", "b", "choice", "note", "at")
    return to_spreadsheet_csv(names, rows)


def _pair_answers(first: ModelResult, second: ModelResult) -> list[AnswerPair]:
    first_records, second_records = first.records, second.records
    pairs = []
    for key, record in first_records.items():
        if key not in second_records:
            continue
        answers: dict[Side, ScoredAnswer] = {
            "a": record[first.variant],
            "b": second_records[key][second.variant],
        }
        a, b = answers["a"].get("text"), answers["b"].get("text")
        cut = frozenset(side for side, answer in answers.items() if is_cut(answer))
        # Documents without labels have log-likelihoods and no answers.
        if a is not None and b is not None:
            pairs.append(AnswerPair(key, record["prompt"], record["reference"], a, b, cut))
    if not pairs:
        raise UsageError(
            "the two models have answered no record in common",
            fix="evaluate both on the same file: cloudft evaluate JOB --data FILE",
        )
    return pairs


def _without_unfinished_ends(pair: AnswerPair) -> AnswerPair:
    a = remove_unfinished_end(pair.a) if "a" in pair.cut else pair.a
    b = remove_unfinished_end(pair.b) if "b" in pair.cut else pair.b
    return replace(pair, a=a, b=b)


class Reviewer:
    """One person's order of the records, and of the sides within each record."""

    def __init__(self, review: Review, name: str) -> None:
        if not REVIEWER_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is not a valid reviewer name",
                fix="use 1 to 40 letters, digits, '.', '@', '-' or '_'.",
            )
        self.review, self.name = review, name
        # Derived from the name: the same person gets the same order after a restart.
        draw = random.Random(f"{review.id}:{name}")
        self.order = sorted(review.pairs)
        draw.shuffle(self.order)
        self._swapped = {key: draw.random() < 0.5 for key in self.order}
        self._path = review.folder / f"judgements-{name}.jsonl"

    @property
    def judgments(self) -> dict[str, Judgment]:
        """Return this reviewer's judgments, by key."""
        return self.review.load_judgments().get(self.name, {})

    def get_record(self, position: int | None = None) -> ReviewPosition:
        """Return a record without the sides' names, by default the first one not yet judged."""
        judgments = self.judgments
        if position is None:
            unjudged = (n for n, key in enumerate(self.order) if key not in judgments)
            position = next(unjudged, len(self.order))
        return {
            "position": position,
            "total": len(self.order),
            "judged": len(judgments),
            "tokenLimit": self.review.shown_token_limit,
            "record": self._shown(position, judgments),
        }

    def _shown(self, position: int, judgments: dict[str, Judgment]) -> ShownRecord | None:
        if not 0 <= position < len(self.order):
            return None
        key = self.order[position]
        pair, judgment = self.review.pairs[key], judgments.get(key)
        left, right = (pair.b, pair.a) if self._swapped[key] else (pair.a, pair.b)
        # White space around an answer is a habit by which a model could be recognized.
        return {
            "prompt": pair.prompt,
            "reference": pair.reference,
            "left": left.strip(),
            "right": right.strip(),
            "choice": self._map_side(key, judgment.choice, to="seen") if judgment else None,
            "note": judgment.note if judgment else "",
        }

    def save_judgment(self, position: int, choice: str, note: str) -> None:
        """Append a judgment; it is on disk when this returns. Raises UsageError, StoreError."""
        if not 0 <= position < len(self.order) or choice not in SEEN_CHOICES:
            raise UsageError("no such record or choice", fix="reload the page.")
        key = self.order[position]
        line = {
            "key": key,
            "choice": self._map_side(key, choice, to="side"),
            "note": note[:MAX_NOTE_LENGTH],
            "at": utc_now(),
        }
        with as_store_error("can't save the judgment", self._path):
            append_line(self._path, orjson.dumps(line))

    def _map_side(self, key: str, choice: str, *, to: Literal["seen", "side"]) -> str:
        """Translate a choice between left and right and the sides a and b; keep `tie` and `bad`."""
        seen = ("right", "left") if self._swapped[key] else ("left", "right")
        sides = dict(zip(seen, ("a", "b"), strict=True))
        names = sides if to == "side" else {side: name for name, side in sides.items()}
        return names.get(choice, choice)
