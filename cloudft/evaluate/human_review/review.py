"""People's judgement of two models' answers: blind, in an order of each reviewer's own, kept.

CLOUDFT_HOME/reviews/DIGEST/review.json            the two sides and the records
CLOUDFT_HOME/reviews/DIGEST/judgements-NAME.jsonl  a line a judgement, the last of a record counts
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson

from cloudft.data.staging.spreadsheet_csv import to_spreadsheet_csv
from cloudft.errors import BadDocument, UsageError
from cloudft.evaluate.compare import ModelResult
from cloudft.evaluate.human_review.agreement import CHOICES, summarize_judgments
from cloudft.storage.atomic_files import as_store_error, atomic_write, make_private_folder
from cloudft.storage.documents import decode
from cloudft.storage.store import utc_now

REVIEWER_NAME = re.compile(r"[\w.@-]{1,40}")
MAX_NOTE_LENGTH = 4000


class _Judgment(msgspec.Struct):
    key: str
    choice: str
    note: str
    at: str


@dataclass(frozen=True)
class AnswerPair:
    """One record with both answers."""

    key: str
    prompt: str
    reference: str
    a: str
    b: str


class Review:
    """Two sides and the records that both have answered. Any number of reviewers at once."""

    def __init__(
        self, root: Path, first: ModelResult, second: ModelResult, *, sample: int = 0, seed: int = 7
    ):
        pairs = _pair_answers(first, second)
        if sample and sample < len(pairs):
            pairs = random.Random(seed).sample(pairs, sample)
        self.names = (first.name, second.name)
        self.pairs = {pair.key: pair for pair in pairs}
        content = [[p.key, p.a, p.b] for p in pairs]
        self.id = hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]
        self.folder = root / self.id

    def save(self) -> None:
        """Write down what is reviewed. Raises StoreError."""
        content = {"a": self.names[0], "b": self.names[1], "records": list(self.pairs)}
        with as_store_error("the review can't be written down", self.folder):
            make_private_folder(self.folder)
            path = self.folder / "review.json"
            if not path.exists():
                atomic_write(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))

    def load_judgments(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Every reviewer's last judgement of each record, by name and key."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for path in sorted(self.folder.glob("judgements-*.jsonl")):
            mine: dict[str, dict[str, Any]] = {}
            with as_store_error("the judgements can't be read", path):
                lines = path.read_bytes().splitlines()
            for line in lines:
                try:
                    value = decode(line, _Judgment, file=path)
                except BadDocument:
                    continue  # cut short by a crash, or damaged
                if value.key in self.pairs and value.choice in CHOICES:
                    mine[value.key] = msgspec.structs.asdict(value)
            if mine:
                found[path.stem.removeprefix("judgements-")] = mine
        return found

    def summarize(self) -> dict[str, Any]:
        """The tally, with the names of the sides."""
        choices = {
            name: {key: value["choice"] for key, value in mine.items()}
            for name, mine in self.load_judgments().items()
        }
        return {
            "review": self.id,
            "a": self.names[0],
            "b": self.names[1],
            "records": len(self.pairs),
            **summarize_judgments(choices),
        }

    def export_rows(self) -> list[dict[str, Any]]:
        """Every judgement with its record, for an export."""
        return [
            {
                "reviewer": name,
                "key": key,
                "prompt": self.pairs[key].prompt,
                "reference": self.pairs[key].reference,
                "a": self.pairs[key].a,
                "b": self.pairs[key].b,
                "choice": value["choice"],
                "note": value["note"],
                "at": value["at"],
            }
            for name, mine in self.load_judgments().items()
            for key, value in mine.items()
        ]


def format_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV for a spreadsheet, which runs none of their texts as a formula."""
    names = ("reviewer", "key", "prompt", "reference", "a", "b", "choice", "note", "at")
    return to_spreadsheet_csv(names, rows)


def _pair_answers(first: ModelResult, second: ModelResult) -> list[AnswerPair]:
    ours, theirs = first.records, second.records
    pairs = [
        AnswerPair(
            key,
            ours[key]["prompt"],
            ours[key]["reference"],
            ours[key][first.variant]["text"],
            theirs[key][second.variant]["text"],
        )
        for key in ours
        if key in theirs and "text" in ours[key][first.variant]
    ]
    if not pairs:
        raise UsageError(
            "the two have answered no record in common",
            fix="evaluate both on the same file: cloudft evaluate JOB --data FILE",
        )
    return pairs


class Reviewer:
    """One person's way through a review: an order of records, and of sides, of their own."""

    def __init__(self, review: Review, name: str) -> None:
        if not REVIEWER_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a reviewer",
                fix="give 1 to 40 letters, digits, '.', '@', '-' or '_'.",
            )
        self.review, self.name = review, name
        draw = random.Random(f"{review.id}:{name}")
        self.order = sorted(review.pairs)
        draw.shuffle(self.order)
        self._swapped = {key: draw.random() < 0.5 for key in self.order}
        self._path = review.folder / f"judgements-{name}.jsonl"

    @property
    def judgments(self) -> dict[str, dict[str, Any]]:
        """What this reviewer has judged."""
        return self.review.load_judgments().get(self.name, {})

    def get_record(self, position: int | None = None) -> dict[str, Any]:
        """A record as it is shown, the first one not judged by default. Tells no side's name."""
        mine = self.judgments
        if position is None:
            waiting = (n for n, key in enumerate(self.order) if key not in mine)
            position = next(waiting, len(self.order))
        value: dict[str, Any] = {
            "position": position,
            "total": len(self.order),
            "judged": len(mine),
            "record": None,
        }
        if 0 <= position < len(self.order):
            key = self.order[position]
            pair, judged = self.review.pairs[key], mine.get(key)
            left, right = (pair.b, pair.a) if self._swapped[key] else (pair.a, pair.b)
            value["record"] = {
                "prompt": pair.prompt,
                "reference": pair.reference,
                "left": left,
                "right": right,
                "choice": self._map_side(key, judged["choice"]) if judged else None,
                "note": judged["note"] if judged else "",
            }
        return value

    def save_judgment(self, position: int, choice: str, note: str) -> None:
        """Keep a judgement: durable when it returns. Raises UsageError, StoreError."""
        if not 0 <= position < len(self.order) or choice not in ("left", "right", "tie", "bad"):
            raise UsageError("no such record or choice", fix="load the page again.")
        key = self.order[position]
        line = {
            "key": key,
            "choice": self._map_side(key, choice, back=True),
            "note": note[:MAX_NOTE_LENGTH],
            "at": utc_now(),
        }
        with as_store_error("the judgement can't be kept", self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if torn else b"") + orjson.dumps(line) + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _map_side(self, key: str, choice: str, *, back: bool = False) -> str:
        """A side as the reviewer sees it; with `back`, what was seen as the side it is."""
        seen = ("right", "left") if self._swapped[key] else ("left", "right")
        sides = dict(zip(seen, ("a", "b"), strict=True))
        known = sides if back else {side: name for name, side in sides.items()}
        return known.get(choice, choice)
